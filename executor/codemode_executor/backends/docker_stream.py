"""The stream that an engine attaches to a container: taken apart, and made a socket that asyncio can use.

Over a Unix socket or plain TCP the engine's stream is a socket. Over TLS the `docker` package hands out an
`ssl.SSLSocket`, which asyncio does not take, and on Windows an object around a named pipe, which has no
descriptor to wait for. Two threads then pass the bytes on to one end of a socket pair. A socket pair rather
than a transport of our own, because the kernel's buffers slow either side down to the other's pace.
"""

import asyncio
import selectors
import socket
import ssl
import struct
import threading
from contextlib import suppress
from typing import Any, Protocol

from codemode_executor.link import SandboxLink

_PIECE = 1 << 18
_HEADER = struct.Struct(">BxxxL")
_STDOUT = 1


class Demultiplexer(asyncio.Protocol):
    """Takes the engine's stream headers off, and hands standard output to the link.

    What the container writes to standard error is the supervisor's own crash
    report; the last of it is kept for the error message.
    """

    def __init__(self, link: SandboxLink) -> None:
        self._link: SandboxLink | None = link
        self._transport: asyncio.BaseTransport | None = None
        self._buffer = bytearray()
        self.stderr = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is open."""
        self._transport = transport
        if self._link is not None:
            self._link.connection_made(transport)

    def detach(self) -> None:
        """Keep the link out of what becomes of the stream: it has a better way."""
        self._link = None

    def close(self) -> None:
        """Close the stream."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Bytes arrived from the engine."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._buffer, start)
            begin = start + _HEADER.size
            if len(self._buffer) - begin < length:
                break
            payload = bytes(memoryview(self._buffer)[begin : begin + length])
            start = begin + length
            if stream == _STDOUT:
                if self._link is not None:
                    self._link.data_received(payload)
            else:
                self.stderr += payload
                del self.stderr[:-4000]
        del self._buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream ended."""
        if self._link is not None:
            self._link.connection_lost(exc)


class _Stream(Protocol):
    def receive(self) -> bytes:
        """Wait for bytes; none at the end."""

    def send(self, data: bytes) -> None:
        """Send all of them."""

    def end(self) -> None:
        """Close both directions; a `receive` that waits returns or raises."""


class _Tls:
    """A TLS socket for one thread that reads and one that writes.

    OpenSSL's objects must not be used by two threads at once, and a read that
    waited inside of one would keep the writer out; so both wait outside.
    """

    def __init__(self, stream: ssl.SSLSocket) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        stream.setblocking(False)

    def receive(self) -> bytes:
        while True:
            with self._lock, suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return self._stream.recv(_PIECE)
            self._wait(selectors.EVENT_READ)

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            with self._lock, suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                rest = rest[self._stream.send(rest) :]
                continue
            self._wait(selectors.EVENT_WRITE)

    def _wait(self, event: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stream, event)
            selector.select()

    def end(self) -> None:
        with self._lock:
            self._stream.shutdown(socket.SHUT_RDWR)


class _Pipe:
    """What the `docker` package makes of a Windows named pipe, or of an SSH channel."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        stream.settimeout(None)

    def receive(self) -> bytes:
        if not hasattr(self._stream, "recv_into"):
            return bytes(self._stream.recv(_PIECE))
        # The pipe's recv() is no overlapped read, which the pipe was opened for; recv_into() is.
        buffer = bytearray(_PIECE)
        return bytes(buffer[: self._stream.recv_into(buffer)])

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._stream.send(bytes(rest)) :]

    def end(self) -> None:
        self._stream.shutdown(socket.SHUT_RDWR)


def as_socket(stream: Any) -> socket.socket:
    """A non-blocking socket that gives and takes what `stream` does; closing it closes the stream.

    Args:
        stream: What `attach_socket` of the `docker` package returned. Not to be used afterwards.
    """
    raw = getattr(stream, "_sock", stream)
    if type(raw) is socket.socket:
        # One of our own on the same connection: the package's response object would close its one.
        own = raw.dup()
        raw.close()
        if stream is not raw:
            stream.close()
    else:
        own = _bridge(_Tls(raw) if isinstance(raw, ssl.SSLSocket) else _Pipe(raw), raw)
    own.setblocking(False)
    return own


def _bridge(stream: _Stream, raw: Any) -> socket.socket:
    ours, theirs = socket.socketpair()

    def pass_down() -> None:
        with suppress(OSError):
            while data := theirs.recv(_PIECE):
                stream.send(data)
        with suppress(Exception):
            stream.end()

    writer = threading.Thread(target=pass_down, name="docker-write", daemon=True)

    def pass_up() -> None:
        # On Windows a pipe that ended raises an error of pywin32, which is no OSError.
        with suppress(Exception):
            while data := stream.receive():
                theirs.sendall(data)
        with suppress(OSError):
            theirs.shutdown(socket.SHUT_RDWR)
        writer.join()
        theirs.close()
        with suppress(Exception):
            raw.close()
        # What the package keeps the connection alive by.
        response = getattr(raw, "_response", None)
        if response is not None:
            response.close()

    writer.start()
    threading.Thread(target=pass_up, name="docker-read", daemon=True).start()
    return ours
