"""Clients and executors that end without a word."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from codemode import Codemode
from codemode.errors import ExecutorConnectionError, ExecutorTimeoutError
from tests.conftest import BACKEND

if TYPE_CHECKING:
    from codemode.local import LocalExecutor
    from tests.conftest import ChaosProxy, MakeClient, MakeExecutor, MakeProxy

LONG = "import time\ntools.begun()\ntime.sleep(100)"

CLIENT = """
import sys, time
from codemode import ClientConfig, Codemode
codemode = Codemode(client_config=ClientConfig(executor_url=sys.argv[1], executor_api_key=sys.argv[2]))
codemode.registry.register_tool("begun", lambda: print("begun", flush=True))
codemode.registry.register_tool("begin_and_wait", lambda: (print("begun", flush=True), time.sleep(100)))
codemode.execute({code!r}, execution_timeout=100)
"""


def begin_and_kill_the_client(executor: LocalExecutor, code: str) -> None:
    program = CLIENT.format(code=code)
    client = subprocess.Popen(
        [sys.executable, "-c", program, executor.url, executor.api_key], stdout=subprocess.PIPE, text=True
    )
    with client:
        assert client.stdout is not None
        assert client.stdout.readline() == "begun\n"
        client.kill()


def seconds_until_the_only_sandbox_is_free(codemode: Codemode) -> float:
    began = time.monotonic()
    assert codemode.with_context(client_id="somebody else").execute("1 + 1") == "2"
    return time.monotonic() - began


def test_the_execution_of_a_client_that_was_killed_is_stopped(
    start_executor: MakeExecutor, connect: MakeClient
) -> None:
    executor = start_executor(max_sandboxes=1, warm=0, vanished_seconds=0.8)
    begin_and_kill_the_client(executor, LONG)
    assert 0.3 < seconds_until_the_only_sandbox_is_free(connect(executor)) < 5


def test_the_execution_of_a_client_killed_in_a_tool_call_is_stopped(
    start_executor: MakeExecutor, connect: MakeClient
) -> None:
    executor = start_executor(max_sandboxes=1, warm=0, vanished_seconds=0.8)
    begin_and_kill_the_client(executor, "tools.begin_and_wait()")
    assert seconds_until_the_only_sandbox_is_free(connect(executor)) < 5


def test_a_cancel_is_obeyed_at_once(start_executor: MakeExecutor, connect: MakeClient) -> None:
    executor = start_executor(max_sandboxes=1, warm=0, vanished_seconds=100)
    codemode = connect(executor)

    async def cancel_when_it_runs() -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()
        codemode.registry.register_tool("begun", lambda: loop.call_soon(begun.set))
        task = asyncio.create_task(codemode.execute_async(LONG, execution_timeout=100))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_when_it_runs())
    assert seconds_until_the_only_sandbox_is_free(codemode) < 5


def test_a_cancel_survives_a_broken_line(
    start_executor: MakeExecutor, make_proxy: MakeProxy, connect: MakeClient
) -> None:
    executor = start_executor(max_sandboxes=1, warm=0, vanished_seconds=100)
    proxy = make_proxy(executor)
    codemode = connect(proxy, executor.api_key)

    async def cancel_when_it_runs() -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()
        codemode.registry.register_tool("begun", lambda: loop.call_soon(begun.set))
        task = asyncio.create_task(codemode.execute_async(LONG, execution_timeout=100))
        await begun.wait()
        proxy.cut()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_when_it_runs())
    assert seconds_until_the_only_sandbox_is_free(connect(executor)) < 5


# --- executors ----------------------------------------------------------------------------------------


class Replaceable:
    """An executor behind a proxy, and a second one that takes its place."""

    def __init__(self, executors: list[LocalExecutor], proxy: ChaosProxy, codemode: Codemode) -> None:
        self._first, self._second = executors
        self._proxy = proxy
        self.codemode = codemode
        self.calls = 0
        codemode.registry.register_tool("kill", self.kill_on_the_first_call)

    def replace(self) -> None:
        """Kill the executor; another one listens on its address at once."""
        self._proxy.upstream = self._second.url
        os.kill(self._first.pid, signal.SIGKILL)
        self._first._process.wait(10)

    def kill_on_the_first_call(self) -> int:
        self.calls += 1
        if self.calls == 1:
            self.replace()
        return self.calls


@pytest.fixture
def replaceable(
    start_executor: MakeExecutor, make_proxy: MakeProxy, connect: MakeClient, tmp_path: Path
) -> Replaceable:
    keys = tmp_path / "keys"
    keys.write_text("tests: a-key-of-these-tests-alone\n")
    executors = [start_executor(api_keys_file=keys, warm=1) for _ in range(2)]
    proxy = make_proxy(executors[0])
    return Replaceable(executors, proxy, connect(proxy, "a-key-of-these-tests-alone"))


def test_an_executor_killed_in_the_middle_is_an_error_and_nothing_runs_twice(
    replaceable: Replaceable,
) -> None:
    with pytest.raises(ExecutorConnectionError, match="whether it ran to its end is unknown") as caught:
        replaceable.codemode.execute("tools.kill()")
    assert caught.value.outcome_unknown
    assert caught.value.correlation_id in str(caught.value)
    assert replaceable.calls == 1
    # The one in its place works.
    assert replaceable.codemode.execute("1 + 1") == "2"
    assert replaceable.calls == 1


def test_code_marked_idempotent_runs_again_on_the_next_executor(replaceable: Replaceable) -> None:
    result = replaceable.codemode.run("result = tools.kill()", idempotent=True)
    assert result.value == 2
    assert replaceable.calls == 2


def test_an_executor_restarted_between_two_requests_is_not_noticed(replaceable: Replaceable) -> None:
    assert replaceable.codemode.execute("1 + 1") == "2"
    replaceable.replace()
    # Only the one in its place can answer; what is sent before the old connection ends is another matter.
    while not replaceable.codemode.health_check():
        time.sleep(0.01)
    assert replaceable.codemode.execute("2 + 2") == "4"


def test_a_session_of_an_executor_that_died_is_lost(replaceable: Replaceable) -> None:
    from codemode.errors import SessionLostError

    session = replaceable.codemode.session().open()
    session.run("x = 1")
    replaceable.replace()
    # Until it knows that the connection is gone, the outcome of what it sent would be unknown to it.
    deadline = time.monotonic() + 10
    while not replaceable.codemode.health_check():
        assert time.monotonic() < deadline
    with pytest.raises(SessionLostError, match="open one first"):
        session.run("x")


@pytest.mark.skipif(BACKEND == "docker", reason="containers are no children of it: see test_docker.py")
def test_nothing_of_a_killed_executor_is_left_running(
    start_executor: MakeExecutor, connect: MakeClient
) -> None:
    executor = start_executor(warm=2)
    codemode = connect(executor)
    begun = threading.Event()
    codemode.registry.register_tool("begun", begun.set)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            codemode.execute(LONG)
        except ExecutorConnectionError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(10)
    family = descendants(executor.pid)
    assert len(family) >= 3
    os.kill(executor.pid, signal.SIGKILL)
    thread.join(20)
    assert len(failures) == 1
    assert all_end(family)


def test_an_executor_ends_with_the_process_that_started_it() -> None:
    program = """
import sys
from codemode import Codemode
codemode = Codemode.local(backend="bubblewrap")
codemode.registry.register_tool(
    "begun", lambda: print(codemode.local_executor.pid, codemode.local_executor.url, flush=True)
)
codemode.execute("tools.begun(); import time; time.sleep(100)")
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        family = [int(pid), *descendants(int(pid))]
        assert len(family) >= 4
        parent.kill()
    assert all_end(family)
    assert not Path(url.removeprefix("unix:")).parent.exists()


def test_an_executor_that_does_not_answer_is_waited_for_as_long_as_the_client_says(
    start_executor: MakeExecutor, connect: MakeClient
) -> None:
    executor = start_executor()
    codemode = connect(executor, retry_max_attempts=2, executor_timeout=1)
    assert codemode.execute("1 + 1") == "2"
    os.kill(executor.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(ExecutorTimeoutError, match="did not answer in time"):
            codemode.execute("1 + 1", execution_timeout=1)
        # Twice what the code may take and what is waited beyond it.
        assert 3.5 < time.monotonic() - began < 8
    finally:
        os.kill(executor.pid, signal.SIGCONT)


def test_a_forked_process_that_ends_leaves_the_executor_to_its_parent() -> None:
    # In an interpreter of its own, because forking this one, with all its threads, would test something else.
    program = """
import os, sys
from codemode import Codemode
codemode = Codemode.local(backend="bubblewrap")
if (pid := os.fork()) == 0:
    sys.exit()
os.waitpid(pid, 0)
print(codemode.execute("1 + 1"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout == "2\n", done.stderr


def test_closing_leaves_no_process_and_no_file_behind() -> None:
    codemode = Codemode.local(backend="bubblewrap")
    executor = codemode.local_executor
    assert executor is not None
    with codemode:
        codemode.execute("1")
        codemode.session().open()
        family = [executor.pid, *descendants(executor.pid)]
        folder = Path(executor.url.removeprefix("unix:")).parent
        assert folder.exists()
    assert all_end(family)
    assert not folder.exists()
    assert not executor.is_running
    codemode.close()


def test_an_executor_told_to_terminate_ends_soon_though_its_parent_lives(
    start_executor: MakeExecutor, connect: MakeClient
) -> None:
    executor = start_executor()
    connect(executor).execute("1")
    family = descendants(executor.pid)
    os.kill(executor.pid, signal.SIGTERM)
    assert executor._process.wait(8) == 0
    assert all_end(family)


def test_an_executor_that_cannot_start_says_why() -> None:
    with pytest.raises(ExecutorConnectionError, match=r"(?s)did not start.*--backend"):
        Codemode.local(backend="no-such-backend")


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def all_end(pids: list[int], seconds: float = 10) -> bool:
    """Whether all of these processes end within a time; nothing tells a stranger that a process ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(is_running(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # A zombie has ended; whoever started it has not looked yet.
    return status.rpartition(")")[2].split()[0] != "Z"
