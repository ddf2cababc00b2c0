"""Codemode in a notebook: ``%load_ext codemode_kernel`` gives cells ``%%codemode`` and a line ``%codemode``.

Three functions do from Python what a line of magic cannot, because they take
values: `set_context`, `put_file` and, for tools, ``@codemode.tool``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load_ipython_extension", "put_file", "set_context", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics; IPython calls it for ``%load_ext codemode_kernel``."""
    from codemode_kernel.magics import CodemodeMagics, loaded_magics

    if loaded_magics(shell) is None:
        shell.register_magics(CodemodeMagics(shell))


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Close the session and take the magics away; IPython calls it for ``%unload_ext codemode_kernel``."""
    from codemode_kernel.magics import loaded_magics, remove_magics

    magics = loaded_magics(shell)
    if magics is not None:
        magics.session.close()
        remove_magics(shell)


def set_context(**variables: Any) -> None:
    """Set variables of the notebook's context, besides those that are set; None takes one away.

    A papermill parameter becomes the context in one line: ``set_context(client_id=client_id)``.

    Args:
        **variables: Values that JSON can carry. Cells read them as ``context["client_id"]``, and
            the tools they call see them in `codemode.core.context.get_current_context`.

    Raises:
        OwnerChangedError: It would change whom the open session belongs to.
        ContextVariableError: JSON cannot carry a value.
    """
    from codemode_kernel.magics import require_magics
    from codemode_kernel.short_errors import short_errors

    with short_errors():
        require_magics().session.set_context(variables)


def put_file(source: str | Path, target: str | None = None) -> str:
    """Bring a file into the working directory of the notebook's session.

    Args:
        source: Path of the file here.
        target: Path there, relative to the working directory; by default the file's name.

    Returns:
        The path there.

    Raises:
        LimitExceededError: It does not fit, or the path leads out of the working directory.
        FileNotFoundError: There is no such file here.
    """
    from codemode_kernel.magics import require_magics
    from codemode_kernel.short_errors import short_errors

    with short_errors():
        return require_magics().session.put_file(source, target)
