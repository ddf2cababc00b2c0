"""A Docker Engine as a backend: what is left behind, which is nothing, and the way to a container."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import docker.errors
import pytest
from codemode_executor.backends.docker import LABEL, DockerBackend, _reach
from codemode_executor.image import find_image
from codemode_executor.limits import SandboxLimits

from codemode.errors import ExecutorConnectionError, SessionLostError
from codemode.local import LocalExecutor

if TYPE_CHECKING:
    from codemode import Codemode
    from tests.conftest import MakeClient, MakeProxy


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
def sandboxes(engine: docker.DockerClient, sandbox_image: str) -> Sandboxes:
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


@contextmanager
def an_engine_away(codemode: Codemode, words: str) -> Iterator[Callable[[], None]]:
    """What users of an executor see of an engine that stops and starts again.

    The value is called when it has stopped; it has started again when this is left.

    Args:
        codemode: A client of the executor.
        words: What the error must say.
    """
    session = codemode.session().open()
    assert session.execute("x = 41; x") == "41"
    assert codemode.execute("1 + 1") == "2"

    def check_errors() -> None:
        with pytest.raises(SessionLostError):
            session.execute("x")
        with pytest.raises(ExecutorConnectionError, match=words):
            codemode.execute("1 + 1")

    yield check_errors
    assert codemode.execute("1 + 1") == "2"
    with codemode.session() as another:
        assert another.execute("x = 42; x") == "42"


def test_an_engine_that_stops_is_a_clear_error_and_all_is_well_when_it_starts_again(
    sandboxes: Sandboxes, make_proxy: MakeProxy, connect: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = make_proxy("unix:/var/run/docker.sock")
    monkeypatch.setenv("DOCKER_HOST", proxy.url.replace("http://", "tcp://"))
    executor = LocalExecutor("docker", warm=0)
    try:
        with an_engine_away(connect(executor), "the Docker Engine does not answer") as check_errors:
            proxy.refusing = True
            proxy.cut()
            check_errors()
            proxy.refusing = False
    finally:
        executor.close()
    # What an engine that goes on without us kept, unlike one that stopped, its next user's executor removes.
    monkeypatch.delenv("DOCKER_HOST")
    LocalExecutor("docker", warm=0).close()
    assert sandboxes.gone(sandboxes.ours())


# --- the way to a container -----------------------------------------------------------------------------


def boot_of_one(engine: docker.DockerClient) -> dict[str, object]:
    """Start a sandbox and use it; returns what its supervisor said of itself."""

    async def start() -> dict[str, object]:
        backend = DockerBackend(engine, find_image(engine) or "", runtime="", preload=())
        try:
            sandbox = await backend.start(SandboxLimits())
            clean = await sandbox.link.reset()
            await sandbox.kill()
            assert clean
            return sandbox.boot
        finally:
            await backend.close()

    return asyncio.run(start())


@pytest.mark.skipif(os.geteuid() != 0, reason="others may or may not go this way")
def test_a_container_is_met_directly(engine: docker.DockerClient) -> None:
    assert boot_of_one(engine)["link"] == "direct"


def test_a_container_that_cannot_be_reached_is_spoken_to_over_the_engine(
    engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a machine where the engine's processes are not to be seen.
    monkeypatch.setattr("codemode_executor.backends.docker._reach", lambda pid: None)
    assert boot_of_one(engine)["link"] == "stream"


def test_a_supervisor_that_does_not_welcome_this_user_is_spoken_to_over_the_engine(
    engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    ours.setblocking(False)
    monkeypatch.setattr("codemode_executor.backends.docker._reach", lambda pid: ours)
    assert boot_of_one(engine)["link"] == "stream"


# --- what a container may do ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def described(engine: docker.DockerClient, sandbox_image: str) -> Iterator[dict[str, Any]]:
    """What the engine says of the only sandbox of an executor with every default unchanged."""
    before = Sandboxes(engine)
    executor = LocalExecutor("docker", warm=1)
    deadline = time.monotonic() + 10
    while not before.ours():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (container,) = before.ours()
    found: dict[str, Any] = engine.api.inspect_container(container)
    yield found
    executor.close()


def test_nothing_of_the_host_is_mounted(described: dict[str, Any]) -> None:
    assert described["Mounts"] == []
    assert not described["HostConfig"]["Binds"]
    assert not described["HostConfig"]["Devices"]
    assert not described["HostConfig"]["VolumesFrom"]


def test_a_container_has_no_rights(described: dict[str, Any]) -> None:
    host = described["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert host["ReadonlyRootfs"]
    assert (host["NetworkMode"], host["IpcMode"], host["PidMode"]) == ("none", "private", "")
    assert described["Config"]["User"] == "1000:1000"
    no_new, profile = host["SecurityOpt"]
    assert no_new == "no-new-privileges"
    assert json.loads(profile.removeprefix("seccomp="))["defaultAction"] == "SCMP_ACT_ERRNO"


def test_a_container_has_every_limit(described: dict[str, Any]) -> None:
    host, limits = described["HostConfig"], SandboxLimits()
    assert host["Memory"] == host["MemorySwap"] == limits.memory_bytes
    assert host["NanoCpus"] == limits.cpus * 1e9
    assert host["PidsLimit"] == limits.processes
    assert host["ShmSize"] == 16 << 20
    assert host["LogConfig"]["Type"] == "none"
    assert {each["Name"]: (each["Soft"], each["Hard"]) for each in host["Ulimits"]} == {
        "core": (0, 0),
        "nofile": (limits.open_files, limits.open_files),
        "fsize": (limits.tmp_bytes, limits.tmp_bytes),
    }
    assert set(host["Tmpfs"]["/tmp"].split(",")) >= {
        "noexec",
        "nosuid",
        "nodev",
        f"size={limits.tmp_bytes}",
        f"nr_inodes={limits.tmp_inodes}",
    }


def test_a_stranger_at_the_meeting_point_of_another_process_is_not_taken_for_a_supervisor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("codemode_executor.backends.docker._MEETING_POINT", str(tmp_path / "link"))
    other = subprocess.Popen(["sleep", "60"])
    try:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.bind(str(tmp_path / "link"))
            stranger.listen(1)
            assert _reach(other.pid) is None
            # The same place, and the process itself.
            reached = _reach(os.getpid())
            assert reached is not None
            reached.close()
    finally:
        other.kill()
        other.wait()
