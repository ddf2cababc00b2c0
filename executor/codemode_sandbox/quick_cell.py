"""A short way to run the only cell of an interpreter, when it asks for nothing of what IPython adds.

IPython prepares every cell for those that come after it: history, caches,
coroutines, syntax of its own. A stateless execution has one cell, most often of
plain Python, and for a fork all that preparation is page faults (see
`prefault`): one in five of all that it has. What a cell shows, raises and
returns is the same on both ways; whatever might not be goes IPython's way.
"""

import ast
import linecache
import re
import sys
from types import SimpleNamespace

from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

# Names that IPython keeps from cell to cell, tasks that want a running loop, and `;`, which hides a value.
_WANTS_MORE = re.compile(
    r";|\b(?:In|Out|get_ipython|_i+|_i?\d+|_[iod]h|__|___|__future__"
    r"|create_task|ensure_future|get_running_loop)\b"
)


def run(shell: InteractiveShell, code: str) -> ExecutionResult | None:
    """Run a cell as `shell.run_cell` does, if it is one for the short way.

    Args:
        shell: A shell that has run no cell before.
        code: The cell.

    Returns:
        None when it is not, and nothing was run.
    """
    if _WANTS_MORE.search(code) or not code or code.isspace():
        return None
    name = f"<ipython-input-{shell.execution_count}>"
    try:
        tree = compile(code, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        assert isinstance(tree, ast.Module)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        statements = compile(tree, name, "exec", dont_inherit=True) if tree.body else None
        expression = None
        if isinstance(last, ast.Expr):
            expression = compile(ast.Expression(last.value), name, "eval", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        # IPython's syntax, a coroutine's, or a mistake that IPython words.
        return None
    # For tracebacks, and for whoever asks for the source of a function.
    shell.compile._filename_map[name] = shell.execution_count
    lines = [line + "\n" for line in code.splitlines()]
    linecache.cache[name] = (len(code), None, lines, name)
    # With what `ExecutionInfo` tells, whose arguments differ from release to release.
    info = SimpleNamespace(raw_cell=code, store_history=True, silent=False, shell_futures=True, cell_id=None)
    outcome = ExecutionResult(info)  # type: ignore[no-untyped-call]
    sys.displayhook = shell.displayhook
    shell.displayhook.exec_result = outcome
    try:
        if statements is not None:
            exec(statements, shell.user_global_ns, shell.user_ns)  # noqa: S102 - what this is for
        if expression is not None:
            value = eval(expression, shell.user_global_ns, shell.user_ns)  # noqa: S307
            if value is not None:
                outcome.result = value
                _show(shell, value)
    except BaseException as error:  # noqa: BLE001 - the cell's own, whatever it is
        outcome.error_in_exec = error
        shell.showtraceback()
    # Figures are shown after the cell.
    for event in ("post_execute", "post_run_cell"):
        if shell.events.callbacks[event]:
            shell.events.trigger(event, *((outcome,) if event == "post_run_cell" else ()))
    return outcome


def _show(shell: InteractiveShell, value: object) -> None:
    """Display a value without keeping it, as `Out` would, for a cell that does not come."""
    assert shell.display_formatter is not None
    formats, metadata = shell.display_formatter.format(value)  # type: ignore[no-untyped-call]
    if formats:
        shell.displayhook.write_format_data(formats, metadata)
