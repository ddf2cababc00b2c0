"""Many callers at once: threads, loops, and their contexts."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from codemode import Codemode
from codemode.core.registry import get_current_context

if TYPE_CHECKING:
    from codemode.local import LocalExecutor
    from tests.conftest import MakeClient

WHO = "result = f\"{context['client_id']} {tools.who()}\""


def who() -> str:
    context = get_current_context()
    assert context is not None
    return str(context["client_id"])


async def who_async() -> str:
    await asyncio.sleep(0.01)
    return who()


def test_threads_have_contexts_of_their_own_in_code_and_tools(codemode: Codemode) -> None:
    codemode.registry.register_tool("who", who)

    def ask(number: int) -> str:
        codemode.with_context(client_id=f"client-{number % 3}")
        return codemode.execute(WHO)

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(ask, range(24)))
    assert answers == [f"client-{n % 3} client-{n % 3}" for n in range(24)]


def test_tasks_have_contexts_of_their_own_in_code_and_tools(codemode: Codemode) -> None:
    codemode.registry.register_tool("who", who_async)

    async def ask(number: int) -> str:
        codemode.with_context(client_id=f"client-{number % 3}")
        return await codemode.execute_async(WHO)

    async def main() -> list[str]:
        return await asyncio.gather(*(ask(number) for number in range(12)))

    assert asyncio.run(main()) == [f"client-{n % 3} client-{n % 3}" for n in range(12)]


def test_coroutine_tools_of_synchronous_callers_see_the_callers_context(codemode: Codemode) -> None:
    codemode.registry.register_tool("who", who_async)
    assert codemode.with_context(client_id="acme").execute(WHO) == "acme acme"


def test_tools_see_the_callers_own_context_variables(codemode: Codemode) -> None:
    request = contextvars.ContextVar("request", default="none")
    codemode.registry.register_tool("request", lambda: request.get())

    async def request_async() -> str:
        return request.get()

    codemode.registry.register_tool("request_async", request_async)
    request.set("req-1")
    code = "result = tools.request() + ' ' + tools.request_async()"
    assert codemode.execute(code) == "req-1 req-1"
    assert asyncio.run(codemode.execute_async(code)) == "req-1 req-1"


def test_what_a_tool_does_to_the_context_stays_with_it(codemode: Codemode) -> None:
    def meddle() -> str:
        codemode.with_context(client_id="evil")
        return who()

    codemode.registry.register_tool("meddle", meddle)
    codemode.registry.register_tool("who", who)
    codemode.with_context(client_id="acme")
    assert codemode.execute("result = [tools.meddle(), tools.who()]") == "['evil', 'acme']"
    assert who() == "acme"


def test_one_instance_serves_several_event_loops(codemode: Codemode) -> None:
    async def main() -> list[str]:
        return await asyncio.gather(*(codemode.execute_async(f"result = {n}") for n in range(3)))

    with ThreadPoolExecutor(4) as threads:
        answers = [future.result() for future in [threads.submit(asyncio.run, main()) for _ in range(4)]]
    assert answers == [["0", "1", "2"]] * 4
    # And one after the other, on this thread.
    assert asyncio.run(main()) == ["0", "1", "2"]


def test_a_synchronous_call_inside_a_running_loop_does_not_deadlock(codemode: Codemode) -> None:
    codemode.registry.register_tool("who", who)

    async def main() -> str:
        codemode.with_context(client_id="acme")
        with codemode.session() as session:
            assert session.execute("1 + 1") == "2"
        assert codemode.health_check()
        return codemode.execute(WHO)

    assert asyncio.run(main()) == "acme acme"


def test_a_synchronous_call_inside_a_running_loop_may_use_coroutine_tools(codemode: Codemode) -> None:
    codemode.registry.register_tool("who", who_async)

    async def main() -> str:
        codemode.with_context(client_id="acme")
        return codemode.execute(WHO)

    assert asyncio.run(main()) == "acme acme"


def test_the_event_loop_goes_on_while_code_runs(codemode: Codemode) -> None:
    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        await codemode.execute_async("import time; time.sleep(0.5)")
        ticking.cancel()
        return ticks

    assert asyncio.run(main()) > 10


def test_no_thread_and_no_loop_is_started_per_call(codemode: Codemode) -> None:
    codemode.execute("1")
    before = threading.active_count()
    for _ in range(5):
        codemode.execute("1")

    async def main() -> None:
        for _ in range(5):
            codemode.execute("1")
            await codemode.execute_async("1")

    asyncio.run(main())
    assert threading.active_count() <= before


def test_a_synchronous_tool_may_execute_code_itself(codemode: Codemode) -> None:
    codemode.registry.register_tool("nested", lambda code: codemode.execute(code))
    assert codemode.execute("result = int(tools.nested(code='result = 20 + 1')) * 2") == "42"


def test_a_coroutine_tool_may_execute_code_itself(codemode: Codemode) -> None:
    async def nested(code: str) -> str:
        return await codemode.execute_async(code)

    codemode.registry.register_tool("nested", nested)
    code = "result = int(tools.nested(code='result = 20 + 1')) * 2"
    assert codemode.execute(code) == "42"
    assert asyncio.run(codemode.execute_async(code)) == "42"


def test_a_coroutine_tool_that_would_wait_for_itself_is_told_so(codemode: Codemode) -> None:
    async def nested(code: str) -> str:
        return codemode.execute(code)

    codemode.registry.register_tool("nested", nested)
    result = codemode.run("tools.nested(code='1')", execution_timeout=10)
    assert not result.success
    assert "await the asynchronous form" in str(result.error)


def test_a_forked_process_has_connections_of_its_own(executor: LocalExecutor, connect: MakeClient) -> None:
    """As the workers of a web server that loads the application before it forks."""
    import subprocess
    import sys

    program = """
import os, sys
from codemode import ClientConfig, Codemode
make = lambda: Codemode(client_config=ClientConfig(executor_url=sys.argv[1], executor_api_key=sys.argv[2]))
make()
for _ in range(2):
    if os.fork() == 0:
        with make() as codemode:
            print(codemode.execute("1 + 1"), flush=True)
        os._exit(0)
for _ in range(2):
    assert os.wait()[1] == 0
print(make().execute("2 + 2"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, executor.url, executor.api_key],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("2\n2\n4\n", 0), done.stderr
