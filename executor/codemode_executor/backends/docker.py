"""Sandboxes as containers of a Docker Engine, one container each."""

import asyncio
import contextlib
import json
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker
import docker.errors
import docker.types
import requests.exceptions
from codemode_sandbox.meeting import WELCOME, peer_of

from codemode_executor import seccomp
from codemode_executor.backends import liveness
from codemode_executor.backends.base import (
    BOOT_SECONDS,
    RUNNER,
    SHM_BYTES,
    Backend,
    Places,
    Sandbox,
    settings_for,
)
from codemode_executor.backends.docker_stream import Demultiplexer, as_socket
from codemode_executor.errors import BackendError, SandboxDiedError
from codemode_executor.limits import SandboxLimits
from codemode_executor.link import SandboxLink

PYTHON = "/opt/codemode/venv/bin/python"
LABEL = "codemode.sandbox"
# Where a supervisor listens in its container, until it was met and before any foreign code runs there.
_MEETING_POINT = "/tmp/.link"  # noqa: S108 - in the container

# The engine may hear so much later than we that a container ended, and why.
_EVENT_SECONDS = 0.3

T = TypeVar("T")
_ENGINE_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException, OSError)


class DockerSandbox(Sandbox):
    """One container."""

    backend = "docker"

    def __init__(
        self, container: str, limits: SandboxLimits, link: SandboxLink, owner: "DockerBackend"
    ) -> None:
        super().__init__(container[:12], limits, link)
        self._container = container
        self._owner = owner
        self._gone = False

    async def kill(self) -> None:  # noqa: D102 - as in Sandbox
        if self._gone:
            return
        self._gone = True
        await self._owner.remove(self._container)
        self.link.abort("the sandbox was removed")

    async def ended_for_memory(self) -> bool:  # noqa: D102
        return await self._owner.was_out_of_memory(self._container)


class DockerBackend(Backend):
    """Containers of the engine that the environment names (`DOCKER_HOST`, or its usual socket).

    Args:
        client: A connected client.
        image: Image of the sandboxes.
        runtime: OCI runtime, or empty for the engine's own.
        preload: Modules loaded before code arrives.
        watch_network: Have the supervisor watch what network connections hold, because the engine's control
            groups do not count it; those of version 1 do not.
    """

    name = "docker"

    def __init__(
        self,
        client: docker.DockerClient,
        image: str,
        runtime: str,
        preload: Sequence[str],
        *,
        watch_network: bool = False,
    ) -> None:
        self.image = image
        self._api = client.api
        self._runtime = runtime or None
        self._preload = preload
        self._watch_network = watch_network
        self._profile = json.dumps(json.loads(seccomp.docker_profile()))
        # The engine starts few containers at once any faster than one after the other.
        self._threads = ThreadPoolExecutor(8, "docker")
        self._lease = liveness.Lease()
        # How the package calls an engine behind a Unix socket.
        self._local = sys.platform == "linux" and client.api.base_url.startswith("http+docker://localhost")

    async def _call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: function(*args, **kwargs)
        )

    async def start(self, limits: SandboxLimits) -> Sandbox:  # noqa: D102 - as in Backend
        container = ""
        try:
            container, sock = await self._create_for_good(limits)
            link = SandboxLink()
            attached = Demultiplexer(link)
            await asyncio.get_running_loop().create_connection(lambda: attached, sock=sock)
            sandbox = DockerSandbox(container, limits, link, self)
            await self._call(self._api.start, container)
            try:
                # Not `wait_for`: in Python 3.11 it loses a cancellation that comes with the result.
                async with asyncio.timeout(BOOT_SECONDS):
                    if self._local:
                        await self._meet(container, link, attached)
                    sandbox.boot = await link.ready
            except (SandboxDiedError, TimeoutError):
                said = attached.stderr.decode("utf-8", "replace").strip()
                await sandbox.kill()
                raise BackendError(
                    f"the sandbox image {self.image} started but its runner did not: "
                    f"{said[-1000:] or 'no word'}; build the image again with `codemode-executor image build`"
                ) from None
        except asyncio.CancelledError:
            if container:
                await self.remove(container)
            raise
        except _ENGINE_ERRORS as error:
            if container:
                await self.remove(container)
            raise BackendError(explain(error, self.image)) from error
        return sandbox

    async def _create_for_good(self, limits: SandboxLimits) -> tuple[str, socket.socket]:
        """Create a container and attach to it; a cancellation waits for the engine and removes it again."""
        creating = asyncio.ensure_future(self._call(self._create, limits))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            with contextlib.suppress(*_ENGINE_ERRORS):
                container, sock = await creating
                sock.close()
                await self.remove(container)
            raise

    async def _meet(self, container: str, link: SandboxLink, attached: Demultiplexer) -> None:
        """Connect the link to the supervisor itself, if it can be reached.

        Every byte of an attached stream passes through the engine and its shim,
        which takes longer than many an execution.
        """
        state = (await self._call(self._api.inspect_container, container))["State"]
        either: list[asyncio.Future[Any]] = [link.listening, link.ready]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        direct = _reach(int(state["Pid"]))
        # It lets nobody in whom it takes for another user, as in an engine with users of its own.
        if direct is None or await asyncio.get_running_loop().sock_recv(direct, len(WELCOME)) != WELCOME:
            if direct is not None:
                direct.close()
            link.stay()
            return
        attached.detach()
        await asyncio.get_running_loop().create_connection(lambda: link, sock=direct)
        await link.ready
        attached.close()

    def _create(self, limits: SandboxLimits) -> tuple[str, socket.socket]:
        places = Places(
            path="/opt/codemode/venv/bin:/usr/local/bin:/usr/bin:/bin",
            site=(),
            font_cache="/opt/codemode/font-cache",
            package_hint="Add it to the image: codemode-executor image build --requirements FILE.",
        )
        settings = settings_for(
            limits,
            places,
            self._preload,
            watch_network=self._watch_network,
            meet_at=_MEETING_POINT if self._local else "",
        )
        tmp = f"rw,noexec,nosuid,nodev,size={limits.tmp_bytes},nr_inodes={limits.tmp_inodes},mode=1777"
        host_config = self._api.create_host_config(
            auto_remove=True,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges", f"seccomp={self._profile}"],
            ipc_mode="private",
            runtime=self._runtime,
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,
            mem_swappiness=None,
            nano_cpus=int(limits.cpus * 1e9),
            pids_limit=limits.processes,
            shm_size=SHM_BYTES,
            tmpfs={"/tmp": tmp},  # noqa: S108 - inside the sandbox
            ulimits=[
                docker.types.Ulimit(name="core", soft=0, hard=0),
                docker.types.Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
                docker.types.Ulimit(name="fsize", soft=limits.tmp_bytes, hard=limits.tmp_bytes),
            ],
            log_config=docker.types.LogConfig(type="none"),
            init=False,
        )
        container: str = self._api.create_container(
            self.image,
            entrypoint=[PYTHON, "-I", "-c", RUNNER],
            command=[settings.to_json()],
            user="1000:1000",
            hostname="sandbox",
            name=f"codemode-{secrets.token_hex(6)}",
            stdin_open=True,
            labels={LABEL: "1", **self._lease.labels},
            environment={"LANG": "C.UTF-8"},
            host_config=host_config,
        )["Id"]
        try:
            stream = self._api.attach_socket(
                container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            )
        except _ENGINE_ERRORS:
            self._api.remove_container(container, force=True)
            raise
        return container, as_socket(stream)

    async def remove(self, container: str) -> None:
        """Kill a container and have the engine remove it; one that is gone is no error."""
        try:
            await self._call(self._api.remove_container, container, force=True)
        except _ENGINE_ERRORS:
            # It removes itself when it ends; a daemon that is away cannot be told, orphans are found later.
            return

    async def was_out_of_memory(self, container: str) -> bool:
        """Whether the kernel killed anything in the container for memory; also when the container is gone."""
        until = str(time.time() + _EVENT_SECONDS)
        about = {"container": container, "event": "oom"}
        try:
            events = await self._call(self._api.events, since="0", until=until, filters=about)
            return bool(await self._call(list, events))
        except _ENGINE_ERRORS:
            return False

    def enforcement(self) -> Mapping[str, str]:  # noqa: D102
        return {
            "memory_bytes": "control group, no swap",
            "cpus": "control group",
            "processes": "control group",
            "open_files": "resource limit",
            "tmp_bytes": "file system",
            "tmp_inodes": "file system",
        }

    async def remove_orphans(self) -> int:  # noqa: D102
        try:
            found = await self._call(self._api.containers, all=True, filters={"label": LABEL})
        except _ENGINE_ERRORS as error:
            raise BackendError(explain(error, self.image)) from error
        orphans = [item["Id"] for item in found if liveness.is_orphan(item["Labels"])]
        await asyncio.gather(*(self.remove(container) for container in orphans))
        return len(orphans)

    async def close(self) -> None:  # noqa: D102
        self._lease.release()
        self._threads.shutdown(wait=False)


def _reach(pid: int) -> socket.socket | None:
    """Connect to the socket at which the supervisor of a container listens; None where that is not allowed.

    The way leads through the file system that the container's first process has, so nothing of this machine
    is mounted there. Root may go it, and on most machines the user whose number a sandbox's has. Where the
    engine's processes are others than this machine's, the way leads nowhere.

    Args:
        pid: The container's first process.
    """
    direct = socket.socket(socket.AF_UNIX)
    direct.setblocking(False)
    met = pid > 0 and direct.connect_ex(f"/proc/{pid}/root{_MEETING_POINT}") == 0
    # Not somebody else, who listens at a place of that name on this machine.
    if met and peer_of(direct)[0] == pid:
        return direct
    direct.close()
    return None


def explain(error: BaseException, image: str) -> str:
    """What an error of the engine means and what to do."""
    text = str(error)
    if isinstance(error, docker.errors.ImageNotFound):
        return f"the Docker Engine has no image {image}; build it with `codemode-executor image build`"
    if isinstance(error, docker.errors.APIError):
        return f"the Docker Engine refused: {text[:500]}"
    causes = list(_causes(error))
    if any(isinstance(cause, PermissionError) for cause in causes):
        return (
            "this user may not use the Docker Engine; add it to the group `docker` (which is as good as root "
            "on this machine), or use bubblewrap"
        )
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return (
            "there is no Docker Engine here; install and start one, or name another's address in DOCKER_HOST"
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return f"the Docker Engine and this machine do not agree on TLS; see DOCKER_CERT_PATH ({text[:500]})"
    if any(isinstance(cause, (requests.exceptions.RequestException, OSError)) for cause in causes):
        return f"the Docker Engine does not answer; is it running? ({text[:500]})"
    return f"the Docker Engine cannot be used: {text[:500]}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all it was made from; some packages keep the cause as an argument, or under `reason`."""
    waiting, seen = [error], set[int]()
    while waiting:
        error = waiting.pop()
        if not isinstance(error, BaseException) or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [*error.args, error.__cause__, error.__context__, getattr(error, "reason", None)]
