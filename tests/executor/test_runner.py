"""A cell in the runner behaves as a cell in any notebook. No sandbox is around it here."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codemode_sandbox.frames import LinkKind, Message, MessageKind

if TYPE_CHECKING:
    from tests.executor.conftest import Runner

# --- what a cell shows --------------------------------------------------------------------------------


def test_the_value_of_the_last_expression_is_displayed(runner: Runner) -> None:
    outcome = runner.run("x = 2\nx + 40")
    (shown,) = outcome.displays("execute_result")
    assert shown["data"] == {"text/plain": "42"}
    assert (outcome.result, outcome.value, outcome.report["count"]) == ("42", 42, 1)


@pytest.mark.parametrize("code", ["x = 1", "1;", "None", "", "def f(): return 1"])
def test_what_has_no_value_displays_none(runner: Runner, code: str) -> None:
    assert runner.run(code).displays("execute_result") == []


def test_rich_values_are_displayed_in_every_form(runner: Runner) -> None:
    code = """
class Rich:
    def __repr__(self): return 'plain'
    def _repr_html_(self): return '<b>rich</b>'
    def _repr_png_(self): return b'\\x89PNG'
Rich()
"""
    (shown,) = runner.run(code).displays("execute_result")
    assert shown["data"] == {"text/plain": "plain", "text/html": "<b>rich</b>", "image/png": "iVBORw=="}


def test_display_update_and_clear(runner: Runner) -> None:
    code = """
from IPython.display import HTML, clear_output
handle = display(HTML('<i>1</i>'), display_id='d')
handle.update(HTML('<i>2</i>'))
clear_output(wait=True)
"""
    outcome = runner.run(code)
    assert outcome.displays()[0]["data"]["text/html"] == "<i>1</i>"
    assert outcome.displays()[0]["transient"] == {"display_id": "d"}
    assert outcome.displays("update_display_data")[0]["data"]["text/html"] == "<i>2</i>"
    assert outcome.displays("clear_output") == [{"wait": True}]


def test_output_and_displays_come_in_order(runner: Runner) -> None:
    outcome = runner.run("print('a', end='')\ndisplay(1)\nprint('b', end='')\n2")
    said = [
        message.body.decode() if message.kind == MessageKind.OUTPUT else message.head.get("kind")
        for message in outcome.messages[:-1]
    ]
    assert said == ["a", "display_data", "b", "execute_result"]


def test_a_data_frame_and_a_figure_are_displayed(runner: Runner) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    (table,) = runner.run("import pandas as pd\npd.DataFrame({'a': [1]})").displays("execute_result")
    assert "<table" in table["data"]["text/html"]
    figures = runner.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);").displays()
    assert any("image/png" in figure["data"] for figure in figures)


def test_what_programs_write_is_shown_too(runner: Runner) -> None:
    outcome = runner.run("import os, sys\nos.write(1, b'one\\n'); os.write(2, b'two\\n')\n!echo three")
    assert outcome.printed().split() == ["one", "three"]
    assert outcome.printed("stderr") == "two\n"


# --- IPython's language -------------------------------------------------------------------------------


def test_await_works_at_the_top_level(runner: Runner) -> None:
    code = """
import asyncio
async def f(x):
    await asyncio.sleep(0)
    return x
await asyncio.gather(f(1), f(2))
"""
    assert runner.run(code).value == [1, 2]


def test_magics_and_shell_commands_work(runner: Runner) -> None:
    (runner.work / "seen.txt").write_text("x")
    outcome = runner.run("files = !ls\nresult = list(files)\n%time y = 7")
    assert outcome.value == ["seen.txt"]
    assert "Wall time" in outcome.printed()
    assert runner.run("%who_ls int").value == ["y"]
    assert "UsageError" in runner.run("%no_such_magic").error["traceback"]


def test_help_with_a_question_mark_is_displayed(runner: Runner) -> None:
    outcome = runner.run("def greet():\n    'Say hello.'\ngreet?")
    assert "Say hello." in json.dumps(outcome.displays()) + outcome.printed()


def test_help_of_an_object_is_printed(runner: Runner) -> None:
    assert "Return the absolute value" in runner.run("help(abs)").printed()


def test_earlier_inputs_and_outputs_are_remembered(runner: Runner) -> None:
    runner.run("40 + 2")
    assert runner.run("[_, Out[1], In[1]]").value == [42, 42, "40 + 2"]


def test_indented_code_runs_as_it_does_in_a_notebook(runner: Runner) -> None:
    assert runner.run("\n    x = 1\n    if x:\n        result = 'yes'\n").result == "yes"


# --- results ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("class X:\n    def __repr__(self): raise ValueError('no repr')\nresult = X()", "no repr"),
        ("class X:\n    def __str__(self): return 7\nresult = X()", "__str__ returned non-string"),
    ],
)
def test_a_result_that_cannot_be_text_is_the_codes_error(runner: Runner, code: str, words: str) -> None:
    assert words in runner.run(code).error["message"]
    assert runner.run("1 + 1").result == "2"


def test_values_that_json_would_change_do_not_cross_as_values(runner: Runner) -> None:
    for code in ("{1: 2}", "{1, 2}", "b'x'", "1j", "type('I', (int,), {})(3)"):
        outcome = runner.run(f"result = {code}")
        assert outcome.value is None
        assert outcome.result


@pytest.mark.parametrize("number", ["float('inf')", "float('nan')", "[1.0, -float('inf')]"])
def test_numbers_that_are_not_finite_do_not_cross_as_values(runner: Runner, number: str) -> None:
    assert runner.run(f"result = {number}").value is None


@pytest.mark.parametrize("code", ["'result' in globals()", "len(dir()) > 0"])
def test_a_stale_result_does_not_count_for_code_that_looks_at_its_names(runner: Runner, code: str) -> None:
    runner.run("result = 'old'")
    assert runner.run(code).result == "True"


def test_a_stale_result_does_not_count_and_can_still_be_used(runner: Runner) -> None:
    runner.run("result = [1]")
    assert runner.run("x = 5").result == ""
    assert runner.run("x").result == "5"
    assert runner.run("result.append(2)\nresult").result == "[1, 2]"
    assert runner.run("del result\n'gone'").result == "gone"
    assert runner.run("result").error["type"] == "NameError"


# --- errors -------------------------------------------------------------------------------------------


def test_a_traceback_has_the_cells_lines_and_none_of_the_runners(runner: Runner) -> None:
    runner.run("def outer():\n    return inner()")
    error = runner.run("def inner():\n    return {}['key']\n\nouter()").error
    assert (error["type"], error["message"], error["line"]) == ("KeyError", "'key'", 2)
    text = error["traceback"]
    for line in ("return {}['key']", "return inner()", "outer()"):
        assert line in text
    for ours in ("codemode_sandbox", "interpreter.py", "shell.py", "run_code", "runpy", "-c"):
        assert ours not in text
    assert any("\x1b[" in line for line in error["lines"])
    assert "\x1b[" not in text


def test_chains_and_groups_of_errors_are_shown_whole(runner: Runner) -> None:
    text = runner.run("try:\n    1 / 0\nexcept Exception as e:\n    raise KeyError('outer') from e").error
    assert "ZeroDivisionError" in text["traceback"]
    assert "direct cause" in text["traceback"]
    group = runner.run("raise ExceptionGroup('several', [ValueError('one'), TypeError('two')])").error
    assert "ValueError: one" in group["traceback"]
    assert "TypeError: two" in group["traceback"]


@pytest.mark.parametrize(
    ("code", "line"),
    [("x = 1\ny = (\n", 2), ("for:\n  pass", 1), ("x = 1\n  y = 2", 2), ("'\\ud800' = 1", 1)],
)
def test_a_syntax_error_tells_its_line(runner: Runner, code: str, line: int) -> None:
    error = runner.run(code).error
    assert error["type"] in ("SyntaxError", "IndentationError")
    assert error["line"] == line


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("import nothing_of_that_name.at_all", "no module 'nothing_of_that_name'. Ask for it."),
        ("open('sales.csv')", "put_file"),
        ("import os; os.listdir('/data/of/mine')", "put_file"),
        ("x = bytearray(1 << 60)", "memory_bytes"),
    ],
)
def test_errors_that_a_sandbox_causes_say_what_to_do(runner: Runner, code: str, hint: str) -> None:
    assert hint in runner.run(code).error["traceback"]


@pytest.mark.parametrize(
    "body",
    [
        "def __str__(self): return 'x' * 10_000_000",
        "def __repr__(self): raise ValueError('no text')",
        "def __init__(self): self.__notes__ = 7",
        "def __str__(self): raise ValueError('no text')",
        "def __str__(self): raise SystemExit",
        "__module__ = 7",
    ],
)
def test_an_exception_that_misbehaves_is_reported_all_the_same(runner: Runner, body: str) -> None:
    error = runner.run(f"class E(Exception):\n    {body}\nraise E()").error
    assert error["type"] == "E"
    assert len(json.dumps(error)) < 1_000_000
    assert runner.run("1 + 1").result == "2"


@pytest.mark.parametrize(
    "leave",
    [
        "import sys; sys.exit(3)",
        "raise SystemExit",
        "exit()",
        "quit()",
    ],
)
def test_leaving_ends_the_cell_and_not_the_session(runner: Runner, leave: str) -> None:
    runner.run("x = 1")
    assert runner.run(leave).error["type"] == "SystemExit"
    assert runner.run("x").result == "1"


def test_running_out_of_memory_leaves_the_session_usable(tmp_path: Path) -> None:
    from tests.executor.conftest import Runner as StartRunner

    limited = StartRunner(tmp_path, rlimits={"DATA": 300 << 20})
    try:
        limited.run("x = 1")
        assert limited.run("a = []\nwhile True: a.append(bytearray(1 << 20))").error["type"] == "MemoryError"
        assert limited.run("del a\nx + 1").result == "2"
    finally:
        limited.close()


def test_recursion_without_end_is_an_error(runner: Runner) -> None:
    error = runner.run("def f(): return f()\nf()").error
    assert error["type"] == "RecursionError"
    assert runner.run("1 + 1").result == "2"


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


# --- tools, context, input ------------------------------------------------------------------------------


def weather(location: str, days: int = 1) -> str:
    """Tell the weather."""
    if location == "Atlantis":
        raise LookupError("it sank")
    return f"{location} {days}"


@pytest.mark.parametrize(
    "call",
    [
        "tools['weather'].run('Oslo')",
        "tools.weather(location='Oslo')",
        "tools.weather.run(location='Oslo', days=1)",
        "await tools.weather.run_async('Oslo')",
        "(await asyncio.gather(*(tools.weather.run_async(location='Oslo') for _ in range(9))))[8]",
    ],
)
def test_every_way_to_call_a_tool(runner: Runner, call: str) -> None:
    outcome = runner.run(f"import asyncio\nresult = {call}", runner.answering({"weather": weather}))
    assert outcome.value == "Oslo 1"


def test_a_tools_failure_is_an_exception_with_its_type_and_message(runner: Runner) -> None:
    code = """
try:
    tools.weather('Atlantis')
except Exception as e:
    result = [e.tool, e.type, e.message]
"""
    outcome = runner.run(code, runner.answering({"weather": weather}))
    assert outcome.value == ["weather", "LookupError", "it sank"]
    failed = runner.run("tools.weather('Atlantis')", runner.answering({"weather": weather}))
    assert failed.error["tool"] == "weather"
    assert failed.error["traceback"].rstrip().endswith("tool 'weather' failed: LookupError: it sank")


def test_tools_can_be_listed_and_explained(runner: Runner) -> None:
    answer = runner.answering({"weather": weather, "x-y": lambda: 1})
    assert runner.run("[list(tools), len(tools), 'weather' in tools, dir(tools)]", answer).value == [
        ["weather", "x-y"], 2, True, ["weather"],
    ]  # fmt: skip
    assert [t["name"] for t in runner.run("tools['__list__'].run()", answer).value] == ["weather", "x-y"]
    schema = runner.run("tools['__schema__'].run(name='weather')", answer).value
    assert schema["input_schema"]["required"] == ["location"]
    explained = runner.run("help(tools.weather)", answer).printed()
    assert "weather(*, location: str, days: int = 1)" in explained
    assert "Tell the weather." in explained


def test_a_tool_that_is_not_allowed_is_refused_at_once(runner: Runner) -> None:
    outcome = runner.run("tools['wether'].run()", tools=["weather"])
    assert "did you mean 'weather'?" in outcome.error["message"]
    assert not any(message.kind == MessageKind.TOOL_CALL for message in outcome.messages)
    assert runner.run("hasattr(tools, 'other')", tools=["weather"]).result == "False"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("object()", "argument 'location' cannot be sent: object is not JSON"),
        ("(lambda x: x.append(x) or x)([])", "argument 'location' cannot be sent: it contains itself"),
        ("'x' * (65 << 20)", "above the limit message_bytes"),
    ],
)
def test_arguments_that_cannot_be_sent_are_named(runner: Runner, argument: str, words: str) -> None:
    outcome = runner.run(f"tools.weather(location={argument})", runner.answering({"weather": weather}))
    assert words in outcome.error["message"]
    assert runner.run("1 + 1").result == "2"


def test_context_and_config_are_mappings_that_cannot_be_changed(runner: Runner) -> None:
    given: dict[str, Any] = {"context": {"client_id": "acme"}, "config": {"n": 1}}
    code = "result = [context['client_id'], context.get('x', 0), dict(context), config['n'], list(config)]"
    assert runner.run(code, **given).value == ["acme", 0, {"client_id": "acme"}, 1, ["n"]]
    assert runner.run("context['client_id'] = 'other'", **given).error["type"] == "TypeError"
    assert (
        "context has no 'user'; it holds client_id" in runner.run("context['user']", **given).error["message"]
    )


def test_input_is_asked_for_and_refused_where_nobody_answers(runner: Runner) -> None:
    def answer(message: Message) -> None:
        if message.kind == MessageKind.INPUT_REQUEST:
            words = f"{message.head['prompt']}{message.head['password']}".encode()
            runner.send(MessageKind.INPUT_ANSWER, {"id": message.head["id"], "eof": False}, words)

    code = "import getpass, sys\nresult = [input('a '), getpass.getpass('b ')]"
    assert runner.run(code, answer, input=True).value == ["a False", "b True"]
    assert not runner.run("input()", answer, input=False).report["ok"]
