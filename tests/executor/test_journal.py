"""What the journal remembers, and how it stays within its bounds."""

from __future__ import annotations

import asyncio
import gc
import secrets
import weakref
from collections.abc import Awaitable, Callable

import pytest
from codemode_executor import journal as journal_module
from codemode_executor.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OutcomeForgottenError,
    OverloadedError,
)
from codemode_executor.execution import Execution
from codemode_executor.journal import Journal, check_identifier, digest_of
from codemode_executor.limits import Limits
from codemode_executor.owner import Owner
from codemode_proto.v1 import executor_pb2 as pb

OWNER = Owner("tests", "{}")


def new_start(*, attach_only: bool = False) -> pb.Start:
    return pb.Start(execution_id=secrets.token_hex(16), code="1", attach_only=attach_only)


def make(execution_id: str = "") -> Execution:
    return Execution(execution_id, "", Limits(), None, False, 1.0)


async def end(execution: Execution, size: int = 0) -> None:
    """End an execution as its owner's cancel before it ran does, with events of this many bytes."""
    execution.log.size += size
    execution.cancel("enough")
    # The journal hears of it in the next turn of the loop.
    await asyncio.sleep(0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(journal_module, "time", clock)
    monkeypatch.setattr("codemode_executor.execution.time", clock)
    return clock


def in_a_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await test()

    asyncio.run(run())


def test_a_known_request_is_found_again() -> None:
    async def test() -> None:
        journal = Journal(10, 100_000, 60)
        start = new_start()
        first, new = journal.find_or_add(OWNER, start, make)
        assert new
        again = pb.Start()
        again.CopyFrom(start)
        again.last_event, again.attach_only = 7, True
        assert journal.find_or_add(OWNER, again, make) == (first, False)
        await end(first)
        assert journal.find_or_add(OWNER, again, make) == (first, False)

    in_a_loop(test)


def test_another_body_or_owner_is_not_the_same() -> None:
    async def test() -> None:
        journal = Journal(10, 100_000, 60)
        start = new_start()
        first, _ = journal.find_or_add(OWNER, start, make)
        other, new = journal.find_or_add(Owner("tests", '{"client_id": "x"}'), start, make)
        assert new
        assert other is not first
        start.code = "2"
        with pytest.raises(ConflictError):
            journal.find_or_add(OWNER, start, make)

    in_a_loop(test)


def test_the_digest_is_of_all_but_the_number_of_the_try() -> None:
    ignored = {"last_event", "attach_only"}
    base = pb.Start()
    for field in pb.Start.DESCRIPTOR.fields:
        changed = pb.Start()
        if field.message_type is not None:
            getattr(changed, field.name).SetInParent()
        else:
            setattr(changed, field.name, {field.CPPTYPE_STRING: "x"}.get(field.cpp_type, 1))
        assert (digest_of(changed) == digest_of(base)) is (field.name in ignored), field.name


def test_what_is_to_be_attached_to_only_is_not_begun() -> None:
    async def test() -> None:
        journal = Journal(10, 100_000, 60)
        with pytest.raises(NotFoundError):
            journal.find_or_add(OWNER, new_start(attach_only=True), make)
        assert len(journal) == 0

    in_a_loop(test)


@pytest.mark.parametrize("name", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "\uff10" * 32])
def test_an_identifier_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="execution_id: 32 lower-case"):
        check_identifier(name, "execution_id")


def test_the_oldest_that_ended_make_room() -> None:
    async def test() -> None:
        journal = Journal(3, 10**6, 60)
        starts = [new_start() for _ in range(4)]
        entries = [journal.find_or_add(OWNER, start, make)[0] for start in starts[:3]]
        await end(entries[1])
        await end(entries[0])
        journal.find_or_add(OWNER, starts[3], make)
        # The second ended first.
        assert journal.find_or_add(OWNER, starts[0], make) == (entries[0], False)
        assert journal.running() == [entries[2], journal.find_or_add(OWNER, starts[3], make)[0]]
        assert len(journal) == 3

    in_a_loop(test)


def test_executions_that_run_are_never_forgotten_and_a_journal_full_of_them_refuses() -> None:
    async def test() -> None:
        journal = Journal(2, 10**6, 60)
        starts = [new_start() for _ in range(2)]
        entries = [journal.find_or_add(OWNER, start, make)[0] for start in starts]
        with pytest.raises(OverloadedError, match="journal_entries: 2") as caught:
            journal.find_or_add(OWNER, new_start(), make)
        assert caught.value.retry_after_ms is not None
        assert journal.find_or_add(OWNER, starts[0], make) == (entries[0], False)
        await end(entries[0])
        assert journal.find_or_add(OWNER, new_start(), make)[1]

    in_a_loop(test)


def test_too_many_bytes_are_dropped_and_that_they_ran_is_remembered() -> None:
    async def test() -> None:
        journal = Journal(10, 100_000, 60)
        starts = [new_start() for _ in range(3)]
        for start in starts:
            await end(journal.find_or_add(OWNER, start, make)[0], 60_000)
        journal.find_or_add(OWNER, new_start(), make)
        for start in starts[:2]:
            # A retry that came late would otherwise run it again.
            with pytest.raises(OutcomeForgottenError, match="journal_bytes=100,000"):
                journal.find_or_add(OWNER, start, make)
        assert not journal.find_or_add(OWNER, starts[2], make)[1]
        starts[0].code = "another request"
        with pytest.raises(ConflictError):
            journal.find_or_add(OWNER, starts[0], make)

    in_a_loop(test)


def test_what_is_too_old_is_forgotten(clock: Clock) -> None:
    async def test() -> None:
        journal = Journal(10, 100_000, 60)
        starts = [new_start() for _ in range(3)]
        for start, size in zip(starts, (200_000, 10, 10), strict=True):
            await end(journal.find_or_add(OWNER, start, make)[0], size)
            clock.now += 10
        clock.now += 35
        journal.find_or_add(OWNER, new_start(), make)
        # 65, 55 and 45 seconds ago.
        assert journal.find_or_add(OWNER, starts[0], make)[1]
        assert not journal.find_or_add(OWNER, starts[1], make)[1]
        clock.now += 60
        journal.find_or_add(OWNER, new_start(), make)
        assert journal.find_or_add(OWNER, starts[1], make)[1]
        assert journal.find_or_add(OWNER, starts[2], make)[1]

    in_a_loop(test)


def test_what_is_too_old_is_forgotten_also_where_nothing_new_begins() -> None:
    async def test() -> None:
        journal = Journal(10, 100_000, 0.05)
        execution, _ = journal.find_or_add(OWNER, new_start(), make)
        await end(execution, 10)
        assert len(journal) == 1
        async with asyncio.timeout(5):
            while len(journal):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)

    in_a_loop(test)


def test_a_refused_execution_may_be_begun_again() -> None:
    async def test() -> None:
        journal = Journal(10, 100_000, 60)
        start = new_start()
        first, _ = journal.find_or_add(OWNER, start, lambda: make(start.execution_id))
        journal.drop(OWNER, first)
        second, new = journal.find_or_add(OWNER, start, make)
        assert new
        # The end of the first, which comes late, does not take the second away.
        await end(first, 500_000)
        journal.find_or_add(OWNER, new_start(), make)
        assert journal.find_or_add(OWNER, start, make) == (second, False)

    in_a_loop(test)


def test_what_is_forgotten_is_out_of_memory_at_once() -> None:
    """Not when the garbage collector comes by: the events of one execution may be many megabytes."""

    async def main() -> None:
        execution = make("0" * 32)
        gone = weakref.ref(execution)
        execution.cancel("enough")
        await asyncio.sleep(0)
        gc.disable()
        try:
            del execution
            assert gone() is None
        finally:
            gc.enable()

    asyncio.run(main())
