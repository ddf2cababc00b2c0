"""Frames on the byte stream between an executor and a sandbox.

Two layers, so that user code can never speak for the supervisor:

- A *link frame* travels between executor and supervisor: payload length,
  kind and channel, then the payload. Channel 1 is the interpreter; others are
  helpers that move files.
- A *message* travels between executor and interpreter inside the payload of
  `LinkKind.DATA` frames, which the supervisor passes on unread: length, kind
  and header length, then a JSON header and a body of raw bytes. A message may
  span several link frames and a link frame may hold several messages.

Both ends bound every length before they allocate for it.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

LINK_HEADER = struct.Struct("!IBB")
MESSAGE_HEADER = struct.Struct("!IBI")

MAX_LINK_PAYLOAD = 1 << 20
MAX_MESSAGE = 64 << 20
MAX_MESSAGE_HEAD = 1 << 20

INTERPRETER_CHANNEL = 1
# A file moves in pieces of at most so many bytes; the other end answers each, and so many may be unanswered.
FILE_PIECE = 1 << 18
FILE_WINDOW = 8


class LinkKind(IntEnum):
    """Kinds of link frame. Up to 15 may come from the executor, the rest only from the supervisor."""

    DATA = 1
    """Bytes to or from the process on the channel."""
    INTERRUPT = 2
    """Send SIGINT to the process on the channel."""
    RESET = 3
    """Kill every process, empty the writable places, fork a new interpreter. Payload: a token to echo."""
    OPEN = 4
    """Fork a process that moves files, on the channel."""
    CLOSE = 5
    """The transfer on the channel is over: its process cleans up and ends."""
    STAY = 6
    """Nobody can come to where the supervisor listens: it goes on as it began."""

    READY = 16
    """The supervisor can take work. Payload: JSON about the interpreter."""
    STDOUT = 17
    """Bytes written to file descriptor 1 by the process on the channel or a process it started."""
    STDERR = 18
    """The same for file descriptor 2."""
    EXITED = 19
    """The process on the channel ended. Payload: JSON with the wait status and what killed it."""
    CLEAN = 20
    """A reset is done. Payload: JSON with the token and whether the sandbox can be used again."""
    LISTENING = 21
    """The supervisor waits at the place that its settings name, or for `STAY`."""


class MessageKind(IntEnum):
    """Kinds of message. Below 32 from the executor, the rest from an interpreter."""

    EXECUTE = 1
    TOOL_ANSWER = 2
    SCHEMA_ANSWER = 3
    INPUT_ANSWER = 4
    COMPLETE = 5
    INSPECT = 6
    PUT = 7
    GET = 8
    CHUNK = 9

    OUTPUT = 32
    DISPLAY = 33
    TOOL_CALL = 34
    SCHEMA_REQUEST = 35
    INPUT_REQUEST = 36
    DONE = 37
    COMPLETED = 38
    INSPECTED = 39
    FILE_STARTED = 40
    FILE_CHUNK = 41
    FILE_DONE = 42


class LinkFrame(NamedTuple):
    """One frame between executor and supervisor."""

    kind: int
    channel: int
    payload: bytes


class Message(NamedTuple):
    """One message between executor and interpreter."""

    kind: int
    head: dict[str, Any]
    body: bytes


class FrameError(Exception):
    """The other side sent bytes that are no frame, or one above a limit."""


def pack_link(kind: int, channel: int = 0, payload: bytes = b"") -> bytes:
    """Encode one link frame; `payload` is at most `MAX_LINK_PAYLOAD` bytes."""
    return LINK_HEADER.pack(len(payload), kind, channel) + payload


def pack_data(channel: int, data: bytes) -> bytes:
    """Encode bytes of any length as the `DATA` frames that carry them."""
    if len(data) <= MAX_LINK_PAYLOAD:
        return pack_link(LinkKind.DATA, channel, data)
    view = memoryview(data)
    return b"".join(
        pack_link(LinkKind.DATA, channel, bytes(view[start : start + MAX_LINK_PAYLOAD]))
        for start in range(0, len(data), MAX_LINK_PAYLOAD)
    )


def pack_message(kind: int, head: Mapping[str, Any] | None = None, body: bytes = b"") -> bytes:
    """Encode one message. Raises FrameError when it is above a limit of this module."""
    encoded = json.dumps(head, ensure_ascii=False).encode("utf-8", "surrogatepass") if head else b""
    length = len(encoded) + len(body)
    if len(encoded) > MAX_MESSAGE_HEAD:
        raise FrameError(f"message header of {len(encoded)} bytes is above the limit of {MAX_MESSAGE_HEAD}")
    if length > MAX_MESSAGE:
        raise FrameError(f"message of {length} bytes is above the limit of {MAX_MESSAGE}")
    return MESSAGE_HEADER.pack(length, kind, len(encoded)) + encoded + body


def decode_head(raw: bytes) -> dict[str, Any]:
    """Decode a message's JSON header from a side that is not trusted."""
    if not raw:
        return {}
    try:
        head = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"message header is not JSON: {type(error).__name__}") from None
    if not isinstance(head, dict):
        raise FrameError("message header is not a JSON object")
    return head


class _Buffer:
    """Bytes received and not yet read, with the read part dropped in bulk."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._start = 0

    def feed(self, data: bytes) -> None:
        if self._start:
            del self._data[: self._start]
            self._start = 0
        self._data += data

    def take(
        self, header: struct.Struct, check: Callable[[tuple[int, ...]], int]
    ) -> tuple[tuple[int, ...], bytes] | None:
        """The next header's fields and payload, or None until all of it has arrived."""
        available = len(self._data) - self._start
        if available < header.size:
            return None
        fields = header.unpack_from(self._data, self._start)
        length = check(fields)
        if available < header.size + length:
            return None
        begin = self._start + header.size
        self._start = begin + length
        return fields, bytes(memoryview(self._data)[begin : self._start])


class LinkReader:
    """Cuts a byte stream into link frames."""

    def __init__(self) -> None:
        self._buffer = _Buffer()

    def feed(self, data: bytes) -> Iterator[LinkFrame]:
        """Yield the frames that `data` completes. Raises FrameError on a length above the limit."""
        self._buffer.feed(data)
        while (taken := self._buffer.take(LINK_HEADER, self._length)) is not None:
            (_, kind, channel), payload = taken
            yield LinkFrame(kind, channel, payload)

    @staticmethod
    def _length(fields: tuple[int, ...]) -> int:
        if fields[0] > MAX_LINK_PAYLOAD:
            raise FrameError(f"link frame of {fields[0]} bytes is above the limit of {MAX_LINK_PAYLOAD}")
        return fields[0]


class MessageReader:
    """Cuts the bytes of one channel into messages.

    Args:
        max_message: Longest message accepted, in bytes.
    """

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self._buffer = _Buffer()
        self._max_message = max_message

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that `data` completes. Raises FrameError when `data` is no message."""
        self._buffer.feed(data)
        while (taken := self._buffer.take(MESSAGE_HEADER, self._length)) is not None:
            (_, kind, head_length), payload = taken
            yield Message(kind, decode_head(payload[:head_length]), payload[head_length:])

    def _length(self, fields: tuple[int, ...]) -> int:
        length, _, head_length = fields
        if length > self._max_message:
            raise FrameError(f"message of {length} bytes is above the limit of {self._max_message}")
        if head_length > min(length, MAX_MESSAGE_HEAD):
            raise FrameError(f"message header of {head_length} bytes is above its message or the limit")
        return length
