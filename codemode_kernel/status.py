"""What `%codemode status`, `context` and `tools` say: aligned plain text that reads well anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from codemode.errors import ToolError

if TYPE_CHECKING:
    from codemode.core.context import RuntimeContext
    from codemode.core.registry import ComponentRegistry
    from codemode_kernel.notebook_session import NotebookSession

__all__ = ["describe_context", "describe_status", "describe_tools"]

MAX_NAMES = 12


def describe_context(context: RuntimeContext) -> str:
    """The variables, one a line."""
    if not context.variables:
        return "The context is empty; `%codemode context client_id=acme` sets a variable."
    return _aligned((name, repr(value)) for name, value in context.variables.items())


def describe_tools(registry: ComponentRegistry) -> str:
    """Every tool with its signature and the first line of its description."""
    rows = []
    for name in registry.tools:
        try:
            binding = registry.tool_binding(name)
        except ToolError as error:
            rows.append((name, f"cannot be called: {error.message}"))
            continue
        rows.append((f"{name}{binding.signature}", binding.description.partition("\n")[0]))
    return _aligned(rows) or "No tool is registered; decorate a function with @codemode.tool to offer it."


def describe_status(session: NotebookSession) -> str:
    """Where cells run, as whom, with what, and within which limits."""
    ready = session.describe()
    codemode = session.codemode
    sandbox = session.sandbox()
    local = codemode.local_executor
    names = list(codemode.registry.tools)
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    rows = [
        (
            "executor",
            f"of this notebook, process {local.pid}" if local else codemode.executor_client.executor_url,
        ),
        ("ready", "yes" if ready.ready else f"no: {ready.reason}"),
        ("version", ready.version),
        ("backend", ready.backend),
    ]
    if ready.image:
        rows.append(("image", ready.image))
    if sandbox is None:
        rows.append(("session", "none; the next cell opens one"))
    else:
        rows += [
            ("session", "busy" if sandbox.busy else "open"),
            ("sandbox", sandbox.sandbox_id),
            ("python", sandbox.python_version),
        ]
    context = ", ".join(f"{name}={value!r}" for name, value in session.context.variables.items())
    rows += [("context", context or "empty"), ("tools", ", ".join(names[:MAX_NAMES]) + more or "none")]
    limits = sandbox.limits if sandbox is not None else ready.default_limits
    table = [
        (field.name, _amount(field.name, value), ready.enforcement.get(field.name, "executor"))
        for field, value in limits.ListFields()
    ]
    return f"{_aligned(rows)}\n\n{_aligned([('limit', 'value', 'enforced by'), *table])}"


def _amount(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        size, unit = (value / (1 << 20), "MB") if value < 1 << 30 else (value / (1 << 30), "GB")
        return f"{size:,.4g} {unit}"
    return f"{value:g} s" if name == "timeout_seconds" else f"{value:,g}"


def _aligned(rows: Iterable[tuple[str, ...]]) -> str:
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in lines
    )
