"""A `%%codemode` cell looks and behaves like any other cell of a notebook, on both kinds of sandbox."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.notebook.conftest import Kernel


@pytest.fixture(autouse=True)
def same_kernel_as_ever(kernel: Kernel) -> None:
    kernel.check("%codemode reset")


def test_printed_text_and_the_last_value_are_shown_as_ever(kernel: Kernel) -> None:
    ran = kernel.check('%%codemode\nimport sys\nprint("to out")\nprint("to err", file=sys.stderr)\n6 * 7')
    assert (ran.text(), ran.text("stderr"), ran.value) == ("to out\n", "to err\n", "42")
    assert kernel.check("_").value == "42"


def test_the_value_is_numbered_as_the_notebooks_own(kernel: Kernel) -> None:
    cell = kernel.start("%%codemode\n'value'")
    cell.finish()
    number = next(m for m in cell.messages if m["msg_type"] == "execute_input")["content"]["execution_count"]
    shown = next(m for m in cell.messages if m["msg_type"] == "execute_result")["content"]
    assert shown["execution_count"] == number
    assert kernel.check(f"Out[{number}]").value == "'value'"


def test_a_semicolon_hides_the_value(kernel: Kernel) -> None:
    assert kernel.check("%%codemode\n6 * 7;").outputs == []


def test_variables_stay_for_the_next_cell_and_out_of_the_kernel(kernel: Kernel) -> None:
    kernel.check("%%codemode\nkept = 3")
    assert kernel.check("%%codemode\nkept + 1").value == "4"
    assert kernel.check("'kept' in globals()").value == "False"


def test_output_arrives_before_the_cell_ends_and_an_interrupt_keeps_the_variables(kernel: Kernel) -> None:
    cell = kernel.start("%%codemode\nkept = 5\nprint('begun')\nwhile True:\n    pass")
    cell.wait_for(lambda ran: "begun" in ran.text())
    kernel.interrupt()
    ran = cell.finish()
    assert ran.error is not None and ran.error.ename == "KeyboardInterrupt"
    assert "while True" in ran.traceback
    assert "running.py" not in ran.traceback
    assert kernel.check("%%codemode\nkept").value == "5"


def test_an_interrupt_of_code_that_prints_without_end_keeps_the_variables(kernel: Kernel) -> None:
    cell = kernel.start("%%codemode\nkept = 6\nwhile True:\n    print('again')")
    cell.wait_for(lambda ran: "again" in ran.text())
    kernel.interrupt()
    ran = cell.finish()
    assert ran.error is not None and ran.error.ename == "KeyboardInterrupt"
    assert kernel.check("%%codemode\nkept").value == "6"


def test_an_interrupt_while_a_tool_works_keeps_the_variables(kernel: Kernel) -> None:
    kernel.check(
        "from codemode import tool\nimport time\n@tool\ndef endless():\n"
        "    print('tool begun')\n    while True:\n        time.sleep(0.01)"
    )
    cell = kernel.start("%%codemode\nkept = 7\ntools.endless()")
    cell.wait_for(lambda ran: "tool begun" in ran.text())
    kernel.interrupt()
    assert cell.finish().error is not None
    assert kernel.check("%%codemode\nkept").value == "7"


def test_code_may_finish_well_after_an_interrupt(kernel: Kernel) -> None:
    cell = kernel.start(
        "%%codemode\ntry:\n    print('begun')\n    while True:\n        pass\n"
        "except KeyboardInterrupt:\n    answer = 'cleaned up'\nanswer"
    )
    cell.wait_for(lambda ran: "begun" in ran.text())
    kernel.interrupt()
    assert cell.finish().value == "'cleaned up'"


def test_a_cell_that_runs_too_long_is_stopped_and_says_so(kernel: Kernel) -> None:
    ran = kernel.run("%%codemode -t 0.3\nkept = 8\nwhile True:\n    pass")
    assert ran.error is not None and ran.error.ename == "CodeTimeoutError"
    assert "timeout_seconds=0.3" in ran.traceback
    assert "while True" in ran.traceback
    assert kernel.check("%%codemode\nkept").value == "8"


def test_a_failure_shows_the_cells_own_lines_and_no_others(kernel: Kernel) -> None:
    ran = kernel.run("%%codemode\ndef half(n):\n    return n / 0\n\nhalf(1)")
    assert ran.error is not None and ran.error.ename == "ExecutionFailedError"
    assert ran.error.evalue.startswith("ZeroDivisionError: division by zero")
    assert "return" in ran.traceback and "half" in ran.traceback and "ZeroDivisionError" in ran.traceback
    for file in ("running.py", "magics.py", "shell.py", "interpreter.py"):
        assert file not in ran.traceback


def test_a_syntax_error_points_at_its_line(kernel: Kernel) -> None:
    ran = kernel.run("%%codemode\nok = 1\nx = = 2")
    assert "SyntaxError" in ran.traceback and "x = = 2" in ran.traceback


def test_output_before_a_failure_is_kept(kernel: Kernel) -> None:
    ran = kernel.run("%%codemode\nprint('so far')\n1 / 0")
    assert ran.text() == "so far\n" and ran.error is not None


def test_a_figure_is_an_image(kernel: Kernel) -> None:
    ran = kernel.check("%%codemode\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    (figure,) = ran.data("image/png")
    assert base64.b64decode(figure).startswith(b"\x89PNG")
    assert ran.data("text/plain") == ["<Figure size 640x480 with 1 Axes>"]


def test_a_data_frame_is_a_table(kernel: Kernel) -> None:
    ran = kernel.check("%%codemode\nimport pandas as pd\npd.DataFrame({'city': ['Oslo'], 'm': [23]})")
    (table,) = ran.data("text/html")
    assert "<table" in table and 'class="dataframe"' in table and "<td>Oslo</td>" in table
    assert ran.value is not None and ran.value.split() == ["city", "m", "0", "Oslo", "23"]


def test_the_order_of_output_is_kept(kernel: Kernel) -> None:
    ran = kernel.check("%%codemode\nprint('one')\ndisplay('two')\nprint('three')\n'four'")
    shown = [output.get("text") or output.data["text/plain"] for output in ran.outputs]
    assert shown == ["one\n", "'two'", "three\n", "'four'"]


def test_a_display_is_updated_in_place_also_from_a_later_cell(kernel: Kernel) -> None:
    first = kernel.start("%%codemode\nhandle = display('old', display_id='mine')")
    first.finish()
    second = kernel.start("%%codemode\nhandle.update('new')")
    second.finish()
    (shown,) = [m["content"] for m in first.messages if m["msg_type"] == "display_data"]
    (update,) = [m["content"] for m in second.messages if m["msg_type"] == "update_display_data"]
    assert update["transient"]["display_id"] == shown["transient"]["display_id"]
    assert update["data"]["text/plain"] == "'new'"


def test_a_display_of_the_notebook_itself_is_out_of_reach(kernel: Kernel) -> None:
    kernel.check("display('the notebook says', display_id='mine')")
    cell = kernel.start(
        "%%codemode\nfrom IPython.display import update_display\nupdate_display(1, display_id='mine')"
    )
    cell.finish()
    (update,) = [m["content"] for m in cell.messages if m["msg_type"] == "update_display_data"]
    assert update["transient"]["display_id"] != "mine"


def test_output_is_cleared(kernel: Kernel) -> None:
    cell = kernel.start(
        "%%codemode\nfrom IPython.display import clear_output\nprint('old')\nclear_output(wait=True)"
    )
    cell.finish()
    (cleared,) = [m["content"] for m in cell.messages if m["msg_type"] == "clear_output"]
    assert cleared == {"wait": True}


def test_scripts_do_not_reach_the_page_unless_the_person_says_so(kernel: Kernel) -> None:
    cell = "%%codemode --fresh\nfrom IPython.display import HTML\nHTML('<b>bold</b><script>steal()</script>')"
    ran = kernel.check(cell)
    assert ran.data("text/html") == ["<b>bold</b>"]
    assert "trust_outputs" in ran.text("stderr")
    kernel.check("%config CodemodeMagics.trust_outputs = True")
    try:
        assert kernel.check(cell).data("text/html") == ["<b>bold</b><script>steal()</script>"]
    finally:
        kernel.check("%config CodemodeMagics.trust_outputs = False")


def test_the_cells_text_reaches_the_sandbox_untouched(kernel: Kernel) -> None:
    kernel.check("name = 'a variable of the kernel'")
    body = "print('{name} $name $$ %d %% \\\\n {{x}} \"q\" !ls ? é')"
    assert kernel.check(f"%%codemode\n{body}").text() == '{name} $name $$ %d %% \\n {{x}} "q" !ls ? é\n'


def test_a_person_is_asked_for_input_and_for_a_password(kernel: Kernel) -> None:
    cell = kernel.start(
        "%%codemode\nimport getpass\nname = input('Name? ')\nword = getpass.getpass('Word? ')\n(name, word)",
        "Ada",
        "secret",
    )
    assert cell.finish().value == "('Ada', 'secret')"
    assert cell.prompts == [("Name? ", False), ("Word? ", True)]


def test_where_nobody_can_be_asked_input_says_so(kernel: Kernel) -> None:
    ran = kernel.run("%%codemode\ninput('Name? ')")
    assert "EOFError" in ran.traceback and "nobody to ask" in ran.traceback


def test_tools_of_the_notebook_use_its_database_connection(kernel: Kernel) -> None:
    # SQLite refuses a connection on any other thread than the one that made it: here the kernel's.
    kernel.check(
        "import sqlite3\nfrom codemode import tool\n"
        "database = sqlite3.connect(':memory:')\n"
        "database.executescript('create table town(name, people)')\n"
        "database.execute('insert into town values (?, ?)', ['Oslo', 709037])\n"
        "@tool\ndef people(town: str) -> int:\n"
        "    'How many live in a town.'\n"
        "    return database.execute('select people from town where name = ?', [town]).fetchone()[0]"
    )
    assert kernel.check("%%codemode\ntools.people(town='Oslo')").value == "709037"
    assert "people(town: str) -> int  How many live in a town." in kernel.check("%codemode tools").text()


def test_coroutine_tools_run_side_by_side(kernel: Kernel) -> None:
    # Each waits for the other: one after the other they would never end.
    kernel.check(
        "import asyncio\nfrom codemode import tool\nmet = {}\n@tool\nasync def meet(number: int) -> int:\n"
        "    await met.setdefault('barrier', asyncio.Barrier(2)).wait()\n    return number"
    )
    cell = (
        "%%codemode\nimport asyncio\nawait asyncio.gather(*(tools.meet.run_async(number=n) for n in (1, 2)))"
    )
    assert kernel.check(cell).value == "[1, 2]"


def test_a_tools_failure_names_the_tool_and_not_the_kernels_files(kernel: Kernel) -> None:
    kernel.check("from codemode import tool\n@tool\ndef broken():\n    raise LookupError('no such town')")
    ran = kernel.run("%%codemode\ntools.broken()")
    assert "broken" in ran.traceback and "no such town" in ran.traceback
    assert "ipykernel" not in ran.traceback


def test_a_cell_may_be_given_some_tools_or_none(kernel: Kernel) -> None:
    kernel.check("from codemode import tool\n@tool\ndef one(): return 1\n@tool\ndef two(): return 2")
    assert kernel.check("%%codemode --tools one,two\ntools.one() + tools.two()").value == "3"
    for allowed in ("one", "none"):
        assert "no tool 'two'" in kernel.run(f"%%codemode --tools {allowed}\ntools.two()").traceback


def test_cut_output_is_told(kernel: Kernel) -> None:
    ran = kernel.check("%%codemode\nprint('x' * (17 << 20))")
    assert "output_bytes" in ran.text("stderr")


def test_a_fresh_cell_sees_no_variables_and_leaves_none(kernel: Kernel) -> None:
    kernel.check("%%codemode\nkept = 1")
    assert kernel.check("%%codemode --fresh\nleft = 2\n'kept' in globals()").value == "False"
    assert kernel.check("%%codemode\n'left' in globals()").value == "False"


def test_an_interpreter_that_dies_is_told_and_replaced(kernel: Kernel) -> None:
    kernel.check("%%codemode\nkept = 1")
    ran = kernel.run("%%codemode\nimport os\nos._exit(3)")
    assert ran.error is not None and "exit code 3" in ran.error.evalue
    assert "next cell starts a new one" in ran.text("stderr")
    assert kernel.check("%%codemode\n'kept' in globals()").value == "False"
