"""Waiting for a sandbox: bounded, and fair between owners."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from codemode_executor.errors import OverloadedError
from codemode_executor.owner import Owner
from codemode_executor.queueing import FairQueue

ADA, BOB, CYD = (Owner(name, "{}") for name in ("ada", "bob", "cyd"))


class Line:
    """A queue, and the names of those whose turn came."""

    def __init__(self, queue: FairQueue) -> None:
        self.queue = queue
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def join(self, owner: Owner, name: str) -> None:
        async def wait() -> None:
            await self.queue.wait(owner)
            self.served.append(name)

        self.tasks[name] = asyncio.create_task(wait())
        await asyncio.sleep(0)

    async def wake(self, times: int = 1) -> None:
        for _ in range(times):
            self.queue.wake()
            await asyncio.sleep(0)
            await asyncio.sleep(0)


def line_of(
    *names: str, run: Callable[[Line], Awaitable[None]], bounds: tuple[int, int] = (100, 100)
) -> None:
    async def main() -> None:
        line = Line(FairQueue(*bounds))
        for name in names:
            await line.join({"a": ADA, "b": BOB, "c": CYD}[name[0]], name)
        await run(line)
        for task in line.tasks.values():
            task.cancel()
        await asyncio.gather(*line.tasks.values(), return_exceptions=True)

    asyncio.run(main())


def test_owners_take_turns_and_each_is_served_in_order() -> None:
    async def run(line: Line) -> None:
        await line.wake(6)
        assert line.served == ["a1", "b1", "c1", "a2", "b2", "a3"]
        assert len(line.queue) == 0

    line_of("a1", "a2", "a3", "b1", "b2", "c1", run=run)


def test_one_who_comes_late_is_served_after_one_turn_of_the_others() -> None:
    async def run(line: Line) -> None:
        await line.wake()
        await line.join(BOB, "b1")
        await line.wake(2)
        assert line.served == ["a1", "a2", "b1"]

    line_of("a1", "a2", "a3", "a4", run=run)


def test_the_queue_is_bounded_in_all_and_for_each_owner() -> None:
    async def run(line: Line) -> None:
        with pytest.raises(OverloadedError, match="max_queue_per_owner: 2") as caught:
            await line.queue.wait(ADA)
        assert caught.value.retry_after_ms == 500
        await line.join(BOB, "b1")
        with pytest.raises(OverloadedError, match="max_queue: 3"):
            await line.queue.wait(CYD)
        await line.wake()
        await line.join(CYD, "c1")
        assert len(line.queue) == 3

    line_of("a1", "a2", run=run, bounds=(3, 2))


def test_a_queue_without_places_refuses_and_stays_usable() -> None:
    async def run(line: Line) -> None:
        with pytest.raises(OverloadedError):
            await line.queue.wait(ADA)
        line.queue.wake()
        assert len(line.queue) == 0

    line_of(run=run, bounds=(10, 0))


def test_one_who_leaves_is_not_waited_for() -> None:
    async def run(line: Line) -> None:
        line.tasks["a1"].cancel()
        line.tasks["b1"].cancel()
        await asyncio.sleep(0)
        assert len(line.queue) == 2
        await line.wake(2)
        assert line.served == ["a2", "c1"]

    line_of("a1", "a2", "b1", "c1", run=run)


def test_a_turn_that_comes_at_the_moment_somebody_leaves_is_the_next_ones() -> None:
    async def run(line: Line) -> None:
        line.queue.wake()
        line.tasks["a1"].cancel()
        for _ in range(4):
            await asyncio.sleep(0)
        assert line.served == ["b1"]

    line_of("a1", "b1", run=run)


def test_a_turn_does_not_go_to_one_who_is_about_to_leave() -> None:
    async def run(line: Line) -> None:
        line.tasks["a1"].cancel()
        await line.wake()
        assert line.served == ["b1"]
        assert len(line.queue) == 0
        await line.join(ADA, "a2")
        await line.wake()
        assert line.served == ["b1", "a2"]

    line_of("a1", "b1", run=run)


def test_one_who_gives_up_otherwise_leaves_as_well() -> None:
    async def run(line: Line) -> None:
        given_up = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(line.queue.wait(ADA, given_up))
        await asyncio.sleep(0)
        assert len(line.queue) == 2
        given_up.set_result(None)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert len(line.queue) == 1
        await line.wake()
        assert line.served == ["b1"]

    line_of("b1", run=run)


def test_a_turn_for_nobody_is_lost() -> None:
    async def run(line: Line) -> None:
        line.queue.wake()
        await line.join(ADA, "a1")
        assert line.served == []

    line_of(run=run)
