"""A cell in the runner behaves as a cell in any notebook. No sandbox is around it here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codemode_sandbox.frames import MessageKind

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


def test_an_error_is_itself_where_no_descriptor_is_free_to_find_its_limit(runner: Runner) -> None:
    runner.run(
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "kept = []\nwhile True: kept.append(open('/dev/null'))"
    )
    assert runner.run("raise BlockingIOError(11, 'no more')").error["type"] == "BlockingIOError"


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
