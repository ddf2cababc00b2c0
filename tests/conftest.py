"""A real executor with real sandboxes, clients of it, and a proxy that breaks the line between them."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal, NoReturn

import docker
import docker.errors
import pytest
from codemode_executor.image import find_image
from hypothesis import HealthCheck, settings

from codemode import ClientConfig, Codemode, ComponentRegistry
from codemode.core.context import reset_context
from codemode.local import LocalExecutor
from codemode.wire.checks import describe
from codemode.wire.loop import run

# How long an example takes says more of the machine than of the code.
settings.register_profile("codemode", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("codemode")

# A shell that starts the tests in the background has them ignore SIGINT, by which some of them interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

Side = Literal["client", "executor"]
# What the executors of most tests take their sandboxes from.
BACKEND = os.environ.get("CODEMODE_TESTS_BACKEND", "bubblewrap")


def unavailable(reason: str) -> NoReturn:
    """Skip on a developer's machine; in CI, what a test needs must be there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The Docker Engine of this machine."""
    # The package leaves its socket open when the engine does not answer.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = docker.from_env()
            client.ping()
        except docker.errors.DockerException as error:
            client, reason = None, f"no Docker Engine answers: {error}"
        gc.collect()
    if client is None:
        unavailable(reason)
    yield client
    client.close()


@pytest.fixture(scope="session")
def sandbox_image(engine: docker.DockerClient) -> str:
    """The engine's sandbox image of the present sources."""
    image = find_image(engine)
    if image is None:
        unavailable("the Docker Engine has no sandbox image of this version; `make image` builds it")
    return image


def enforcement(codemode: Codemode) -> dict[str, str]:
    """How each limit is enforced by the executor of a client, by name."""
    return dict(run(describe(codemode.executor_client._connection)).enforcement)


class ChaosProxy:
    """Passes connections on to an executor's socket, and cuts them when it is told to.

    Protobuf puts strings on the wire as they are, so a moment is chosen by the bytes that are about to pass.

    Args:
        url: The executor's, `unix:/path`.
    """

    def __init__(self, url: str) -> None:
        self.upstream = url
        self.connections = 0
        self.cuts = 0
        self.was_cut = threading.Event()
        # While set, new connections are closed at once.
        self.refusing = False
        self._rules: list[tuple[Side, bytes, bool, bool]] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._spawn(self._accept)

    def cut(self) -> None:
        """Cut every connection now."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            self.cuts += bool(pairs)
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        if pairs:
            self.was_cut.set()

    def cut_at(self, marker: bytes, *, sent_by: Side, deliver: bool, refuse: bool = False) -> None:
        """Cut once when these bytes come by.

        Args:
            marker: The bytes.
            sent_by: Who sends them.
            deliver: Whether they still reach the other side.
            refuse: Whether to refuse new connections from then on.
        """
        self._rules.append((sent_by, marker, deliver, refuse))

    def close(self) -> None:
        """Cut everything and stop."""
        self._closing = True
        # Closing a listener does not wake the thread that accepts from it.
        with suppress(OSError), socket.create_connection(self._listener.getsockname()):
            pass
        self.cut()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _spawn(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closing or self.refusing:
                client.close()
                if self._closing:
                    return
                continue
            executor = socket.socket(socket.AF_UNIX)
            try:
                executor.connect(self.upstream.removeprefix("unix:"))
            except OSError:
                client.close()
                executor.close()
                continue
            with self._lock:
                self.connections += 1
                self._pairs.append((client, executor))
            open_directions = threading.Semaphore(0)
            self._spawn(self._pump, client, executor, "client", open_directions)
            self._spawn(self._pump, executor, client, "executor", open_directions)
            self._spawn(self._close_both, client, executor, open_directions)

    def _pump(
        self, source: socket.socket, sink: socket.socket, side: Side, done: threading.Semaphore
    ) -> None:
        seen = b""
        with suppress(OSError):
            while data := source.recv(1 << 16):
                seen = seen[-4096:] + data
                rule = next((rule for rule in self._rules if rule[0] == side and rule[1] in seen), None)
                if rule is None:
                    sink.sendall(data)
                    continue
                self._rules.remove(rule)
                if rule[2]:
                    sink.sendall(data)
                self.refusing = self.refusing or rule[3]
                self.cut()
                break
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        done.release()

    @staticmethod
    def _close_both(client: socket.socket, executor: socket.socket, done: threading.Semaphore) -> None:
        done.acquire()
        done.acquire()
        client.close()
        executor.close()


MakeExecutor = Callable[..., LocalExecutor]
MakeClient = Callable[..., Codemode]
MakeProxy = Callable[["LocalExecutor | str"], ChaosProxy]


@pytest.fixture(scope="session")
def executor() -> Iterator[LocalExecutor]:
    """An executor that many tests share; tests that stop it, or fill it up, start one of their own."""
    started = LocalExecutor(BACKEND, vanished_seconds=5)
    yield started
    started.close()


@pytest.fixture
def start_executor() -> Iterator[MakeExecutor]:
    """Start an executor with options of `codemode-executor serve`; it is stopped after the test."""
    started: list[LocalExecutor] = []

    def start(**options: object) -> LocalExecutor:
        one = LocalExecutor(BACKEND, **options)
        started.append(one)
        return one

    yield start
    for one in started:
        one.close()


@pytest.fixture
def connect() -> Iterator[MakeClient]:
    """Make a `Codemode` for an executor, a proxy to it, or its URL; it is closed after the test."""
    made: list[Codemode] = []

    def make(target: LocalExecutor | ChaosProxy | str, key: str = "", **settings: Any) -> Codemode:
        url = target if isinstance(target, str) else target.url
        config = ClientConfig(
            executor_url=url, executor_api_key=key or getattr(target, "api_key", ""), **settings
        )
        one = Codemode(client_config=config, registry=ComponentRegistry())
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


@pytest.fixture
def codemode(executor: LocalExecutor, connect: MakeClient) -> Codemode:
    """A client of the shared executor, with a registry of its own."""
    return connect(executor)


@pytest.fixture
def make_proxy() -> Iterator[MakeProxy]:
    """Make a proxy to an executor, or to another `unix:/path`; it is closed after the test."""
    made: list[ChaosProxy] = []

    def make(target: LocalExecutor | str) -> ChaosProxy:
        made.append(ChaosProxy(target if isinstance(target, str) else target.url))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def proxy(executor: LocalExecutor, make_proxy: MakeProxy) -> ChaosProxy:
    """A proxy to the shared executor."""
    return make_proxy(executor)


@pytest.fixture
def through_proxy(executor: LocalExecutor, proxy: ChaosProxy, connect: MakeClient) -> Codemode:
    """A client of the shared executor whose connection the proxy can cut."""
    return connect(proxy, executor.api_key)


@pytest.fixture(autouse=True)
def no_context_from_another_test() -> Iterator[None]:
    """Contexts are kept per thread, and pytest runs all tests on one."""
    yield
    reset_context()
