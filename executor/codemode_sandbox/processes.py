"""Processes that a supervisor forks, and the end of all processes of a sandbox."""

import gc
import os
import resource
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from codemode_sandbox import linux
from codemode_sandbox.settings import Settings

CHANNEL_DESCRIPTOR = 3
_MAX_DESCRIPTORS = os.sysconf("SC_OPEN_MAX")
# Of Linux's resource limits; the module names only some.
_RESOURCES = 16


@dataclass(slots=True)
class Child:
    """A forked process as its supervisor sees it.

    Attributes:
        channel: Number of the channel that link frames name it by.
        pid: Process id.
        pidfd: Becomes readable when the process ends.
        sock: The supervisor's end of the process's own channel.
        output: Read ends of the pipes behind its descriptors 1 and 2.
        unsent: Bytes for the process that its socket had no room for yet.
        used: Whether anything was ever sent to it.
    """

    channel: int
    pid: int
    pidfd: int
    sock: socket.socket
    output: tuple[int, int]
    unsent: deque[memoryview] = field(default_factory=deque)
    used: bool = False

    def close(self) -> None:
        """Close the supervisor's descriptors."""
        self.sock.close()
        for descriptor in (self.pidfd, *self.output):
            with suppress(OSError):
                os.close(descriptor)


def reserve_descriptors() -> int:
    """Open the null device, at a number above those that a forked process has, and let none of these be free.

    What is opened later has a higher number, so that a fork can copy it to its place at once.
    """
    while (null := os.open(os.devnull, os.O_RDONLY)) <= CHANNEL_DESCRIPTOR:
        pass
    return null


def fork_child(
    channel: int, settings: Settings, null: int, epoll: select.epoll, others: Iterable[socket.socket]
) -> Child | None:
    """Fork a process with a channel of its own; returns None in that process.

    Args:
        channel: Number of the channel.
        settings: Settings of the sandbox.
        null: What `reserve_descriptors` returned.
        epoll: The supervisor's, which the new process closes.
        others: The supervisor's ends of other channels, which it closes too. Closing
            the bare descriptors would not do: finalizers would close the same numbers
            again, by then perhaps a file of the user's.

    In the new process every descriptor but 0 (empty), 1 and 2 (pipes to the
    supervisor) and `CHANNEL_DESCRIPTOR` is closed, and it leads a session.
    """
    ours, theirs = socket.socketpair()
    pipes = os.pipe(), os.pipe()
    try:
        pid = os.fork()
    except OSError:
        for descriptor in (*pipes[0], *pipes[1]):
            os.close(descriptor)
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        epoll.close()
        for inherited in (ours, *others):
            # Closed with all the others below; this is less to do than `close`.
            inherited.detach()
        _become_child((null, pipes[0][1], pipes[1][1], theirs.detach()), settings)
        return None
    theirs.close()
    for reading, writing in pipes:
        os.close(writing)
        os.set_blocking(reading, False)
    ours.setblocking(False)
    return Child(channel, pid, os.pidfd_open(pid), ours, (pipes[0][0], pipes[1][0]))


def _become_child(descriptors: tuple[int, ...], settings: Settings) -> None:
    # Everything here is done for every stateless execution. What a fork inherits (environment, limits,
    # the seed of `random`, which the standard library renews itself) is not done again.
    #
    for target, source in enumerate(descriptors):
        os.dup2(source, target)
    os.closerange(CHANNEL_DESCRIPTOR + 1, _MAX_DESCRIPTORS)
    os.setsid()
    if os.getppid() != 1:
        # Outside a process namespace, as in tests, nothing else ends it with its supervisor.
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        for ignored in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_DFL)
    # The supervisor is not dumpable; without this the interpreter could not read its own /proc/self.
    linux.prctl(linux.PR_SET_DUMPABLE, 1)
    with suppress(OSError):
        # When memory runs out the kernel shall choose this process, and not the supervisor.
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, b"1000")
        os.close(score)
    os.chdir(settings.work)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    gc.enable()


def apply_limits(settings: Settings) -> None:
    """Set the resource limits of this process, and so of all it forks."""
    for name, value in settings.rlimits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        _, ceiling = resource.getrlimit(kind)
        bound = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        resource.setrlimit(kind, (bound, bound))


def standing() -> tuple[object, ...]:
    """What other processes of the same user can change about this one: its limits and its priority."""
    limits = [resource.getrlimit(number) for number in range(_RESOURCES)]
    return (*limits, os.getpriority(os.PRIO_PROCESS, 0))


def kill_everything() -> None:
    """Kill every process but the caller that the caller can see or has started, and wait for their end."""
    if os.getpid() == 1:
        # The kernel walks the whole namespace at once, so a fork bomb cannot outrun it.
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        _reap_all()
        return
    # Outside a process namespace, as in tests: the caller adopts orphans (see `adopt_orphans`).
    while descendants := _descendants(os.getpid()):
        for pid in descendants:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _reap_all() -> None:
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                children = [int(child) for child in file.read().split()]
            for child in children:
                found += [child, *_descendants(child)]
    return found


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends; process 1 is that by nature."""
    if os.getpid() != 1:
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
