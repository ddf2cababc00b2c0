"""Whenever the line breaks, code and tools run once, and the caller gets the outcome."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from codemode import Codemode
from codemode.errors import ExecutorConnectionError

if TYPE_CHECKING:
    from tests.conftest import ChaosProxy, MakeClient, MakeExecutor, MakeProxy


class Counter:
    """A tool that counts its calls, and may be made to do something during one."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.during: Any = None
        self.called = threading.Event()

    def run(self, number: int = 0) -> str:
        self.calls.append(number)
        self.called.set()
        if self.during is not None:
            self.during()
        return f"answer-{number}-of-the-tool"


@pytest.fixture
def counter(through_proxy: Codemode) -> Counter:
    counter = Counter()
    through_proxy.registry.register_tool("count", counter)
    return counter


CALLS_TWICE = """
first = tools.count(number=1)
second = tools.count(number=2)
result = [first, second, 'the-end-of-it']
"""


@pytest.mark.parametrize("delivered", [True, False], ids=["that arrived", "that did not arrive"])
@pytest.mark.parametrize(
    ("sender", "marker"),
    [
        pytest.param("client", b"second = tools.count", id="the start"),
        pytest.param("executor", b'{"number": 1}', id="a tool call"),
        pytest.param("client", b"answer-1-of-the-tool", id="a tool's answer"),
        pytest.param("client", b"answer-2-of-the-tool", id="the last answer"),
        pytest.param("executor", b"the-end-of-it", id="the result"),
    ],
)
def test_a_cut_at_a_message_runs_nothing_twice(
    through_proxy: Codemode, proxy: ChaosProxy, counter: Counter, sender: Any, marker: bytes, delivered: bool
) -> None:
    proxy.cut_at(marker, sent_by=sender, deliver=delivered)
    result = through_proxy.run(CALLS_TWICE)
    # A message that arrives does so before the cut.
    assert proxy.was_cut.wait(10)
    assert proxy.cuts == 1
    assert result.value == ["answer-1-of-the-tool", "answer-2-of-the-tool", "the-end-of-it"]
    assert counter.calls == [1, 2]
    assert [call.name for call in result.tool_calls] == ["count", "count"]


def test_a_cut_while_code_runs_silently_loses_nothing(
    through_proxy: Codemode, proxy: ChaosProxy, counter: Counter
) -> None:
    code = "tools.count()\nimport time\ntime.sleep(0.6)\nprint('still here')\nresult = 'done'"

    def cut_while_it_sleeps() -> None:
        counter.called.wait(10)
        time.sleep(0.2)
        proxy.cut()

    threading.Thread(target=cut_while_it_sleeps).start()
    result = through_proxy.run(code)
    assert proxy.cuts == 1
    assert (result.result, result.stdout) == ("done", "still here\n")
    assert counter.calls == [0]


def test_a_cut_while_a_tool_runs_does_not_call_it_again(
    through_proxy: Codemode, proxy: ChaosProxy, counter: Counter
) -> None:
    def cut_and_go_on() -> None:
        proxy.cut()
        time.sleep(0.5)

    counter.during = cut_and_go_on
    assert through_proxy.execute("result = tools.count(number=7)") == "answer-7-of-the-tool"
    assert proxy.cuts == 1
    assert counter.calls == [7]


def test_a_cut_while_a_coroutine_tool_runs_does_not_call_it_again(
    through_proxy: Codemode, proxy: ChaosProxy, counter: Counter
) -> None:
    import asyncio

    calls = []

    async def slow(number: int) -> int:
        calls.append(number)
        proxy.cut()
        await asyncio.sleep(0.5)
        return number + 1

    through_proxy.registry.register_tool("slow", slow)
    assert through_proxy.execute("result = tools.slow(number=41)") == "42"
    assert asyncio.run(through_proxy.execute_async("result = tools.slow(number=41)")) == "42"
    assert proxy.cuts == 2
    assert calls == [41, 41]


def test_output_is_complete_and_in_order_over_many_cuts(
    through_proxy: Codemode, proxy: ChaosProxy, counter: Counter
) -> None:
    counter.during = proxy.cut
    code = "for i in range(6):\n    print('line', i)\n    tools.count(number=i)\nresult = 'all'"
    result = through_proxy.run(code)
    assert result.stdout == "".join(f"line {i}\n" for i in range(6))
    assert counter.calls == list(range(6))
    assert proxy.cuts == 6


def test_a_session_runs_a_cell_once_when_its_answer_is_lost(
    through_proxy: Codemode, proxy: ChaosProxy, counter: Counter
) -> None:
    with through_proxy.session() as session:
        session.run("n = 0")
        proxy.cut_at(b"the-end-of-it", sent_by="executor", deliver=False)
        assert session.execute("n += 1\nresult = f'{n} the-end-of-it'") == "1 the-end-of-it"
        assert session.execute("n") == "1"
    assert proxy.cuts == 1


def test_the_loss_of_a_session_is_told_though_the_line_breaks_at_that_moment(
    through_proxy: Codemode, proxy: ChaosProxy, counter: Counter
) -> None:
    with through_proxy.session() as session:
        proxy.cut_at(b"exit code 3", sent_by="executor", deliver=False)
        result = session.run("import os; os._exit(3)")
    assert proxy.cuts == 1
    assert result.session_state == "lost"
    assert result.error_details is not None
    assert "exit code 3" in result.error_details.message


def test_an_outcome_that_the_executor_had_to_drop_is_unknown_and_the_code_does_not_run_again(
    start_executor: MakeExecutor, make_proxy: MakeProxy, connect: MakeClient
) -> None:
    executor = start_executor(journal_bytes=1)
    proxy = make_proxy(executor)
    # It shall forget before the client has tried for the last time, on the slowest machine too.
    codemode, direct = connect(proxy, executor.api_key, retry_max_attempts=6), connect(executor)
    counter = Counter()
    codemode.registry.register_tool("count", counter)
    assert direct.execute("'warm'") == "warm"
    proxy.cut_at(b"the-end-of-it", sent_by="executor", deliver=False, refuse=True)

    def make_the_executor_forget() -> None:
        assert proxy.was_cut.wait(10)
        direct.execute("1")
        proxy.refusing = False

    thread = threading.Thread(target=make_the_executor_forget)
    thread.start()
    with pytest.raises(ExecutorConnectionError, match="journal_bytes=1") as caught:
        codemode.execute(CALLS_TWICE)
    thread.join()
    assert caught.value.outcome_unknown
    assert counter.calls == [1, 2]


def test_an_executor_that_cannot_be_reached_is_tried_three_times(
    through_proxy: Codemode, proxy: ChaosProxy
) -> None:
    proxy.refusing = True
    began = time.monotonic()
    with pytest.raises(ExecutorConnectionError, match="tried 3 times") as caught:
        through_proxy.execute("1")
    assert not caught.value.outcome_unknown
    # 100 ms and 200 ms.
    assert 0.3 <= time.monotonic() - began < 3


def test_an_executor_that_comes_back_in_time_is_used(through_proxy: Codemode, proxy: ChaosProxy) -> None:
    proxy.refusing = True
    threading.Timer(0.15, lambda: setattr(proxy, "refusing", False)).start()
    assert through_proxy.execute("40 + 2") == "42"


def test_a_line_that_stays_broken_ends_in_an_error_that_says_the_outcome_is_unknown(
    through_proxy: Codemode, proxy: ChaosProxy, counter: Counter
) -> None:
    def break_the_line() -> None:
        proxy.refusing = True
        proxy.cut()

    counter.during = break_the_line
    with pytest.raises(ExecutorConnectionError, match="unknown") as caught:
        through_proxy.execute("tools.count()")
    assert caught.value.outcome_unknown
    assert counter.calls == [0]
