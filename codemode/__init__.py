"""Run code that need not be trusted in an isolated sandbox, with tools that stay in this process."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codemode.config import ClientConfig
    from codemode.core.executor_client import ExecutorClient
    from codemode.core.facade import Codemode
    from codemode.core.registry import ComponentRegistry, RuntimeContext
    from codemode.core.session import Session
    from codemode.errors import (
        CodemodeError,
        ExecutionFailedError,
        ExecutorClientError,
        ExecutorConnectionError,
        ExecutorTimeoutError,
    )
    from codemode.results import ExecutionResult
    from codemode.tools import tool

# Loaded when first asked for: a program that only needs an error or the decorator does not pay for gRPC.
_HOMES = {
    "ClientConfig": "codemode.config",
    "Codemode": "codemode.core.facade",
    "CodemodeError": "codemode.errors",
    "ComponentRegistry": "codemode.core.registry",
    "ExecutionFailedError": "codemode.errors",
    "ExecutionResult": "codemode.results",
    "ExecutorClient": "codemode.core.executor_client",
    "ExecutorClientError": "codemode.errors",
    "ExecutorConnectionError": "codemode.errors",
    "ExecutorTimeoutError": "codemode.errors",
    "RuntimeContext": "codemode.core.registry",
    "Session": "codemode.core.session",
    "tool": "codemode.tools",
}

__all__ = [
    "ClientConfig",
    "Codemode",
    "CodemodeError",
    "ComponentRegistry",
    "ExecutionFailedError",
    "ExecutionResult",
    "ExecutorClient",
    "ExecutorClientError",
    "ExecutorConnectionError",
    "ExecutorTimeoutError",
    "RuntimeContext",
    "Session",
    "tool",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'codemode' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
