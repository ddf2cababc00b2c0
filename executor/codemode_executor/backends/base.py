"""What the executor asks of a backend, and what every sandbox is told."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from codemode_sandbox.settings import Settings

from codemode_executor.limits import SandboxLimits
from codemode_executor.link import SandboxLink

BOOT_SECONDS = 30.0
RUNNER_FOLDER = "/opt/codemode"
# What a sandbox's interpreter is started with, settings as the last argument.
RUNNER = f"import sys; sys.path.append({RUNNER_FOLDER!r}); from codemode_sandbox.__main__ import main; main()"
SHM_BYTES = 16 << 20


class Sandbox(ABC):
    """One isolated environment, started and ready.

    Attributes:
        sandbox_id: Its name for people and logs.
        backend: Name of the backend it is from.
        limits: The limits it was started with.
        link: The byte stream to its supervisor.
        boot: What its supervisor said of itself when it was ready.
    """

    backend: str

    def __init__(self, sandbox_id: str, limits: SandboxLimits, link: SandboxLink) -> None:
        self.sandbox_id = sandbox_id
        self.limits = limits
        self.link = link
        self.boot: dict[str, object] = {}

    @abstractmethod
    async def kill(self) -> None:
        """End it at once and wait until nothing of it is left. Does not raise when it has ended already."""

    async def ended_for_memory(self) -> bool:
        """Whether the kernel ended all of it for memory; asked once, after it ended."""
        return False


class Backend(ABC):
    """Starts sandboxes of one kind."""

    name: str
    image: str = ""

    @abstractmethod
    async def start(self, limits: SandboxLimits) -> Sandbox:
        """Start a sandbox and wait until it can take work.

        Raises:
            BackendError: It cannot be started; the message says what to do.
        """

    @abstractmethod
    def enforcement(self) -> Mapping[str, str]:
        """How each limit of `SandboxLimits` is enforced on this machine, by name."""

    async def remove_orphans(self) -> int:
        """Remove what an executor that died has left behind; returns how many."""
        return 0

    async def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what the backend itself holds; the sandboxes are gone by then."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are inside a kind of sandbox.

    Attributes:
        path: Directories of programs.
        site: Directories of packages beside the interpreter's own.
        font_cache: A directory with matplotlib's list of fonts, or empty.
        package_hint: What to do about a missing package.
    """

    path: str
    site: Sequence[str]
    font_cache: str
    package_hint: str


def settings_for(
    limits: SandboxLimits,
    places: Places,
    preload: Sequence[str],
    *,
    limit_processes: bool = False,
    watch_memory: bool = False,
    watch_network: bool = False,
    watch_inodes: bool = False,
    meet_at: str = "",
) -> Settings:
    """What a sandbox is told at its start.

    Args:
        limits: Its limits.
        places: Where things are in it.
        preload: Modules to load before any code arrives.
        limit_processes: Bound the processes by a resource limit, where the backend has nothing better.
        watch_memory: Have the supervisor watch memory, where the kernel does not.
        watch_network: The same for what network connections hold, where only the rest is counted.
        watch_inodes: The same for files and directories in the writable places.
        meet_at: Where in the sandbox the supervisor listens for this process, if that is worth a try.
    """
    threads = str(max(1, math.ceil(limits.cpus)))
    environment = {
        "PATH": places.path,
        "HOME": "/tmp/home",  # noqa: S108 - inside the sandbox
        "TMPDIR": "/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        "IPYTHONDIR": "/tmp/home/.ipython",  # noqa: S108
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CODEMODE_PACKAGE_HINT": places.package_hint,
        # One thread per processor it may use, instead of one per processor of the machine.
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "NUMEXPR_NUM_THREADS": threads,
    }
    if places.site:
        environment["PYTHONPATH"] = ":".join(places.site)
    rlimits = {
        "CORE": 0,
        "FSIZE": limits.tmp_bytes,
        "NOFILE": limits.open_files,
        # So that one process that asks for too much gets a MemoryError, before the kernel kills it.
        "DATA": limits.memory_bytes,
    }
    if limit_processes:
        rlimits["NPROC"] = limits.processes
    return Settings(
        site=tuple(places.site),
        preload=tuple(preload),
        rlimits=rlimits,
        limits=asdict(limits),
        environment=environment,
        font_cache=places.font_cache,
        memory_bytes=limits.memory_bytes if watch_memory else None,
        network_bytes=limits.memory_bytes if watch_network else None,
        tmp_inodes=limits.tmp_inodes if watch_inodes else None,
        meet_at=meet_at,
        meet_uid=os.geteuid() if meet_at else 0,
    )
