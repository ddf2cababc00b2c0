"""Streams of an engine that asyncio cannot use by itself, and a real sandbox over TLS."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from codemode_executor.backends.docker_stream import as_socket
from codemode_executor.backends.engine import engine_address

BIG = os.urandom(1 << 16) * 48


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for this machine, named as the `docker` package wants it."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return folder


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


class Pipe:
    """An object that has what the `docker` package's named pipe has, and is no socket."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.timeout: float | None = 60.0

    def settimeout(self, value: float | None) -> None:
        self.timeout = value

    def recv_into(self, buffer: bytearray) -> int:
        return self._real.recv_into(buffer)

    def send(self, data: bytes) -> int:
        # No more than a pipe's buffer at a time.
        return self._real.send(data[:4096])

    def shutdown(self, how: int) -> None:
        self._real.shutdown(how)

    def close(self) -> None:
        self._real.close()


@pytest.fixture(params=["plain", "tls", "pipe"])
def ends(request: pytest.FixtureRequest, certificate: Path) -> Iterator[tuple[Any, socket.socket]]:
    """A stream as `attach_socket` may return it, and the engine's end, which blocks."""
    theirs, engine = socket.socketpair()
    stream: Any = theirs
    if request.param == "pipe":
        stream = Pipe(theirs)
    elif request.param == "tls":
        client = ssl.create_default_context(cafile=str(certificate / "ca.pem"))
        wrapped: list[ssl.SSLSocket] = []
        context = server_context(certificate)
        shaking = threading.Thread(
            target=lambda: wrapped.append(context.wrap_socket(engine, server_side=True))
        )
        shaking.start()
        stream = client.wrap_socket(theirs, server_hostname="localhost")
        shaking.join()
        engine = wrapped[0]
    engine.settimeout(20)
    yield stream, engine
    engine.close()
    if request.param == "plain":
        theirs.close()


def echo(engine: socket.socket, size: int) -> None:
    """Send back what comes, piece by piece, from one thread: a TLS object is not for two at once."""
    while size > 0 and (piece := engine.recv(1 << 16)):
        size -= len(piece)
        engine.sendall(piece)


def test_bytes_go_both_ways_at_once(ends: tuple[Any, socket.socket]) -> None:
    stream, engine = ends

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection(sock=as_socket(stream))
        writer.write(BIG)
        answer = await reader.readexactly(len(BIG))
        writer.close()
        await writer.wait_closed()
        return answer

    echoing = threading.Thread(target=echo, args=(engine, len(BIG)))
    echoing.start()
    assert asyncio.run(asyncio.wait_for(talk(), 20)) == BIG
    echoing.join(20)
    assert not echoing.is_alive()


def test_closing_it_closes_the_stream(ends: tuple[Any, socket.socket]) -> None:
    stream, engine = ends

    async def close() -> None:
        _, writer = await asyncio.open_connection(sock=as_socket(stream))
        writer.write(b"last words")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    asyncio.run(close())
    if type(stream) is socket.socket:
        stream.close()
    said = b""
    with suppress(ssl.SSLEOFError, ConnectionResetError):
        while piece := engine.recv(100):
            said += piece
    assert said == b"last words"
    no_threads_are_left()


def test_the_end_of_the_stream_is_its_end(ends: tuple[Any, socket.socket]) -> None:
    stream, engine = ends

    async def read() -> bytes:
        reader, writer = await asyncio.open_connection(sock=as_socket(stream))
        engine.sendall(b"last words")
        engine.shutdown(socket.SHUT_RDWR)
        said = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return said

    assert asyncio.run(read()) == b"last words"
    no_threads_are_left()


def test_a_pipe_waits_for_as_long_as_it_takes() -> None:
    ours, theirs = socket.socketpair()
    pipe = Pipe(ours)
    with as_socket(pipe), theirs:
        # The package's own timeout is that of its requests.
        assert pipe.timeout is None
    no_threads_are_left()


def no_threads_are_left() -> None:
    deadline = time.monotonic() + 10
    while [thread for thread in threading.enumerate() if thread.name.startswith("docker-")]:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


# --- a real engine, over TLS --------------------------------------------------------------------


@pytest.fixture
def engine_over_tls(certificate: Path, sandbox_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a listener that takes TLS and passes on to the real engine's socket."""
    path = str(engine_address()["base_url"]).partition("unix://")[2]
    if not path:
        pytest.skip("the Docker Engine is not on a Unix socket")
    context = server_context(certificate)
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(path)
        await asyncio.gather(copy(reader, up_writer), copy(up_reader, writer))

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    # These go before what the `docker` package is told of the engine's certificate.
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificate))
    yield os.environ["DOCKER_HOST"]

    async def stop() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_sandbox_of_an_engine_behind_tls_runs_code(engine_over_tls: str) -> None:
    # As a process, because the `docker` package leaves TLS connections to the garbage collector.
    done = subprocess.run(
        [sys.executable, "-m", "codemode_executor.cli", "doctor", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)["backends"]["docker"]
    assert report["works"], report["reason"]
    assert report["details"]["address"] == engine_over_tls


def test_a_big_value_crosses_tls_both_ways(engine_over_tls: str) -> None:
    program = (
        "from codemode import Codemode\n"
        "with Codemode.local(backend='docker', warm=0) as codemode:\n"
        "    codemode.registry.register_tool('echo', lambda text: text)\n"
        "    result = codemode.run('result = len(tools.echo(text=\"x\" * 3_000_000))')\n"
        "    print(result.result, result.backend, result.error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "3000000 docker None\n", done.stderr
