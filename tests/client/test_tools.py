"""Tools of this process, called by code in a sandbox."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from typing import Any

import pytest

from codemode import Codemode, RuntimeContext
from codemode.errors import ExecutionFailedError


def test_synchronous_tools_run_on_the_thread_that_called_execute(codemode: Codemode) -> None:
    codemode.registry.register_tool("thread", threading.get_ident)
    assert codemode.run("result = tools.thread()").value == threading.get_ident()
    seen: list[tuple[Any, int]] = []

    def elsewhere() -> None:
        seen.append((codemode.run("result = tools.thread()").value, threading.get_ident()))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen[0][0] == seen[0][1] != threading.get_ident()


def test_a_connection_that_is_bound_to_its_thread_can_be_used_by_a_tool(codemode: Codemode) -> None:
    database = sqlite3.connect(":memory:")
    database.executescript("CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('ada'), ('bob');")
    codemode.registry.register_tool("query", lambda sql: database.execute(sql).fetchall())
    assert codemode.run("result = tools.query(sql='SELECT name FROM users')").value == [["ada"], ["bob"]]
    database.close()


def test_coroutine_tools_run_on_the_callers_loop(codemode: Codemode) -> None:
    async def loop_id() -> int:
        return id(asyncio.get_running_loop())

    codemode.registry.register_tool("loop", loop_id)

    async def main() -> bool:
        result = await codemode.run_async("result = tools.loop()")
        return bool(result.value == id(asyncio.get_running_loop()))

    assert asyncio.run(main())


def test_coroutine_tools_of_one_execution_run_at_once(codemode: Codemode) -> None:
    together = 0

    async def meet(number: int) -> int:
        nonlocal together
        together += 1
        # Nobody gets on before all four are here; an event belongs to a loop, and there are two.
        while together < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return number

    codemode.registry.register_tool("meet", meet)
    code = (
        "import asyncio\nresult = await asyncio.gather(*(tools.meet.run_async(number=n) for n in range(4)))"
    )
    assert codemode.run(code, execution_timeout=10).value == [0, 1, 2, 3]
    together = 0
    assert asyncio.run(codemode.run_async(code, execution_timeout=10)).value == [0, 1, 2, 3]


def test_calls_from_threads_of_the_sandbox_get_their_own_answers(codemode: Codemode) -> None:
    codemode.registry.register_tool("double", lambda x: 2 * x)
    code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as threads:
    result = list(threads.map(lambda x: tools.double(x=x), range(40)))
"""
    assert codemode.run(code).value == [2 * x for x in range(40)]


@pytest.mark.parametrize(
    "call",
    [
        "tools['greet'].run(name='Ada')",
        "tools['greet'].run('Ada')",
        "tools['greet'](name='Ada')",
        "tools.greet('Ada')",
        "tools.greet.run(name='Ada')",
        "await tools.greet.run_async(name='Ada')",
    ],
)
def test_every_way_to_call_a_tool(codemode: Codemode, call: str) -> None:
    codemode.registry.register_tool("greet", lambda name: f"hello {name}")
    assert codemode.execute(f"result = {call}") == "hello Ada"


def test_tools_describe_themselves(codemode: Codemode) -> None:
    def weather(location: str, days: int = 1) -> str:
        """Tell the weather.

        Args:
            location: Where.
            days: How many days ahead.
        """
        return ""

    codemode.registry.register_tool("weather", weather)
    codemode.registry.register_tool("echo", lambda text: text)
    assert codemode.run("list(tools)").value == ["echo", "weather"]
    assert [t["name"] for t in codemode.run("tools['__list__'].run()").value] == ["echo", "weather"]
    described = codemode.run("help(tools.weather)").stdout
    assert "Tell the weather." in described
    assert "location" in described
    assert "days" in described


def test_a_tool_gets_the_context_it_asks_for(codemode: Codemode) -> None:
    class Tool:
        def run_with_context(self, context: RuntimeContext, greeting: str) -> str:
            return f"{greeting} {context['client_id']}"

    codemode.registry.register_tool("greet", Tool())
    assert codemode.with_context(client_id="acme").execute("tools.greet(greeting='hi')") == "hi acme"


def test_code_learns_only_the_type_and_message_of_a_failure(codemode: Codemode) -> None:
    def fail() -> None:
        password = "hunter2"  # noqa: F841 - must not travel
        try:
            raise KeyError("an inner secret")
        except KeyError as inner:
            raise RuntimeError("the disk is full") from inner

    codemode.registry.register_tool("fail", fail)
    code = """
try:
    tools.fail()
except Exception as e:
    result = [type(e).__name__, e.type, e.message, str(e.__cause__)]
"""
    assert codemode.run(code).value == ["ToolError", "RuntimeError", "the disk is full", "None"]
    result = codemode.run("tools.fail()")
    assert result.error_details is not None
    assert result.error_details.tool == "fail"
    everything = repr(result.to_dict())
    assert "hunter2" not in everything
    assert "inner secret" not in everything
    assert __file__ not in everything


def test_wrong_arguments_are_explained(codemode: Codemode) -> None:
    codemode.registry.register_tool("greet", lambda name: name)
    result = codemode.run("tools.greet(nam='Ada')")
    assert result.error_details is not None
    assert "unexpected 'nam' (did you mean 'name'?); missing 'name'" in result.error_details.message


def test_an_execution_may_call_the_tools_it_was_given_and_no_other(codemode: Codemode) -> None:
    calls: list[str] = []
    codemode.registry.register_tool("mine", lambda: calls.append("mine"))
    codemode.registry.register_tool("other", lambda: calls.append("other"))
    assert codemode.run("tools.mine(); result = list(tools)", tools=["mine"]).value == ["mine"]
    result = codemode.run("tools['other'].run()", tools=["mine"])
    assert "no tool 'other'" in str(result.error)
    assert not codemode.run("tools.mine()", tools=[]).success
    assert calls == ["mine"]


def test_an_unknown_tool_is_answered_with_near_names(codemode: Codemode) -> None:
    codemode.registry.register_tool("weather", lambda: None)
    result = codemode.run("tools.wether()")
    assert "did you mean 'weather'?" in str(result.error)


def test_a_result_that_cannot_be_sent_names_what_it_is(codemode: Codemode) -> None:
    codemode.registry.register_tool("lock", threading.Lock)
    result = codemode.run("tools.lock()")
    assert "ToolResultError" in str(result.error)


def test_every_call_is_recorded_with_its_duration(codemode: Codemode) -> None:
    def slow() -> None:
        time.sleep(0.05)

    def fail() -> None:
        raise ValueError("no")

    codemode.registry.register_tool("slow", slow)
    codemode.registry.register_tool("fail", fail)
    result = codemode.run("tools.slow()\ntry:\n    tools.fail()\nexcept Exception:\n    pass")
    slow_call, failed_call = result.tool_calls
    assert (slow_call.name, slow_call.success, slow_call.error) == ("slow", True, "")
    assert 45 <= slow_call.duration_ms < 1000
    assert (failed_call.name, failed_call.success, failed_call.error) == ("fail", False, "ValueError: no")
    assert failed_call.started_ms >= slow_call.started_ms + 45


def test_too_many_calls_are_refused_by_name_of_the_limit(codemode: Codemode) -> None:
    codemode.registry.register_tool("ping", lambda: 1)
    code = "for _ in range(4):\n    tools.ping()"
    with pytest.raises(ExecutionFailedError, match="tool_calls: the limit of 3"):
        codemode.run(code, limits={"tool_calls": 3}).raise_for_error()


def test_calls_above_the_rate_are_slowed_down(codemode: Codemode) -> None:
    codemode.registry.register_tool("ping", lambda: 1)
    began = time.monotonic()
    result = codemode.run("for _ in range(30):\n    tools.ping()", limits={"tool_calls_per_second": 20})
    assert result.success
    assert time.monotonic() - began > 0.4


def test_a_large_value_crosses_in_both_directions(codemode: Codemode) -> None:
    codemode.registry.register_tool("echo", lambda text: text)
    assert codemode.run("text = 'x' * 5_000_000\nresult = tools.echo(text=text) == text").value is True


def test_the_registration_of_a_tool_while_code_runs_is_seen(codemode: Codemode) -> None:
    def install() -> None:
        codemode.registry.register_tool("late", lambda: "here")

    codemode.registry.register_tool("install", install)
    assert codemode.execute("tools.install()\nresult = tools.late()") == "here"
