"""An interpreter: runs the code it is sent and reports what came of it."""

import _signal  # type: ignore[import-not-found] # a module of CPython that has no stubs
import builtins
import ctypes
import getpass
import json
import os
import re
import resource
import socket
import sys
from array import array
from contextlib import suppress
from typing import Any, NoReturn

from codemode_sandbox import errors, oom, prefault, quick_cell, reserve
from codemode_sandbox.channel import Channel
from codemode_sandbox.frames import Message, MessageKind
from codemode_sandbox.loop import CellLoop
from codemode_sandbox.processes import CHANNEL_DESCRIPTOR
from codemode_sandbox.result import NOTHING, EarlierResult, typed_value
from codemode_sandbox.shell import SandboxShell
from codemode_sandbox.streams import AskingInput, ChannelStream
from codemode_sandbox.tools import ReadOnlyMapping, ToolError, Tools

_libc = ctypes.CDLL(None)
# An interpreter that waited so long may be asked for nothing for a while.
_IDLE_SECONDS = 0.004


class Interpreter:
    """One interpreter and its namespace.

    Made in the supervisor, before any fork, so that a fork has nothing left to
    set up but its socket and its signal handler.

    Args:
        shell: The shell the code runs on.
    """

    def __init__(self, shell: SandboxShell) -> None:
        self._shell = shell
        self._channel = channel = Channel()
        self._input = AskingInput(channel)
        # Silences the interrupt that arrives when the code has just ended.
        self._running = False
        self._loop = CellLoop()
        shell.connect(channel)
        shell.loop_runner = self._loop.run
        sys.stdout = ChannelStream(channel, "stdout", 1)
        sys.stderr = ChannelStream(channel, "stderr", 2)
        sys.stdin = self._input
        shell.user_ns.update(__name__="__main__", __doc__=None)
        builtins.input = lambda prompt="", /: self._input.ask(str(prompt), False)
        getpass.getpass = lambda prompt="Password: ", stream=None, **_: self._input.ask(prompt, True)

    def _on_interrupt(self, number: int, frame: Any) -> None:
        if self._running and not self._loop.interrupt(frame):
            self._channel.handle_interrupt(number, frame)

    def rehearse(self) -> None:
        """Run a cell as it will be run, in a process that is thrown away."""
        ours, _theirs = socket.socketpair()
        self._open(ours)
        self._execute(Message(MessageKind.EXECUTE, {"alone": True}, b"1+1"))

    def _open(self, sock: socket.socket) -> None:
        self._channel.open(sock)
        # The plain function: the one in `signal` looks its arguments up in enumerations.
        _signal.signal(_signal.SIGINT, self._on_interrupt)

    def serve(self, hot: "array[int]") -> None:
        """Answer the commands that come over `CHANNEL_DESCRIPTOR`, one after the other.

        Args:
            hot: Memory that a cell will write to, see `prefault`.
        """
        self._open(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, CHANNEL_DESCRIPTOR))
        # Where one command follows another at once, the time is better spent on the command.
        if not self._channel.has_command(_IDLE_SECONDS):
            prefault.populate(hot, self._channel.has_command)
        while (command := self._next_command()) is not None:
            if command.kind == MessageKind.EXECUTE:
                self._execute(command)
            elif command.kind == MessageKind.COMPLETE:
                self._complete(command)
            elif command.kind == MessageKind.INSPECT:
                self._inspect(command)

    def _next_command(self) -> Message | None:
        """Wait for a command; tasks that a cell left in the event loop go on meanwhile."""
        descriptor = self._channel.fileno()
        if descriptor is not None:
            self._loop.run_until_readable(descriptor)
        return self._channel.next_command()

    # --- execution ----------------------------------------------------------------------

    def _execute(self, command: Message) -> None:
        head = command.head
        code = command.body.decode("utf-8", "replace")
        shell = self._shell
        shell.user_ns["tools"] = Tools(self._channel, head.get("tools"))
        shell.user_ns["context"] = ReadOnlyMapping("context", head.get("context") or {})
        shell.user_ns["config"] = ReadOnlyMapping("config", head.get("config") or {})
        self._input.allowed = bool(head.get("input"))
        shell.keep_error(None)
        count = shell.execution_count
        silent, alone = bool(head.get("silent")), bool(head.get("alone"))
        limit = int(head.get("result_bytes", 1 << 20))

        earlier = EarlierResult(shell.user_ns, code)
        report: dict[str, Any] = {}
        text, value = "", b""
        self._running = True
        reserve.hold()
        try:
            outcome = quick_cell.run(shell, code) if alone and not silent else None
            if outcome is None:
                outcome = shell.run_cell(code, store_history=not silent, silent=silent)
            error = outcome.error_before_exec or outcome.error_in_exec
            answer = earlier.answer(outcome.result)
            if error is None and answer is not NOTHING:
                text = str(answer)
                value = typed_value(answer, limit)
        except KeyboardInterrupt as interrupt:
            error = interrupt
        except BaseException as failure:  # noqa: BLE001 - `str(result)` is the code's own
            error = failure
            shell.showtraceback((type(failure), failure, failure.__traceback__))
        finally:
            reserve.release()
            self._running = False
        if not self._channel.owned:
            self._leave_forked(error)
        earlier.restore()
        if error is None and shell.captured_error is not None:
            # A formatter failed: the value has other forms, so the cell did not.
            sys.stderr.write("\n".join(shell.traceback_lines) + "\n")
        with suppress(Exception, KeyboardInterrupt):
            sys.stdout.flush()
            sys.stderr.flush()
            _libc.fflush(None)

        if error is not None:
            error = shell.captured_error or error
            report["error"] = self._describe(error, count)
            if self._loop.cancelled and report["error"]["type"] == "CancelledError":
                report["error"].update(type="KeyboardInterrupt", message="")
            text, value = "", b""
        encoded = text.encode("utf-8", "replace")
        if len(encoded) > limit:
            report["cut_result"] = len(encoded)
            encoded = encoded[:limit]
        # Only when a process that it waited for has ended, because asking takes a while.
        if resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss and oom.new_kills():
            report["process_killed_for_memory"] = True
        report.update(ok=error is None, count=count, result=len(encoded), has_value=bool(value))
        self._channel.send(MessageKind.DONE, report, encoded + value)

    def _leave_forked(self, error: BaseException | None) -> NoReturn:
        """End a process that the code forked and that came out of the cell as its parent does."""
        with suppress(Exception):
            if error is not None:
                sys.stderr.write(errors.plain_traceback(error))
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0 if error is None else 1)

    def _describe(self, error: BaseException, count: int) -> dict[str, Any]:
        shell = self._shell
        filenames = set(shell.compile._filename_map) | {f"<ipython-input-{count}>"}
        lines = shell.traceback_lines or errors.plain_traceback(error).splitlines()
        return {
            "type": type(error).__name__,
            "message": errors.message_of(error),
            "traceback": _without_colour("\n".join(lines)),
            "lines": lines,
            "line": errors.line_of(error, filenames),
            "limit": shell.captured_limit,
            "tool": str(error.tool) if isinstance(error, ToolError) else "",
        }

    # --- help while typing ----------------------------------------------------------------

    def _complete(self, command: Message) -> None:
        from IPython.core.completer import provisionalcompleter, rectify_completions

        code = command.body.decode("utf-8", "replace")
        cursor = min(int(command.head.get("cursor", len(code))), len(code))
        with provisionalcompleter():
            found = list(rectify_completions(code, self._shell.Completer.completions(code, cursor)))
        matches = [
            {"text": item.text, "type": item.type or "", "signature": item.signature or ""}
            for item in found[:1000]
        ]
        start, end = (found[0].start, found[0].end) if found else (cursor, cursor)
        self._channel.send(
            MessageKind.COMPLETED, {"start": start, "end": end}, json.dumps(matches, default=str).encode()
        )

    def _inspect(self, command: Message) -> None:
        from IPython.utils.tokenutil import token_at_cursor

        code = command.body.decode("utf-8", "replace")
        name = token_at_cursor(code, int(command.head.get("cursor", len(code))))
        try:
            data = self._shell.object_inspect_mime(name, detail_level=int(command.head.get("detail", 0)))
        except KeyError:
            data = {}
        self._channel.send(
            MessageKind.INSPECTED, {"found": bool(data)}, json.dumps(data, default=str).encode()
        )


def _without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
