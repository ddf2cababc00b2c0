"""The IPython shell that code runs on, made once in the supervisor and inherited by every fork.

Displays and results become messages; nothing is printed in their place. The
shell has no history file, no profile and no thread of its own.
"""

import ast
import base64
import builtins
import json
import os
import pydoc
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from IPython.core import interactiveshell
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.formatters import DisplayFormatter
from IPython.core.interactiveshell import InteractiveShell
from IPython.lib import pretty
from traitlets.config import Config

from codemode_sandbox import errors, quick_cell, reserve
from codemode_sandbox.channel import Channel
from codemode_sandbox.frames import MessageKind
from codemode_sandbox.tools import ToolProxy

_WANTS_LOOP = re.compile(r"\b(create_task|ensure_future|get_running_loop)\b")
_ONE_FORM = frozenset({int, float, bool, str, bytes, complex})


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)


class ChannelPublisher(DisplayPublisher):
    """`display()`, its updates, and `clear_output()`, as messages."""

    channel: "Channel | _Nowhere"

    def publish(  # noqa: D102 - as in IPython
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        source: Any = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **kwargs: Any,
    ) -> None:
        kind = "update_display_data" if update else "display_data"
        self.send(kind, {"data": data, "metadata": metadata or {}, "transient": transient or {}})

    def clear_output(self, wait: bool = False) -> None:  # noqa: D102
        self.send("clear_output", {"wait": bool(wait)})

    def send(self, kind: str, content: dict[str, Any]) -> None:
        """Send one display of any kind, after what was printed before it."""
        sys.stdout.flush()
        sys.stderr.flush()
        body = json.dumps(content, default=_as_json, skipkeys=True).encode("utf-8", "surrogatepass")
        # The value of the last expression is followed by the report of the cell.
        send = self.channel.send_with_next if kind == "execute_result" else self.channel.send
        send(MessageKind.DISPLAY, {"kind": kind}, body)


class ChannelDisplayHook(DisplayHook):
    """The value of a cell's last expression, as a message."""

    shell: "SandboxShell"

    def write_output_prompt(self) -> None:
        """The front end writes the prompt."""

    def write_format_data(  # noqa: D102
        self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None
    ) -> None:
        self.shell.display_pub.send(
            "execute_result", {"data": format_dict, "metadata": md_dict or {}, "transient": {}}
        )

    def quiet(self) -> bool:
        """Whether a semicolon ends the cell; without one there is no need to tokenize it."""
        history = self.shell.history_manager
        return history is not None and ";" in history.input_hist_parsed[-1] and bool(super().quiet())

    def log_output(self, format_dict: dict[str, Any]) -> None:
        """Nothing is logged."""

    def finish_displayhook(self) -> None:
        """Everything was sent."""


class QuickFormatter(DisplayFormatter):
    """IPython's formatter, with a short way for values that have one form only.

    A fork shares its parent's memory until it writes, and CPython writes to
    what it only reads. Asking twelve formatters about a number costs a fork
    some 400 page faults, two milliseconds, of which this saves nearly all.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._printers = [
            formatter.type_printers for name, formatter in self.formatters.items() if name != "text/plain"
        ]
        self._printers.append(self.ipython_display_formatter.type_printers)
        self._plain = self.formatters["text/plain"].type_printers

    def format(self, obj: Any, include: Any = None, exclude: Any = None) -> Any:  # noqa: D102 - as in IPython
        kind = type(obj)
        if (
            kind in _ONE_FORM
            and not include
            and not exclude
            # `%precision`, or a formatter the user registered, comes before.
            and self._plain.get(kind) is pretty._type_pprinters.get(kind)
            and not any(kind in printers for printers in self._printers)
        ):
            return {"text/plain": repr(obj)}, {}
        return super().format(obj, include, exclude)


class SandboxShell(InteractiveShell):
    """IPython without a terminal: errors are kept for the report instead of printed."""

    display_pub: ChannelPublisher

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep_error(None)

    def keep_error(self, error: BaseException | None, lines: Sequence[str] = (), limit: str = "") -> None:
        """Keep how a cell failed for its report, or, with None, that it did not.

        Args:
            error: The error.
            lines: Its traceback, coloured.
            limit: The limit that caused it, see `errors.add_hint`.
        """
        self.captured_error = error
        self.traceback_lines = list(lines)
        self.captured_limit = limit

    def init_display_formatter(self) -> None:
        """Use the quick formatter."""
        self.display_formatter = QuickFormatter(parent=self)

    def transform_cell(self, raw_cell: str) -> str:
        """Turn IPython's syntax into Python's; what is Python already is taken as it is.

        For the same reason as in `QuickFormatter`: the tokenizer costs a fork 250 page faults.
        """
        try:
            ast.parse(raw_cell)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            transformed: str = super().transform_cell(raw_cell)
            return transformed
        return raw_cell if raw_cell.endswith("\n") else raw_cell + "\n"

    def should_run_async(self, raw_cell: str, **kwargs: Any) -> bool:
        """Also for code that asks for a running loop without awaiting anything, as in any notebook."""
        return bool(super().should_run_async(raw_cell, **kwargs)) or (
            _WANTS_LOOP.search(raw_cell) is not None and "asyncio.run(" not in raw_cell
        )

    def init_virtualenv(self) -> None:
        """The sandbox's packages are on the path already."""

    def enable_gui(self, gui: str | None = None) -> None:
        """There is no screen; `%matplotlib inline` asks for none."""

    def system(self, command: str) -> None:
        """Run `!command`, its output streaming as the code's own."""
        sys.stdout.flush()
        sys.stderr.flush()
        # In a process group of its own, so that an interrupt ends what the shell has started as well.
        arguments = ["/bin/sh", "-c", self.var_expand(command, depth=1)]
        with subprocess.Popen(arguments, process_group=0) as process:  # noqa: S603 - what `!` means
            try:
                self.user_ns["_exit_code"] = process.wait()
            except KeyboardInterrupt:
                os.killpg(process.pid, signal.SIGKILL)
                raise

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        """Keep the error and its traceback for the report."""
        try:
            _, error, _ = self._get_exc_info(exc_tuple)
        except ValueError:
            print("No traceback available to show.", file=sys.stderr)  # noqa: T201
            return
        if isinstance(error, MemoryError):
            reserve.release()
        errors.clean(error)
        # Before its text is made, which may take for ever.
        self.keep_error(error, limit=errors.add_hint(error))
        try:
            lines = self._structured(error, kwargs.get("tb_offset"))
        except BaseException:  # noqa: BLE001 - the exception's own code may do anything
            lines = errors.plain_traceback(error).splitlines()
        self.traceback_lines = "\n".join(lines)[: errors.MAX_TRACEBACK].split("\n")

    def _structured(self, error: BaseException, tb_offset: int | None) -> list[str]:
        if isinstance(error, BaseExceptionGroup):
            # IPython's formatter does not know exception groups.
            error.__traceback__ = _below_ipython(error.__traceback__)
            return errors.plain_traceback(error).splitlines()
        if isinstance(error, SyntaxError) and not _from_cell(error):
            lines: list[str] = self.SyntaxTB.structured_traceback(type(error), error, None)
            return lines
        # `tb_offset` skips IPython's own frames, which are above the cell's.
        formatted: list[str] = self.InteractiveTB.structured_traceback(
            type(error), error, error.__traceback__, tb_offset=tb_offset
        )
        return formatted

    def _format_exception_for_storage(self, exception: BaseException, *args: Any, **kwargs: Any) -> Any:
        """Nothing is stored, and asking an exception for its text may fail."""
        return {"ename": type(exception).__name__, "evalue": "", "traceback": []}

    def showsyntaxerror(self, filename: str | None = None, running_compiled_code: bool = False) -> None:
        """Keep a syntax error in the cell itself."""
        _, error, _ = self._get_exc_info()
        error.__traceback__ = None
        self.keep_error(error)
        lines = self.SyntaxTB.structured_traceback(type(error), error, None)
        self.traceback_lines = "\n".join(lines).split("\n")

    def show_usage_error(self, exc: BaseException) -> None:
        """Keep a magic's usage error."""
        self.keep_error(exc, [f"UsageError: {exc}"])

    def connect(self, channel: Channel) -> None:
        """Send displays over `channel` from now on."""
        self.display_pub.channel = channel


def _below_ipython(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_frame.f_code.co_filename == interactiveshell.__file__:
        tb = tb.tb_next
    return tb


def _from_cell(error: SyntaxError) -> bool:
    return error.__traceback__ is not None


class _Help:
    """`help`, which also explains tools."""

    def __repr__(self) -> str:
        return "Type help(object) for help about object."

    def __call__(self, *args: Any) -> None:
        if not args:
            print("help(object) explains an object, for example help(tools.weather).")  # noqa: T201
            return
        thing = args[0].as_function() if isinstance(args[0], ToolProxy) else args[0]
        print(pydoc.plain(pydoc.render_doc(thing, "Help on %s:")))  # noqa: T201


def make_shell() -> SandboxShell:
    """Make the shell, before any fork. Needs a writable `IPYTHONDIR` in the environment."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.cache_size = 1000
    config.InteractiveShell.enable_html_pager = False
    config.InteractiveShell.display_page = True
    config.InteractiveShell.colors = "neutral"
    config.InteractiveShell.separate_in = ""
    shell: SandboxShell = SandboxShell.instance(
        config=config,
        display_pub_class=ChannelPublisher,
        displayhook_class=ChannelDisplayHook,
    )
    shell.autoawait = True
    # It speaks of a terminal.
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")
    # For good, so that no cell has to switch it on and off.
    shell.builtin_trap.activate()
    # `python -S` leaves these out.
    builtins.help = _Help()  # type: ignore[assignment]
    builtins.exit = builtins.quit = _leave  # type: ignore[assignment]
    _warm_up(shell)
    # After the reset that ends the warm-up, which puts IPython's own back.
    shell.user_ns["exit"] = shell.user_ns["quit"] = _leave
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    return shell


class _Nowhere:
    """A channel for messages that nobody reads."""

    def send(self, kind: int, head: dict[str, Any] | None = None, body: bytes = b"") -> None:
        """Drop it."""

    send_with_next = send


def _warm_up(shell: SandboxShell) -> None:
    """Run cells of our own, so that no fork pays for what IPython and Python do once."""
    shell.display_pub.channel = _Nowhere()
    for cell in ("1+1", "%precision", "1/0"):
        quick_cell.run(shell, cell)
        shell.run_cell(cell, store_history=True)
    shell.keep_error(None)
    shell.reset(new_session=True)


def _leave(code: Any = None) -> None:
    """End the cell; an interpreter ends when its session is closed."""
    raise SystemExit(code)
