"""What a cell sets going in the runner, and what stops it: interrupts, processes, threads and tasks."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codemode_sandbox.frames import LinkKind, Message, MessageKind

if TYPE_CHECKING:
    from tests.executor.conftest import Runner

# --- interrupts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "waiting",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import asyncio; await asyncio.sleep(60)",
        "await asyncio.gather(*(asyncio.sleep(60) for _ in range(3)))",
        "import threading; threading.Event().wait(60)",
        "import subprocess; subprocess.run(['sleep', '60'])",
        "tools.never()",
        "await tools.never.run_async()",
    ],
)
def test_an_interrupt_ends_the_code_and_keeps_the_variables(runner: Runner, waiting: str) -> None:
    runner.run("import asyncio\nx = 1")

    def interrupt(message: Message) -> None:
        if message.kind == MessageKind.DISPLAY:
            # A moment later, so that the code has got to where it waits.
            threading.Timer(0.1, runner.interrupt).start()

    began = time.monotonic()
    outcome = runner.run(f"display('waiting')\n{waiting}", interrupt)
    assert outcome.error["type"] == "KeyboardInterrupt"
    assert "codemode_sandbox" not in outcome.error["traceback"]
    assert time.monotonic() - began < 5
    assert runner.run("x").result == "1"


def test_code_may_handle_an_interrupt(runner: Runner) -> None:
    code = """
import time
try:
    display('waiting')
    time.sleep(60)
except KeyboardInterrupt:
    result = 'handled'
"""

    def interrupt(message: Message) -> None:
        if message.kind == MessageKind.DISPLAY:
            threading.Timer(0.1, runner.interrupt).start()

    assert runner.run(code, interrupt).result == "handled"


def test_an_interrupt_of_an_idle_interpreter_does_nothing(runner: Runner) -> None:
    runner.run("x = 1")
    for _ in range(20):
        runner.interrupt()
    assert runner.run("x").result == "1"


# --- processes, threads and tasks -------------------------------------------------------------------------


def test_a_task_goes_on_between_cells(runner: Runner) -> None:
    runner.run("""
import asyncio
async def tick():
    for _ in range(3):
        await asyncio.sleep(0.01)
    open('ticked', 'w').close()
task = asyncio.create_task(tick())
await asyncio.sleep(0)
""")
    deadline = time.monotonic() + 10
    while not (runner.work / "ticked").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert runner.run("task.done()").result == "True"


def test_a_task_can_be_made_by_a_cell_that_awaits_nothing(runner: Runner) -> None:
    code = "import asyncio\nasync def f(): return 7\ntask = asyncio.create_task(f())"
    assert runner.run(code).report["ok"]
    assert runner.run("await task").result == "7"


def test_a_pool_of_processes_works(runner: Runner) -> None:
    code = """
import signal
# Without a sandbox the supervisor ignores it, and what it forks inherits that.
signal.signal(signal.SIGTERM, signal.SIG_DFL)
import multiprocessing
with multiprocessing.Pool(2) as pool:
    result = pool.map(abs, [-1, 2, -3])
"""
    assert runner.run(code).value == [1, 2, 3]


def test_a_forked_process_that_comes_out_of_the_cell_ends_there(runner: Runner) -> None:
    outcome = runner.run(
        "import os\nx = 1\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nresult = x\nprint(x)"
    )
    assert outcome.result == "1"
    # Both printed, one reported.
    assert outcome.printed().split() == ["1", "1"]
    assert runner.run("x + 1").result == "2"
    raised = runner.run(
        "import os\npid = os.fork()\nif not pid: raise ValueError('in the child')\nos.waitpid(pid, 0)[1] >> 8"
    )
    assert raised.result == "1"
    assert "ValueError: in the child" in raised.printed("stderr")


def test_a_forked_process_has_random_numbers_of_its_own_as_in_any_python(runner: Runner) -> None:
    code = """
import os, random
reading, writing = os.pipe()
if (pid := os.fork()) == 0:
    os.write(writing, repr(random.random()).encode())
    os._exit(0)
os.waitpid(pid, 0)
result = [os.read(reading, 100).decode(), repr(random.random())]
"""
    numbers = []
    for _ in range(3):
        numbers += runner.run(code, alone=True).value
        assert runner.reset()
    assert len(set(numbers)) == 6


def test_a_forked_process_cannot_speak_for_the_interpreter(runner: Runner) -> None:
    code = """
import os
pid = os.fork()
if not pid:
    try:
        tools.t()
    except RuntimeError as error:
        print(error)
    os._exit(0)
os.waitpid(pid, 0)
"""
    outcome = runner.run(code)
    assert "belong to the process that runs the cell" in outcome.printed()
    assert not any(message.kind == MessageKind.TOOL_CALL for message in outcome.messages)


def test_threads_print_and_call_tools(runner: Runner) -> None:
    code = """
import threading
def work(n):
    print(f'thread {n} {tools.double(x=n)}\\n', end='')
threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
for t in threads: t.start()
for t in threads: t.join()
"""
    outcome = runner.run(code, runner.answering({"double": lambda x: 2 * x}))
    assert sorted(outcome.printed().splitlines()) == ["thread 0 0", "thread 1 2", "thread 2 4"]


def test_random_numbers_differ_between_interpreters(runner: Runner) -> None:
    code = "import random, os; [random.random(), os.urandom(4).hex()]"
    first = runner.run(code).value
    assert runner.reset()
    assert first != runner.run(code).value


def test_an_interpreter_that_ends_is_announced_and_a_reset_brings_another(runner: Runner) -> None:
    outcome = runner.run("import os; os._exit(9)")
    assert outcome.links[-1].kind == LinkKind.EXITED
    assert json.loads(outcome.links[-1].payload) == {"exit_code": 9, "killed_for": None}
    assert runner.reset()
    assert runner.run("1 + 1").result == "2"


def test_a_reset_leaves_nothing(runner: Runner) -> None:
    outcome = runner.run("""
import os, subprocess, pathlib
secret = 1
pathlib.Path('left').write_text('x'); pathlib.Path('folder/deep').mkdir(parents=True)
pathlib.Path.home().joinpath('.left').write_text('x')
os.chmod('folder', 0)
child = subprocess.Popen(['sleep', '1000'], start_new_session=True)
child.pid
""")
    pid = int(outcome.result)
    assert runner.reset()
    assert not Path(f"/proc/{pid}").exists()
    assert list(runner.work.iterdir()) == []
    assert list((runner.work.parent / "home").iterdir()) == []
    assert runner.run("'secret' in globals()").result == "False"


def test_the_environment_is_the_one_that_was_said(runner: Runner) -> None:
    names = runner.run("import os; sorted(os.environ)").value
    assert set(names) <= {"CODEMODE_PACKAGE_HINT", "HOME", "IPYTHONDIR", "MPLBACKEND", "PATH", "LC_CTYPE"}


def test_the_end_of_the_link_ends_everything(tmp_path: Path) -> None:
    from tests.executor.conftest import Runner as StartRunner

    one = StartRunner(tmp_path)
    pid = one.run("import subprocess; subprocess.Popen(['sleep', '1000']).pid").value
    one.close()
    assert one.process.returncode == 0
    assert not Path(f"/proc/{pid}").exists()
