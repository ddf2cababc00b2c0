"""Sandboxes ready for use: warm ones that nobody has used, and owners' own between two uses."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from codemode_executor.backends.base import Backend, Sandbox
from codemode_executor.errors import BackendError
from codemode_executor.limits import SandboxLimits
from codemode_executor.owner import Owner
from codemode_executor.queueing import FairQueue

log = logging.getLogger(__name__)

# After a failure to start one, the background waits this long before it tries again.
RETRY_SECONDS = 5.0


@dataclass(eq=False, slots=True)
class Lease:
    """A sandbox in somebody's use. From its first lease to its end it has one owner.

    Attributes:
        sandbox: The sandbox.
        owner: Its owner for life.
        uses: How often it was leased.
        idle_since: When it was last returned, on the monotonic clock.
        spent: Whether it must not be used again, though it may look clean.
    """

    sandbox: Sandbox
    owner: Owner
    uses: int = 0
    idle_since: float = field(default_factory=time.monotonic)
    spent: bool = False


class Pool:
    """Leases sandboxes, keeps some warm, and never gives one to a second owner.

    Args:
        backend: Where sandboxes come from.
        limits: The limits of the warm ones.
        warm: How many to keep ready.
        ceiling: Most sandboxes at once, warm ones included.
        idle_seconds: How long an owner's unused sandbox is kept.
        max_uses: Leases after which a sandbox is replaced.
        queue: Where leases wait when the ceiling is reached.
        on_start: Called with the seconds that each sandbox took to start.
    """

    def __init__(
        self,
        backend: Backend,
        limits: SandboxLimits,
        *,
        warm: int,
        ceiling: int,
        idle_seconds: float,
        max_uses: int,
        queue: FairQueue,
        on_start: Callable[[float], None],
    ) -> None:
        self.backend = backend
        self._limits = limits
        self._warm_wanted = min(warm, ceiling)
        self._ceiling = ceiling
        self._idle_seconds = idle_seconds
        self._max_uses = max_uses
        self._queue = queue
        self._on_start = on_start
        self._warm: deque[Sandbox] = deque()
        self._idle: dict[Owner, list[Lease]] = {}
        # Every sandbox that exists or is about to; among them those that start, and those being killed.
        self._count = self._starting = self._ending = 0
        self._low = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self.failure = ""

    # --- life -----------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to fill up in the background."""
        self._spawn(self._keep_warm())
        self._spawn(self._remove_idle())
        self._low.set()

    async def close(self) -> None:
        """Kill every sandbox that is not leased; leased ones are killed as they are returned."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        idle = [lease.sandbox for leases in self._idle.values() for lease in leases]
        doomed = [*self._warm, *idle]
        self._warm.clear()
        self._idle.clear()
        await asyncio.gather(*(sandbox.kill() for sandbox in doomed), return_exceptions=True)

    @property
    def warm_count(self) -> int:
        """How many are ready for a new owner."""
        return len(self._warm)

    @property
    def count(self) -> int:
        """How many exist."""
        return self._count

    @property
    def waiting(self) -> int:
        """How many leases wait for one."""
        return len(self._queue)

    @property
    def states(self) -> Mapping[str, int]:
        """How many there are in each state; together they are `count`."""
        idle = sum(map(len, self._idle.values()))
        unleased = len(self._warm) + idle + self._starting + self._ending
        return {
            "warm": len(self._warm),
            "idle": idle,
            "leased": self._count - unleased,
            "starting": self._starting,
            "ending": self._ending,
        }

    # --- leasing --------------------------------------------------------------------------------

    async def lease(
        self, owner: Owner, limits: SandboxLimits, unless: "asyncio.Future[Any] | None" = None
    ) -> Lease:
        """A sandbox for an owner: their own idle one, else a warm one, else a new one.

        Args:
            owner: Whose it will be.
            limits: The limits it must have.
            unless: When it is done, the sandbox is not waited for any longer.

        Raises:
            asyncio.CancelledError: `unless` was done while it waited.
            OverloadedError: The ceiling is reached and too many wait.
            BackendError: None could be started.
        """
        while True:
            lease = self._take_idle(owner, limits)
            if lease is not None:
                lease.uses += 1
                return lease
            if (sandbox := self._take_warm(limits)) is not None:
                return Lease(sandbox, owner, uses=1)
            if self._count < self._ceiling:
                return Lease(await self._start(limits), owner, uses=1)
            if (least_used := self._take_least_used()) is not None:
                return Lease(await self._start(limits, instead_of=least_used), owner, uses=1)
            await self._queue.wait(owner, unless)

    def _take_idle(self, owner: Owner, limits: SandboxLimits) -> Lease | None:
        leases = self._idle.get(owner, [])
        for lease in reversed(leases):
            if lease.sandbox.limits == limits and lease.sandbox.link.alive:
                leases.remove(lease)
                if not leases:
                    del self._idle[owner]
                return lease
        return None

    def _take_warm(self, limits: SandboxLimits) -> Sandbox | None:
        while limits == self._limits and self._warm:
            sandbox = self._warm.popleft()
            self._low.set()
            if sandbox.link.alive:
                return sandbox
            self._count -= 1
        return None

    def _take_least_used(self) -> Sandbox | None:
        """A sandbox that can make room: a warm one of other limits, or somebody's idle one."""
        if self._warm:
            return self._warm.pop()
        idle = [lease for leases in self._idle.values() for lease in leases]
        if not idle:
            return None
        oldest = min(idle, key=lambda lease: lease.idle_since)
        self._idle[oldest.owner].remove(oldest)
        if not self._idle[oldest.owner]:
            del self._idle[oldest.owner]
        return oldest.sandbox

    async def _start(self, limits: SandboxLimits, instead_of: Sandbox | None = None) -> Sandbox:
        """Start a sandbox; one that it replaces is gone before, and leaves it its place below the ceiling."""
        if instead_of is None:
            self._count += 1
        self._starting += 1
        began = time.monotonic()
        try:
            if instead_of is not None:
                await instead_of.kill()
            sandbox = await self.backend.start(limits)
        except BaseException as error:
            self._count -= 1
            self._queue.wake()
            if isinstance(error, BackendError):
                self.failure = str(error)
            raise
        finally:
            self._starting -= 1
        self._on_start(time.monotonic() - began)
        self.failure = ""
        return sandbox

    async def give_back(self, lease: Lease) -> None:
        """Return a sandbox: it is emptied and kept for its owner, or replaced when that fails."""
        worn_out = lease.spent or lease.uses >= self._max_uses
        clean = False
        with contextlib.suppress(asyncio.CancelledError):
            clean = not self._closing and not worn_out and await lease.sandbox.link.reset()
        if clean and not self._closing:
            lease.idle_since = time.monotonic()
            self._idle.setdefault(lease.owner, []).append(lease)
            self._queue.wake()
        else:
            await self._remove(lease.sandbox)

    def _discard(self, sandbox: Sandbox) -> None:
        self._spawn(self._remove(sandbox))

    async def _remove(self, sandbox: Sandbox) -> None:
        self._ending += 1
        try:
            await sandbox.kill()
        finally:
            self._ending -= 1
            self._count -= 1
            self._low.set()
            self._queue.wake()

    # --- background -----------------------------------------------------------------------------

    async def _keep_warm(self) -> None:
        while not self._closing:
            await self._low.wait()
            self._low.clear()
            while not self._closing and len(self._warm) < self._warm_wanted and self._count < self._ceiling:
                try:
                    self._warm.append(await self._start(self._limits))
                    # Somebody may have found the ceiling reached while it started.
                    self._queue.wake()
                except BackendError as error:
                    log.warning("no sandbox could be started", extra={"reason": str(error)})
                    await asyncio.sleep(RETRY_SECONDS)
                except Exception:
                    # The pool must be filled again when whatever it was has passed.
                    log.exception("a sandbox could not be started")
                    await asyncio.sleep(RETRY_SECONDS)

    async def _remove_idle(self) -> None:
        while True:
            await asyncio.sleep(min(5.0, self._idle_seconds / 4))
            now = time.monotonic()
            for owner, leases in list(self._idle.items()):
                for lease in list(leases):
                    if now - lease.idle_since > self._idle_seconds or not lease.sandbox.link.alive:
                        leases.remove(lease)
                        self._discard(lease.sandbox)
                if not leases:
                    self._idle.pop(owner, None)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
