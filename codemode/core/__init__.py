"""The core of the SDK: `Codemode`, `ExecutorClient`, `ComponentRegistry`."""

from codemode.core.executor_client import ExecutorClient
from codemode.core.facade import Codemode
from codemode.core.registry import ComponentRegistry, RuntimeContext

__all__ = ["Codemode", "ComponentRegistry", "ExecutorClient", "RuntimeContext"]
