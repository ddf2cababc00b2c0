"""`sys.stdout`, `sys.stderr` and `sys.stdin` of an interpreter."""

import io
import os
import sys
import time
from typing import Any

from codemode_sandbox.channel import Channel
from codemode_sandbox.frames import MessageKind

# Text without a line end is held back at most this long when more follows, so that
# `print(a, b, end="")` is one message and a progress bar still moves.
HOLD_SECONDS = 0.05
PIECE = 1 << 18


class _Bytes(io.RawIOBase):
    """The binary side of a stream: `sys.stdout.buffer`."""

    def __init__(self, stream: "ChannelStream") -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self._stream.flush()
        self._stream.send(bytes(view))
        return len(view)


class ChannelStream(io.TextIOBase):
    """Text that goes to the executor as messages, in order with displays and results.

    Args:
        channel: Where the messages go.
        name: "stdout" or "stderr".
        descriptor: The file descriptor of the same meaning, for `fileno()` and forked processes.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, channel: Channel, name: str, descriptor: int) -> None:
        self._channel = channel
        self.name = f"<{name}>"
        self._stream = name
        self._descriptor = descriptor
        self._held: list[str] = []
        self._held_length = 0
        self._last_send = 0.0
        self.buffer = _Bytes(self)

    def writable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """False: what is written may be kept in a file."""
        return False

    def fileno(self) -> int:
        """The descriptor that programs started by the code write to."""
        return self._descriptor

    def write(self, text: str, /) -> int:
        """Write text; whole lines are on their way when this returns."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._held.append(text)
        self._held_length += len(text)
        if (
            text.endswith("\n")
            or self._held_length >= PIECE
            or time.monotonic() - self._last_send > HOLD_SECONDS
        ):
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what is held back."""
        if not self._held:
            return
        held, self._held, self._held_length = self._held, [], 0
        self.send("".join(held).encode("utf-8", "backslashreplace"))

    def send(self, data: bytes) -> None:
        """Send bytes, in pieces."""
        self._last_send = time.monotonic()
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            if self._channel.owned:
                self._channel.send(MessageKind.OUTPUT, {"stream": self._stream}, piece)
            else:
                os.write(self._descriptor, piece)


class AskingInput(io.TextIOBase):
    """`sys.stdin` of an interpreter: each line read is asked of the person who runs the cell."""

    encoding = "utf-8"
    errors = "strict"
    name = "<stdin>"

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.allowed = False

    def readable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """Descriptor 0, which is empty: programs started by the code cannot ask."""
        return 0

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """Ask for a line."""
        try:
            return self.ask("", False) + "\n"
        except EOFError:
            return ""

    def ask(self, prompt: str, password: bool) -> str:
        """Ask for a line with a prompt. Raises EOFError when the person ends the input."""
        if not self.allowed:
            raise EOFError(
                "this run has nobody to ask: input() works in a notebook, "
                "or when the caller of the SDK passes `on_input`"
            )
        sys.stdout.flush()
        sys.stderr.flush()
        answer = self._channel.request(
            MessageKind.INPUT_REQUEST, {"prompt": str(prompt)[:10_000], "password": password}
        )
        if answer.head.get("eof"):
            raise EOFError("the input was ended")
        return answer.body.decode("utf-8", "replace")
