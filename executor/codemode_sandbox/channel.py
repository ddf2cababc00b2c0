"""An interpreter's end of its channel: messages out, answers in, from any thread.

Nothing is read while code runs until the code asks for something (a tool, a
line of input): then one thread begins to read, and hands each answer to whoever
waits for it. An execution that asks for nothing pays for no thread.
"""

import asyncio
import os
import queue
import select
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

from codemode_sandbox.frames import Message, MessageKind, MessageReader, pack_message

READ_SIZE = 1 << 16
_CLOSED = socket.socket(socket.AF_UNIX)
_CLOSED.close()
_ANSWERS = {MessageKind.TOOL_ANSWER, MessageKind.SCHEMA_ANSWER, MessageKind.INPUT_ANSWER}


class Waiter(Protocol):
    """Takes the answer to one request; called on the reading thread."""

    def __call__(self, answer: Message, /) -> object: ...  # noqa: D102


class Channel:
    """Messages to and from the executor over a socket.

    Made in the supervisor, before any fork, and opened in the fork that is to be the interpreter.
    """

    def __init__(self) -> None:
        self._sock: socket.socket = _CLOSED
        self._reader = MessageReader()
        self._received: list[Message] = []
        self._incoming = bytearray(READ_SIZE)
        self._commands: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._waiters: dict[int, Waiter] = {}
        self._next_id = 0
        self._sending = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._owner = 0
        self._main_sends = False
        self._interrupted = False
        self._held = b""

    def open(self, sock: socket.socket) -> None:
        """Use `sock`, in this process."""
        self._sock = sock
        self._owner = os.getpid()
        # A forked process must not write into the middle of its parent's messages.
        os.register_at_fork(after_in_child=self._disown)

    @property
    def owned(self) -> bool:
        """Whether this process is the interpreter itself, not a process it forked."""
        return os.getpid() == self._owner

    def _disown(self) -> None:
        self._sock.close()

    # --- out ----------------------------------------------------------------------------

    def send(self, kind: int, head: dict[str, Any] | None = None, body: bytes = b"") -> None:
        """Send one message, whole even when an interrupt arrives meanwhile."""
        data = pack_message(kind, head, body)
        if self._held:
            held, self._held = self._held, b""
            data = held + data
        if threading.current_thread() is not threading.main_thread():
            with self._sending:
                self._sock.sendall(data)
            return
        # A signal handler that raised here would leave half a message behind, or the lock held.
        self._main_sends = True
        try:
            with self._sending:
                self._sock.sendall(data)
        finally:
            self._main_sends = False
            if self._interrupted:
                self._interrupted = False
                raise KeyboardInterrupt

    def send_with_next(self, kind: int, head: dict[str, Any], body: bytes) -> None:
        """Send a message together with the next one, which is known to follow at once."""
        self._held += pack_message(kind, head, body)

    def handle_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, as a handler of SIGINT; after the message if one is being sent."""
        if self._main_sends:
            self._interrupted = True
        else:
            signal.default_int_handler(number, frame)

    # --- in -----------------------------------------------------------------------------

    def next_command(self) -> Message | None:
        """Wait for the next message that is not an answer; None when the executor is gone."""
        if self._thread is not None:
            return self._commands.get()
        while True:
            while self._received:
                message = self._received.pop(0)
                if message.kind not in _ANSWERS:
                    return message
            if not self._receive():
                return None

    def fileno(self) -> int | None:
        """Descriptor that becomes readable with the next command; None when a thread reads it."""
        return self._sock.fileno() if self._thread is None and not self._received else None

    def has_command(self, seconds: float = 0) -> bool:
        """Whether something can be read, within a time."""
        return bool(self._received) or bool(select.select([self._sock], [], [], seconds)[0])

    def _receive(self) -> bool:
        try:
            size = self._sock.recv_into(self._incoming)
        except OSError:
            return False
        self._received.extend(self._reader.feed(bytes(memoryview(self._incoming)[:size])))
        return size > 0

    def _read_for_all(self) -> None:
        open_ = True
        while open_:
            for message in self._received:
                if message.kind in _ANSWERS:
                    waiter = self._waiters.pop(message.head.get("id", 0), None)
                    if waiter is not None:
                        waiter(message)
                else:
                    self._commands.put(message)
            self._received.clear()
            open_ = self._receive()
        self._commands.put(None)
        for waiter in list(self._waiters.values()):
            waiter(
                Message(
                    MessageKind.TOOL_ANSWER, {"type": "ConnectionError", "message": "the caller is gone"}, b""
                )
            )

    def _ask(self, kind: int, head: dict[str, Any], body: bytes, waiter: Waiter) -> int:
        if not self.owned:
            raise RuntimeError(
                "tools, input() and displays belong to the process that runs the cell; "
                "call them there and hand the values to the process you started"
            )
        with self._starting:
            self._next_id += 1
            request_id = self._next_id
            if self._thread is None:
                self._thread = threading.Thread(target=self._read_for_all, name="answers", daemon=True)
                self._thread.start()
        self._waiters[request_id] = waiter
        try:
            self.send(kind, {**head, "id": request_id}, body)
        except BaseException:
            self._waiters.pop(request_id, None)
            raise
        return request_id

    def request(self, kind: int, head: dict[str, Any], body: bytes = b"") -> Message:
        """Send a request and wait for its answer; other threads may do so meanwhile."""
        answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
        request_id = self._ask(kind, head, body, answers.put)
        try:
            return answers.get()
        finally:
            self._waiters.pop(request_id, None)

    async def request_async(self, kind: int, head: dict[str, Any], body: bytes = b"") -> Message:
        """The same without blocking the running event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Message] = loop.create_future()

        def settle(answer: Message) -> None:
            if not future.done():
                future.set_result(answer)

        def waiter(answer: Message) -> None:
            _call_soon(loop, settle, answer)

        request_id = self._ask(kind, head, body, waiter)
        try:
            return await future
        finally:
            self._waiters.pop(request_id, None)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[Message], None], answer: Message) -> None:
    # A loop that was closed has nobody waiting any more.
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, answer)
