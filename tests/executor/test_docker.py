"""A Docker Engine as a backend: what is left behind, which is nothing, and the way to a container."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import docker
import docker.errors
import pytest
from codemode_executor.backends.base import settings_for
from codemode_executor.backends.docker import LABEL, DockerBackend
from codemode_executor.backends.rendezvous import MeetingPoint
from codemode_executor.image import find_image
from codemode_executor.limits import SandboxLimits
from codemode_sandbox.settings import Settings

from codemode.errors import ExecutorConnectionError
from codemode.local import LocalExecutor

if TYPE_CHECKING:
    from tests.conftest import MakeClient


def unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        unavailable(f"no Docker Engine answers: {error}")
    if not find_image(client):
        client.close()
        unavailable("the engine has no sandbox image; `make image` builds it")
    yield client
    client.close()


class Sandboxes:
    """The containers of executors, without those that were there before."""

    def __init__(self, engine: docker.DockerClient) -> None:
        self._engine = engine
        self._before = self._now()

    def _now(self) -> set[str]:
        return {str(c["Id"]) for c in self._engine.api.containers(all=True, filters={"label": LABEL})}

    def ours(self) -> set[str]:
        return self._now() - self._before

    def gone(self, which: set[str], seconds: float = 10) -> bool:
        """Whether these are gone within a time."""
        deadline = time.monotonic() + seconds
        while which & self._now():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


@pytest.fixture
def sandboxes(engine: docker.DockerClient) -> Sandboxes:
    return Sandboxes(engine)


def test_the_containers_of_a_killed_executor_are_gone_and_its_successor_works(
    sandboxes: Sandboxes, connect: MakeClient
) -> None:
    killed = LocalExecutor("docker", warm=1)
    codemode = connect(killed)
    codemode.registry.register_tool("kill", lambda: os.kill(killed.pid, signal.SIGKILL))
    with pytest.raises(ExecutorConnectionError) as caught:
        codemode.execute("tools.kill(); import time; time.sleep(60)")
    assert caught.value.outcome_unknown
    killed._process.wait(10)
    left = sandboxes.ours()
    successor = LocalExecutor("docker", warm=1)
    try:
        assert sandboxes.gone(left)
        assert connect(successor).execute("1 + 1") == "2"
    finally:
        successor.close()
        killed.close()
    assert sandboxes.gone(sandboxes.ours())


def test_the_containers_of_an_executor_that_lives_are_left_alone(
    sandboxes: Sandboxes, connect: MakeClient
) -> None:
    first = LocalExecutor("docker", warm=0)
    try:
        with connect(first).session() as session:
            session.run("x = 41")
            LocalExecutor("docker", warm=0).close()
            assert session.execute("x + 1") == "42"
    finally:
        first.close()
    assert sandboxes.gone(sandboxes.ours())


def test_a_stopped_container_of_a_dead_executor_is_removed_at_the_next_start(
    engine: docker.DockerClient, sandboxes: Sandboxes
) -> None:
    """As it is left when the engine itself was stopped first."""
    killed = LocalExecutor("docker", warm=1)
    deadline = time.monotonic() + 10
    while not sandboxes.ours():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (container,) = sandboxes.ours()
    labels = engine.containers.get(container).labels
    os.kill(killed.pid, signal.SIGKILL)
    killed._process.wait(10)
    assert sandboxes.gone({container})
    # It removed itself; this is one that could not.
    stuck = engine.containers.create(find_image(engine) or "", labels=labels)
    try:
        LocalExecutor("docker", warm=0).close()
        assert sandboxes.gone({str(stuck.id)}, 2)
    finally:
        killed.close()
        with suppress(docker.errors.NotFound):
            stuck.remove(force=True)


def test_a_sandbox_given_up_while_it_starts_leaves_no_container(
    engine: docker.DockerClient, sandboxes: Sandboxes
) -> None:
    async def give_up_at_many_moments() -> None:
        backend = DockerBackend(engine, find_image(engine) or "", runtime="", preload=())
        try:
            for milliseconds in (0, 2, 10, 30, 60, 100, 200, 400):
                starting = asyncio.ensure_future(backend.start(SandboxLimits()))
                await asyncio.sleep(milliseconds / 1000)
                starting.cancel()
                with suppress(asyncio.CancelledError):
                    await (await starting).kill()
                assert sandboxes.ours() == set()
        finally:
            await backend.close()

    asyncio.run(give_up_at_many_moments())


# --- the way to a container -----------------------------------------------------------------------------


def start_one(engine: docker.DockerClient, change: Callable[[DockerBackend], None]) -> dict[str, object]:
    """Start a sandbox with a backend that was changed first; returns what its supervisor said of itself."""

    async def start() -> dict[str, object]:
        backend = DockerBackend(engine, find_image(engine) or "", runtime="", preload=())
        try:
            change(backend)
            sandbox = await backend.start(SandboxLimits())
            clean = await sandbox.link.reset()
            await sandbox.kill()
            assert clean
            return sandbox.boot
        finally:
            await backend.close()

    return asyncio.run(start())


def test_a_container_is_met_at_a_socket_where_nobody_listens_any_more(engine: docker.DockerClient) -> None:
    folders: list[Path] = []

    def look(backend: DockerBackend) -> None:
        assert backend._rendezvous is not None
        folders.append(backend._rendezvous._folder)
        assert folders[0].stat().st_mode & 0o777 == 0o700

    assert start_one(engine, look)["link"] == "socket"
    assert not folders[0].exists()


def test_a_container_that_cannot_connect_is_spoken_to_over_the_engine(
    engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when its machine's security module forbids it.
    monkeypatch.setattr("codemode_executor.backends.docker.INSIDE", "/run/elsewhere")
    monkeypatch.setattr("codemode_executor.backends.docker.settings_for", no_such_link)
    assert start_one(engine, lambda backend: None)["link"] == "stream"


def no_such_link(*args: object, link: str = "", **kwargs: object) -> Settings:
    return settings_for(*args, link="/run/nothing-here", **kwargs)  # type: ignore[arg-type]


def test_an_engine_that_sees_other_files_is_spoken_to_over_its_stream(
    engine: docker.DockerClient, tmp_path: Path
) -> None:
    def move(backend: DockerBackend) -> None:
        assert backend._rendezvous is not None
        real = backend._rendezvous.open

        def elsewhere() -> MeetingPoint:
            point = real()
            point.path = tmp_path / "not on that machine"
            return point

        backend._rendezvous.open = elsewhere  # type: ignore[method-assign]

    assert start_one(engine, move)["link"] == "stream"


def test_what_a_killed_executor_left_of_its_sockets_is_removed_by_the_next(
    engine: docker.DockerClient,
) -> None:
    killed = LocalExecutor("docker", warm=0)
    folder = Path(tempfile.gettempdir())
    left = list(folder.glob(f"codemode-link-{killed.pid}-*"))
    assert len(left) == 1
    os.kill(killed.pid, signal.SIGKILL)
    killed._process.wait(10)
    LocalExecutor("docker", warm=0).close()
    assert not left[0].exists()
    killed.close()
