"""Who gets which sandbox, how many there are and when they go; the sandboxes only pretend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from codemode_executor.backends.base import Backend, Sandbox
from codemode_executor.errors import BackendError, OverloadedError
from codemode_executor.limits import SandboxLimits
from codemode_executor.link import SandboxLink
from codemode_executor.owner import Owner
from codemode_executor.pool import Lease, Pool
from codemode_executor.queueing import FairQueue

ADA, BOB, CYD = (Owner(name, "{}") for name in ("ada", "bob", "cyd"))
USUAL, LARGE = SandboxLimits(), SandboxLimits(memory_bytes=1 << 30)


class PretendedLink(SandboxLink):
    """Resets well, unless it is told not to."""

    def __init__(self) -> None:
        super().__init__()
        self.resets_well = True
        self.resets = 0

    async def reset(self) -> bool:
        self.resets += 1
        await asyncio.sleep(0)
        return self.alive and self.resets_well


class PretendedSandbox(Sandbox):
    backend = "pretended"

    def __init__(self, number: int, limits: SandboxLimits, backend: PretendedBackend) -> None:
        super().__init__(str(number), limits, PretendedLink())
        self._backend = backend
        self.owners: set[Owner] = set()

    async def kill(self) -> None:
        # As long as a real one takes: others get on meanwhile.
        await asyncio.sleep(0.002)
        self._backend.alive.discard(self)
        self.link.abort("killed")


class PretendedBackend(Backend):
    """Counts what it started, and how many were alive at once."""

    name = "pretended"

    def __init__(self) -> None:
        self.started = 0
        self.most_at_once = 0
        self.alive: set[PretendedSandbox] = set()
        self.failure = ""

    async def start(self, limits: SandboxLimits) -> Sandbox:
        sandbox = PretendedSandbox(self.started, limits, self)
        self.started += 1
        self.alive.add(sandbox)
        self.most_at_once = max(self.most_at_once, len(self.alive))
        await asyncio.sleep(0.002)
        if self.failure:
            self.alive.discard(sandbox)
            raise BackendError(self.failure)
        return sandbox

    def enforcement(self) -> Mapping[str, str]:
        return {}


class Tried:
    """A pool with its backend and its queue."""

    def __init__(self, **settings: Any) -> None:
        self.backend = PretendedBackend()
        self.queue = FairQueue(100, 100)
        chosen = {"warm": 0, "ceiling": 4, "idle_seconds": 60.0, "max_uses": 100, **settings}
        self.pool = Pool(self.backend, USUAL, queue=self.queue, on_start=lambda seconds: None, **chosen)

    async def lease(self, owner: Owner, limits: SandboxLimits = USUAL, seconds: float = 5) -> Lease:
        lease = await asyncio.wait_for(self.pool.lease(owner, limits), seconds)
        assert isinstance(lease.sandbox, PretendedSandbox)
        lease.sandbox.owners.add(owner)
        assert lease.sandbox.owners == {owner}
        return lease

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            # A pool tells nobody what it does in the background.
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


def trying(test: Callable[[Tried], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        tried = Tried(**settings)
        tried.pool.open()
        await test(tried)
        await tried.pool.close()
        assert tried.backend.most_at_once <= settings.get("ceiling", 4)

    asyncio.run(main())


def test_an_owner_gets_their_own_sandbox_again_and_nobody_elses() -> None:
    async def test(tried: Tried) -> None:
        first = await tried.lease(ADA)
        await tried.pool.give_back(first)
        other = await tried.lease(BOB)
        again = await tried.lease(ADA)
        assert again.sandbox is first.sandbox
        assert other.sandbox is not first.sandbox
        assert again.uses == 2

    trying(test)


def test_a_sandbox_with_other_limits_is_not_the_same() -> None:
    async def test(tried: Tried) -> None:
        first = await tried.lease(ADA)
        await tried.pool.give_back(first)
        large = await tried.lease(ADA, LARGE)
        assert large.sandbox is not first.sandbox
        assert large.sandbox.limits == LARGE

    trying(test)


def test_warm_sandboxes_are_kept_ready_and_refilled() -> None:
    async def test(tried: Tried) -> None:
        await tried.until(lambda: tried.pool.warm_count == 2)
        warm = set(tried.backend.alive)
        lease = await tried.lease(ADA)
        assert lease.sandbox in warm
        await tried.until(lambda: tried.pool.warm_count == 2)
        assert lease.sandbox in tried.backend.alive

    trying(test, warm=2)


def test_no_more_are_warm_than_there_may_be() -> None:
    async def test(tried: Tried) -> None:
        await tried.until(lambda: tried.pool.warm_count == 2)
        await asyncio.sleep(0.02)
        assert tried.pool.count == 2

    trying(test, warm=9, ceiling=2)


def test_at_the_ceiling_an_idle_sandbox_makes_room_before_another_starts() -> None:
    async def test(tried: Tried) -> None:
        leases = [await tried.lease(owner) for owner in (ADA, BOB)]
        for lease in leases:
            await tried.pool.give_back(lease)
        third = await tried.lease(CYD)
        assert tried.backend.most_at_once == 2
        # The one that was idle longest.
        assert leases[0].sandbox not in tried.backend.alive
        assert leases[1].sandbox in tried.backend.alive
        assert {third.sandbox, leases[1].sandbox} == tried.backend.alive

    trying(test, ceiling=2)


def test_the_ceiling_holds_for_many_owners_at_once() -> None:
    async def test(tried: Tried) -> None:
        async def use(number: int) -> None:
            lease = await tried.lease(Owner(str(number % 7), "{}"), LARGE if number % 3 else USUAL)
            await asyncio.sleep(0.001)
            await tried.pool.give_back(lease)

        await asyncio.gather(*(use(number) for number in range(60)))

    trying(test, ceiling=3, warm=2)


def test_at_the_ceiling_leases_wait_for_one_that_is_given_back() -> None:
    async def test(tried: Tried) -> None:
        held = await tried.lease(ADA)
        waiting = asyncio.create_task(tried.lease(BOB))
        await tried.until(lambda: len(tried.queue) == 1)
        await tried.pool.give_back(held)
        assert (await waiting).sandbox is not held.sandbox

    trying(test, ceiling=1)


def test_one_who_waits_is_served_by_a_warm_sandbox_that_took_the_last_place() -> None:
    async def test(tried: Tried) -> None:
        """The place that a worn-out sandbox leaves is wanted by the filling of the pool as well."""
        for _ in range(5):
            held = await tried.lease(ADA)
            waiting = asyncio.create_task(tried.lease(BOB))
            await tried.until(lambda: len(tried.queue) == 1)
            await tried.pool.give_back(held)
            await tried.pool.give_back(await waiting)

    trying(test, ceiling=1, warm=1, max_uses=1)


def test_a_full_queue_refuses_at_once() -> None:
    async def test(tried: Tried) -> None:
        tried.pool._queue = FairQueue(0, 0)
        await tried.lease(ADA)
        with pytest.raises(OverloadedError):
            await tried.lease(BOB)

    trying(test, ceiling=1)


def test_a_sandbox_is_replaced_after_a_number_of_uses() -> None:
    async def test(tried: Tried) -> None:
        sandboxes = []
        for _ in range(6):
            lease = await tried.lease(ADA)
            sandboxes.append(lease.sandbox)
            await tried.pool.give_back(lease)
        assert [sandboxes.count(one) for one in dict.fromkeys(sandboxes)] == [3, 3]
        assert not tried.backend.alive

    trying(test, max_uses=3)


def test_a_sandbox_that_cannot_be_emptied_is_replaced() -> None:
    async def test(tried: Tried) -> None:
        lease = await tried.lease(ADA)
        assert isinstance(lease.sandbox.link, PretendedLink)
        lease.sandbox.link.resets_well = False
        await tried.pool.give_back(lease)
        assert lease.sandbox not in tried.backend.alive
        assert (await tried.lease(ADA)).sandbox is not lease.sandbox

    trying(test)


def test_a_sandbox_that_died_is_not_given_out() -> None:
    async def test(tried: Tried) -> None:
        lease = await tried.lease(ADA)
        await tried.pool.give_back(lease)
        lease.sandbox.link.abort("died")
        assert (await tried.lease(ADA)).sandbox is not lease.sandbox

    trying(test)


def test_a_warm_sandbox_that_died_is_not_given_out() -> None:
    async def test(tried: Tried) -> None:
        await tried.until(lambda: tried.pool.warm_count == 1)
        (warm,) = tried.backend.alive
        warm.link.abort("died")
        assert (await tried.lease(ADA)).sandbox is not warm

    trying(test, warm=1)


def test_idle_sandboxes_are_removed_in_time() -> None:
    async def test(tried: Tried) -> None:
        await tried.pool.give_back(await tried.lease(ADA))
        assert len(tried.backend.alive) == 1
        await tried.until(lambda: not tried.backend.alive)
        assert tried.pool.count == 0

    trying(test, idle_seconds=0.02)


def test_a_start_that_fails_is_told_and_leaves_the_place_free() -> None:
    async def test(tried: Tried) -> None:
        tried.backend.failure = "no kernel"
        for _ in range(3):
            with pytest.raises(BackendError, match="no kernel"):
                await tried.lease(ADA)
        assert tried.pool.failure == "no kernel"
        tried.backend.failure = ""
        await tried.lease(ADA)
        assert tried.pool.failure == ""
        assert tried.pool.count == 1

    trying(test, ceiling=1)


def test_a_start_that_fails_passes_the_turn_on() -> None:
    async def test(tried: Tried) -> None:
        held = await tried.lease(ADA)
        waiting = [asyncio.create_task(tried.lease(owner)) for owner in (BOB, CYD)]
        await tried.until(lambda: len(tried.queue) == 2)
        tried.backend.failure = "no kernel"
        await tried.pool.give_back(held)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [BackendError, BackendError]

    trying(test, ceiling=1)


def test_closing_kills_what_is_idle_and_what_is_given_back_later() -> None:
    async def main() -> None:
        tried = Tried(warm=1)
        tried.pool.open()
        await tried.until(lambda: tried.pool.warm_count == 1)
        await tried.pool.give_back(await tried.lease(ADA, LARGE))
        leased = await tried.lease(BOB, LARGE)
        await tried.pool.close()
        assert tried.backend.alive == {leased.sandbox}
        await tried.pool.give_back(leased)
        assert not tried.backend.alive

    asyncio.run(main())
