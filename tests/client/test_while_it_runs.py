"""What a caller hears and says while its code runs: events, input, and that it shall stop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from codemode import Codemode
from codemode.events import (
    DisplayOutput,
    ExecutionEvent,
    Finished,
    InputRequested,
    OutputText,
    Started,
    ToolCalled,
)

if TYPE_CHECKING:
    pass

# --- events and input ---------------------------------------------------------------------------------

TALKATIVE = """
print('before')
tools.ping()
import IPython.display as d
d.display(d.HTML('<i>x</i>'))
input('name? ')
"""


def test_events_are_told_as_they_happen(codemode: Codemode) -> None:
    codemode.registry.register_tool("ping", lambda: "pong")
    events: list[ExecutionEvent] = []
    asked: list[tuple[str, bool]] = []

    def answer(prompt: str, password: bool) -> str:
        asked.append((prompt, password))
        assert any(isinstance(event, InputRequested) for event in events)
        return "Ada"

    result = codemode.run(TALKATIVE, on_event=events.append, on_input=answer)
    kinds = [type(event) for event in events]
    # A line and its end may come apart.
    assert [kind for kind, _ in itertools.groupby(kinds)] == [
        Started,
        OutputText,
        ToolCalled,
        DisplayOutput,
        InputRequested,
        DisplayOutput,
        Finished,
    ]
    assert asked == [("name? ", False)]
    assert result.result == "Ada"
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.result is result


def test_events_can_be_iterated_asynchronously(codemode: Codemode) -> None:
    arrived: list[float] = []

    async def main() -> list[ExecutionEvent]:
        events = []
        async for event in codemode.events("import time\nprint('a')\ntime.sleep(0.4)\nprint('b')"):
            events.append(event)
            arrived.append(time.monotonic())
        return events

    events = asyncio.run(main())
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    texts = [event.text for event in events if isinstance(event, OutputText)]
    assert "".join(texts) == "a\nb\n"
    # The first line did not wait for the second.
    assert arrived[-1] - arrived[1] > 0.2


def test_leaving_the_iteration_stops_the_code(codemode: Codemode) -> None:
    calls: list[int] = []
    codemode.registry.register_tool("tick", lambda: calls.append(1))

    async def main() -> None:
        events = codemode.events("import time\nwhile True:\n    tools.tick()\n    time.sleep(0.01)")
        async with contextlib.aclosing(events):  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, ToolCalled):
                    break
        assert await codemode.execute_async("1 + 1") == "2"

    asyncio.run(main())
    # Whatever was asked before it was left, no more comes.
    seen = len(calls)
    assert codemode.execute("import time; time.sleep(0.2); 1") == "1"
    assert len(calls) == seen


def test_input_without_anybody_to_ask_is_an_error_that_says_so(codemode: Codemode) -> None:
    result = codemode.run("input('name? ')")
    assert not result.success
    assert "input" in str(result.error)


def test_the_end_of_input_is_an_eof_error(codemode: Codemode) -> None:
    def nobody(prompt: str, password: bool) -> str:
        raise EOFError

    assert "EOFError" in str(codemode.run("input()", on_input=nobody).error)


def test_a_password_is_asked_for_as_one(codemode: Codemode) -> None:
    asked: list[bool] = []

    def answer(prompt: str, password: bool) -> str:
        asked.append(password)
        return "secret"

    assert codemode.run("import getpass; getpass.getpass()", on_input=answer).result == "secret"
    assert asked == [True]


# --- stopping -----------------------------------------------------------------------------------------


def test_cancelling_the_task_stops_the_code_and_its_coroutine_tools(codemode: Codemode) -> None:
    async def main() -> None:
        begun, tool_stopped = asyncio.Event(), asyncio.Event()

        async def forever() -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                tool_stopped.set()

        codemode.registry.register_tool("begun", forever)
        task = asyncio.create_task(codemode.execute_async("import time\ntools.begun()\ntime.sleep(60)"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(tool_stopped.wait(), 5)

    asyncio.run(main())


def test_an_interrupt_of_the_waiting_thread_interrupts_the_code_and_keeps_the_session(
    codemode: Codemode,
) -> None:
    begun = threading.Event()
    codemode.registry.register_tool("begun", begun.set)

    def press_ctrl_c() -> None:
        begun.wait(10)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    with codemode.session() as session:
        session.run("x = 1")
        threading.Thread(target=press_ctrl_c).start()
        printed: list[str] = []
        code = """
import time
try:
    tools.begun()
    time.sleep(60)
except KeyboardInterrupt:
    print('interrupted')
    x = 2
    raise
"""
        with pytest.raises(KeyboardInterrupt):
            session.run(code, on_event=lambda e: printed.append(getattr(e, "text", "")))
        assert "".join(printed) == "interrupted\n"
        assert session.execute("x") == "2"


def test_an_interrupt_during_a_tool_call_interrupts_the_tool_and_the_code(codemode: Codemode) -> None:
    interrupted: list[str] = []

    def slow() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        except KeyboardInterrupt:
            interrupted.append("tool")
            raise

    codemode.registry.register_tool("slow", slow)
    with codemode.session() as session:
        with pytest.raises(KeyboardInterrupt):
            session.run("tools.slow()")
        assert interrupted == ["tool"]
        assert session.execute("1 + 1") == "2"


def test_an_exception_of_the_callers_own_handler_stops_the_code(codemode: Codemode) -> None:
    def refuse(event: ExecutionEvent) -> None:
        if isinstance(event, OutputText):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        codemode.run("print('x')\nimport time; time.sleep(60)", on_event=refuse)
    assert codemode.execute("1") == "1"
