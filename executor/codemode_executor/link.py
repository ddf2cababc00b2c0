"""The executor's end of the byte stream to a sandbox's supervisor."""

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any, Protocol

from codemode_sandbox.frames import (
    FrameError,
    LinkFrame,
    LinkKind,
    LinkReader,
    Message,
    MessageReader,
    pack_data,
    pack_link,
    pack_message,
)

from codemode_executor.errors import OverloadedError, SandboxDiedError

# How long a supervisor may take to kill, empty and answer before it is given up.
RESET_SECONDS = 5.0
# Each has a process of its own, which counts among those of the sandbox.
MAX_TRANSFERS = 32
# How long the event loop may be with one sandbox before the others have their turn.
SLICE_SECONDS = 0.002
# The clock is looked at once in so many messages.
_MESSAGES_PER_LOOK = 16


class ChannelUser(Protocol):
    """Takes what comes from one channel; its methods are called on the event loop and must not block."""

    def on_message(self, message: Message) -> None:
        """A message arrived from the process on the channel. Hostile."""

    def on_output(self, stream: str, data: bytes) -> None:
        """The process, or one it started, wrote to descriptor 1 or 2."""

    def on_exit(self, exit_code: int, killed_for: str | None) -> None:
        """The supervisor says the process ended; `killed_for` names the limit that killed it."""

    def on_violation(self, reason: str) -> None:
        """The process sent bytes that are no message."""

    def on_lost(self) -> None:
        """The sandbox is gone."""


class SandboxLink(asyncio.Protocol):
    """Frames to and from one sandbox. Made by a backend, which connects it to the stream."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.listening: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._reader = LinkReader()
        self._messages: dict[int, MessageReader] = {}
        self._users: dict[int, ChannelUser] = {}
        self._resets: dict[str, asyncio.Future[bool]] = {}
        self._reset_count = 0
        self._last_channel = 1
        # What arrived and was not looked at yet, while others have their turn.
        self._unread = bytearray()
        self._steps: Iterator[None] | None = None

    # --- asyncio.Protocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The backend connected the stream."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes arrived from the supervisor."""
        if self._steps is not None:
            self._unread += data
        elif self.alive:
            self._steps = self._read(data)
            self._go_on()

    def _go_on(self) -> None:
        """Read for a slice of time; if that is not all, leave the loop to others for as long."""
        if not self.alive or self._steps is None or self._transport is None:
            return
        began = time.perf_counter()
        try:
            while not _exhausted(self._steps, _MESSAGES_PER_LOOK):
                if (taken := time.perf_counter() - began) > SLICE_SECONDS:
                    self._transport.pause_reading()
                    asyncio.get_running_loop().call_later(taken, self._go_on)
                    return
        except (FrameError, ValueError, KeyError, RecursionError) as error:
            # Not an interpreter's doing: a supervisor that talks nonsense is not to be used again.
            self.abort(f"the supervisor broke the protocol: {error}")
            return
        self._steps = None
        if self._unread:
            data, self._unread = bytes(self._unread), bytearray()
            self.data_received(data)
        else:
            self._transport.resume_reading()

    def _read(self, data: bytes) -> Iterator[None]:
        """Take in what arrived, one message at a step."""
        for frame in self._reader.feed(data):
            if frame.kind == LinkKind.DATA:
                yield from self._deliver(frame)
            else:
                self._dispatch(frame)
                yield

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream ended, and with it the sandbox."""
        self._finish("the sandbox ended")

    def abort(self, reason: str) -> None:
        """Give the sandbox up."""
        if self._transport is not None:
            self._transport.abort()
        self._finish(reason)

    def _finish(self, reason: str) -> None:
        if self.closed.done():
            return
        self.closed.set_result(None)
        if not self.ready.done():
            self.ready.set_exception(SandboxDiedError(reason))
            # Nobody need be waiting for it.
            self.ready.exception()
        for waiting in self._resets.values():
            if not waiting.done():
                waiting.set_result(False)
        for user in list(self._users.values()):
            user.on_lost()
        self._users.clear()

    def _dispatch(self, frame: LinkFrame) -> None:
        user = self._users.get(frame.channel)
        if frame.kind == LinkKind.STDOUT or frame.kind == LinkKind.STDERR:
            if user is not None:
                user.on_output("stdout" if frame.kind == LinkKind.STDOUT else "stderr", frame.payload)
        elif frame.kind == LinkKind.EXITED:
            words = json.loads(frame.payload)
            if user is not None:
                user.on_exit(int(words["exit_code"]), words["killed_for"])
        elif frame.kind == LinkKind.CLEAN:
            words = json.loads(frame.payload)
            waiting = self._resets.pop(words["token"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(bool(words["clean"]))
        elif frame.kind == LinkKind.LISTENING and not self.listening.done():
            self.listening.set_result(None)
        elif frame.kind == LinkKind.READY and not self.ready.done():
            self.ready.set_result(json.loads(frame.payload))

    def _deliver(self, frame: LinkFrame) -> Iterator[None]:
        # Read even when nobody listens: a message may begin now, and end when somebody listens again.
        if (reader := self._messages.get(frame.channel)) is None:
            return
        try:
            for message in reader.feed(frame.payload):
                if (user := self._users.get(frame.channel)) is not None:
                    user.on_message(message)
                yield
        except FrameError as error:
            if (user := self._users.get(frame.channel)) is not None:
                user.on_violation(str(error))

    # --- for the executor -------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the stream is open."""
        return not self.closed.done()

    def stay(self) -> None:
        """Tell a supervisor that listens that nobody can come."""
        self._write(pack_link(LinkKind.STAY))

    def attach(self, channel: int, user: ChannelUser) -> None:
        """Hand what comes from `channel` to `user` from now on."""
        self._users[channel] = user
        self._messages.setdefault(channel, MessageReader())

    def close_channel(self, channel: int) -> None:
        """End the process that `open_channel` forked."""
        self.detach(channel)
        self._write(pack_link(LinkKind.CLOSE, channel))

    def detach(self, channel: int) -> None:
        """Drop what comes from `channel` from now on."""
        self._users.pop(channel, None)

    def send(self, channel: int, kind: int, head: dict[str, Any] | None = None, body: bytes = b"") -> None:
        """Send a message to the process on `channel`."""
        self._write(pack_data(channel, pack_message(kind, head, body)))

    def interrupt(self, channel: int) -> None:
        """Send SIGINT to the process on `channel`."""
        self._write(pack_link(LinkKind.INTERRUPT, channel))

    def open_channel(self, user: ChannelUser) -> int:
        """Have a process forked that moves files; returns its channel.

        Raises:
            OverloadedError: Too many move already.
        """
        if len(self._users) > MAX_TRANSFERS:
            raise OverloadedError(
                f"transfers: {MAX_TRANSFERS} files are on their way to or from this session; wait for some",
                retry_after_ms=500,
            )
        self._last_channel = self._last_channel % 250 + 2
        while self._last_channel in self._users:
            self._last_channel = self._last_channel % 250 + 2
        self._messages.pop(self._last_channel, None)
        self.attach(self._last_channel, user)
        self._write(pack_link(LinkKind.OPEN, self._last_channel))
        return self._last_channel

    async def reset(self) -> bool:
        """Have every process killed and every writable place emptied; False when it did not work."""
        if not self.alive:
            return False
        for channel in list(self._users):
            self.detach(channel)
        self._messages.clear()
        self._reset_count += 1
        token = str(self._reset_count)
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._resets[token] = done
        self._write(pack_link(LinkKind.RESET, 0, token.encode()))
        try:
            async with asyncio.timeout(RESET_SECONDS):
                return await done
        except TimeoutError:
            return False

    def _write(self, data: bytes) -> None:
        if self._transport is not None and self.alive:
            self._transport.write(data)


def _exhausted(steps: Iterator[None], count: int) -> bool:
    """Take so many steps; whether there was none left."""
    return len(list(itertools.islice(steps, count))) < count
