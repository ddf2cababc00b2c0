"""The magics: ``%%codemode`` runs a cell in the sandbox, ``%codemode`` looks after the session."""

# IPython's decorators for magics and their arguments have no types.
# mypy: disable-error-code="untyped-decorator, no-untyped-call, arg-type"

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.getipython import get_ipython
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments
from traitlets import Bool, Float, Unicode, default, observe
from traitlets.config import Configurable

from codemode.errors import ExecutionFailedError
from codemode.tools import default_registry
from codemode_kernel.notebook_session import NotebookSession
from codemode_kernel.options import context_variables, parse_line, seconds, tool_names
from codemode_kernel.output import CellOutput, asks_person, say, told_if_slow
from codemode_kernel.short_errors import short_errors, shorten
from codemode_kernel.status import describe_context, describe_status, describe_tools

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from codemode import Codemode, ExecutionResult

__all__ = ["CodemodeMagics", "loaded_magics", "remove_magics", "require_magics"]

LEFT_OUT = (
    "scripts in the output of the sandbox were left out; `%config CodemodeMagics.trust_outputs = True` "
    "shows them, and lets them act in this page as you can"
)

HELP = """\
%%codemode            run this cell in the sandbox; `%%codemode?` lists its options
%codemode status      where cells run, and within which limits
%codemode context     show the context; KEY=VALUE after it sets a variable, KEY= takes it away
%codemode tools       the tools that cells may call; @codemode.tool makes one of a function
%codemode interrupt   interrupt the running cell, from another thread or console of this kernel
%codemode reset       end the session, its variables and files; the next cell starts a new one
%config CodemodeMagics   settings"""


@magics_class
class CodemodeMagics(Magics, Configurable):
    """Cells that run in a sandbox instead of in this kernel."""

    executor_url = Unicode(
        help="Address of the executor, such as https://host:port; empty for one of this notebook's own. "
        "By default what CODEMODE_EXECUTOR_URL says. Its key is read from CODEMODE_EXECUTOR_API_KEY alone: a "
        "key in a cell would be saved with the notebook. Changing it ends the session."
    ).tag(config=True)
    backend = Unicode(
        help="What isolates the cells of an executor of this notebook's own: auto (Docker if it answers, "
        "else bubblewrap), docker or bubblewrap. By default what CODEMODE_BACKEND says, else auto. "
        "Changing it ends the session."
    ).tag(config=True)
    timeout = Float(
        None,
        allow_none=True,
        help="Seconds a cell may run, where it does not say otherwise with -t; None for what the client's "
        "configuration says, which is 30 by default.",
    ).tag(config=True)
    trust_outputs = Bool(
        False,
        help="Show HTML, Markdown and JavaScript from the sandbox unchanged. A script in them can then do in "
        "Jupyter whatever you can, outside of the sandbox: for code you trust as you do your own.",
    ).tag(config=True)

    def __init__(self, shell: InteractiveShell) -> None:
        """Make the magics of a shell; nothing is started yet."""
        super().__init__(shell=shell, parent=shell)
        self.session = NotebookSession(self._connect)
        self._cell_is_running = False
        self._told_what_is_left_out = False

    @default("executor_url")
    def _default_executor_url(self) -> str:
        return os.environ.get("CODEMODE_EXECUTOR_URL", "")

    @default("backend")
    def _default_backend(self) -> str:
        return os.environ.get("CODEMODE_BACKEND", "") or "auto"

    @observe("executor_url", "backend")
    def _executor_changed(self, change: Any) -> None:
        if hasattr(self, "session"):
            self.session.close()

    def _connect(self) -> Codemode:
        from codemode import ClientConfig, Codemode

        registry = default_registry()
        if self.executor_url:
            return Codemode.from_client_config(
                ClientConfig.from_env(executor_url=self.executor_url), registry
            )
        with told_if_slow("starting a sandbox on this machine; the first start takes longest"):
            return Codemode.local(registry, backend=self.backend)

    # --- cells --------------------------------------------------------------------------------------

    @magic_arguments("%%codemode")
    @argument("--fresh", action="store_true", help="Run it in a fresh interpreter instead of in the session.")
    @argument("-t", "--timeout", type=seconds, metavar="SECONDS", help="How long it may run.")
    @argument(
        "-c", "--context", action="append", default=[], metavar="KEY=VALUE",
        help="A variable of the context of this cell, besides the notebook's. May be repeated.",
    )  # fmt: skip
    @argument("--tools", metavar="NAMES", help="Tools it may call: a,b or none. All by default.")
    @no_var_expand
    @cell_magic("codemode")
    def run_cell(self, line: str, cell: str) -> None:
        """Run the cell in the notebook's sandbox.

        It keeps its variables for the next such cell, and does not see the kernel's. It reads ``context``
        and calls ``tools``, functions of this kernel that ``@codemode.tool`` decorates.
        """
        options = parse_line(self.run_cell.parser, line)
        tools = tool_names(options.tools, default_registry().tools)
        variables = context_variables(options.context)
        scope = secrets.token_hex(16)
        with short_errors():
            output = CellOutput(
                self.shell, lambda: scope if options.fresh else self.session.session_id, self.trust_outputs
            )
            with self._running():
                result = self.session.run(
                    cell,
                    fresh=options.fresh,
                    context=self.session.context_with(variables),
                    tools=tools,
                    timeout=options.timeout or self.timeout,
                    on_event=output,
                    on_input=asks_person(self.shell),
                )
            if output.left_out and not self._told_what_is_left_out:
                self._told_what_is_left_out = True
                say(LEFT_OUT)
            _raise_for(result)

    @contextmanager
    def _running(self) -> Iterator[None]:
        self._cell_is_running = True
        try:
            yield
        finally:
            self._cell_is_running = False

    # --- the session --------------------------------------------------------------------------------

    @magic_arguments("%codemode")
    @argument("action", nargs="?", default="help", help="status, context, tools, interrupt, reset or help.")
    @argument("values", nargs="*", metavar="KEY=VALUE", help="Variables for context.")
    @no_var_expand
    @line_magic("codemode")
    def look_after(self, line: str) -> None:
        """Show or change what `%%codemode` cells run in; see `%codemode help`."""
        options = parse_line(self.look_after.parser, line)
        actions = {
            "status": self._status,
            "tools": self._tools,
            "interrupt": self._interrupt,
            "reset": self._reset,
            "help": lambda: print(HELP),  # noqa: T201
        }
        with short_errors():
            if options.action == "context":
                self._context(options.values)
            elif options.action not in actions:
                raise UsageError(
                    f"%codemode has no {options.action!r}; it has {', '.join(['context', *actions])}"
                )
            elif options.values:
                raise UsageError(f"%codemode {options.action} takes no more words")
            else:
                actions[options.action]()

    def _context(self, assignments: list[str]) -> None:
        if assignments:
            self.session.set_context(context_variables(assignments))
        else:
            print(describe_context(self.session.context))  # noqa: T201

    def _status(self) -> None:
        print(describe_status(self.session))  # noqa: T201

    def _tools(self) -> None:
        print(describe_tools(default_registry()))  # noqa: T201

    def _reset(self) -> None:
        print(  # noqa: T201
            "The session is closed; the next cell starts a new one."
            if self.session.reset()
            else "No session is open."
        )

    def _interrupt(self) -> None:
        if not self._cell_is_running:
            print("No cell is running.")  # noqa: T201
        elif hasattr(signal, "pthread_kill") and threading.main_thread().ident:
            # To the thread that waits for the cell: a signal to another one would not wake it.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)


def _raise_for(result: ExecutionResult) -> None:
    """Raise what a cell that failed raises in the notebook, shown with the sandbox's own traceback."""
    if result.session_state == "lost":
        say("the session ended, and its variables and files are gone; the next cell starts a new one")
    details = result.error_details
    if details is None:
        result.raise_for_error()
        return
    lines = details.shown_lines
    if details.type == "KeyboardInterrupt":
        interrupt = KeyboardInterrupt(details.message)
        shorten(interrupt, lines)
        raise interrupt
    try:
        result.raise_for_error()
    except ExecutionFailedError as error:
        shorten(error, lines)
        raise


def loaded_magics(shell: InteractiveShell) -> CodemodeMagics | None:
    """The magics that the extension registered with this shell, or None."""
    magics: CodemodeMagics | None = shell.magics_manager.registry.get("CodemodeMagics")
    return magics


def require_magics() -> CodemodeMagics:
    """The magics of the running notebook.

    Raises:
        RuntimeError: The extension is not loaded.
    """
    shell = get_ipython()
    magics = loaded_magics(shell) if shell is not None else None
    if magics is None:
        raise RuntimeError("run `%load_ext codemode_kernel` in this notebook first")
    return magics


def remove_magics(shell: InteractiveShell) -> None:
    """Take the magics out of a shell again."""
    manager = shell.magics_manager
    manager.registry.pop("CodemodeMagics", None)
    for kind in ("line", "cell"):
        manager.magics[kind].pop("codemode", None)
