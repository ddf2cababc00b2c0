"""One session of one owner stands behind a notebook: its context, its tools, its end."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from codemode.local import LocalExecutor

if TYPE_CHECKING:
    from tests.notebook.conftest import Kernel, StartKernel


@pytest.fixture(autouse=True)
def new_session(notebook: Kernel) -> None:
    notebook.check("%codemode reset")
    notebook.check("%codemode context client_id= user_id= team=")


# --- arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%codemode --frehs\n1", "unrecognized arguments: --frehs"),
        ("%%codemode -t soon\n1", "'soon' is not a number of seconds above 0"),
        ("%%codemode -t -1\n1", "-1"),
        ("%%codemode -t nan\n1", "not a number of seconds"),
        ("%%codemode -c team\n1", "'team' is not KEY=VALUE"),
        ("%%codemode -c =x\n1", "'=x' is not KEY=VALUE"),
        ("%%codemode -c 'team=a\n1", "no closing quotation"),
        ("%%codemode --tools wether\n1", "no tool is named 'wether'"),
        ("%codemode frobnicate", "has no 'frobnicate'; it has context, status, tools"),
        ("%codemode reset now", "takes no more words"),
    ],
)
def test_a_mistake_in_the_arguments_is_told_shortly_and_runs_nothing(
    notebook: Kernel, cell: str, said: str
) -> None:
    ran = notebook.run(cell)
    shown = ran.text("stderr")
    assert shown.startswith("UsageError: ") and said in shown
    assert shown.count("\n") == 1


def test_help_names_every_action(notebook: Kernel) -> None:
    text = notebook.check("%codemode").text()
    for action in ("%%codemode", "status", "context", "tools", "interrupt", "reset"):
        assert action in text


def test_the_cell_magic_documents_its_options(notebook: Kernel) -> None:
    cell = notebook.start("%%codemode?")
    cell.finish()
    reply = notebook.client.get_shell_msg(timeout=10)
    while not reply["content"].get("payload"):
        reply = notebook.client.get_shell_msg(timeout=10)
    text = reply["content"]["payload"][0]["data"]["text/plain"]
    for option in ("--fresh", "--timeout", "--context", "--tools"):
        assert option in text


# --- context ----------------------------------------------------------------------------------------


def test_the_context_reaches_cells_and_tools(notebook: Kernel) -> None:
    notebook.check(
        "from codemode import tool\nfrom codemode.core.registry import get_current_context\n"
        "@tool\ndef whose(): return dict(get_current_context())"
    )
    notebook.check("%codemode context client_id=acme user_id=u1")
    assert notebook.check("%codemode context").text() == "client_id  'acme'\nuser_id    'u1'\n"
    expected = "{'client_id': 'acme', 'user_id': 'u1'}"
    assert notebook.check("%%codemode\ndict(context)").value == expected
    assert notebook.check("%%codemode\ntools.whose()").value == expected
    assert notebook.check("%%codemode --fresh\ntools.whose()").value == expected


def test_a_value_of_python_becomes_the_context_in_one_line(notebook: Kernel) -> None:
    notebook.check("import codemode_kernel\ncodemode_kernel.set_context(client_id='acme', team={'size': 3})")
    assert notebook.check("%%codemode\ncontext['team']['size']").value == "3"


def test_a_value_that_cannot_be_sent_is_refused_by_name(notebook: Kernel) -> None:
    ran = notebook.run("import codemode_kernel\ncodemode_kernel.set_context(team=object())")
    assert ran.error is not None and ran.error.ename == "ContextVariableError"
    assert "'team'" in ran.traceback and ran.traceback.count("\n") == 0


def test_a_cell_may_add_to_the_context_for_itself(notebook: Kernel) -> None:
    notebook.check("%codemode context client_id=acme team=south")
    assert notebook.check("%%codemode -c 'team=north east' -c day=\ncontext['team']").value == "'north east'"
    assert notebook.check("%%codemode\ncontext['team']").value == "'south'"


def test_another_variable_may_change_while_the_session_lives(notebook: Kernel) -> None:
    notebook.check("%codemode context client_id=acme team=south")
    notebook.check("%%codemode\nkept = context['team']")
    notebook.check("%codemode context team=north")
    assert notebook.check("%%codemode\n(kept, context['team'])").value == "('south', 'north')"


@pytest.mark.parametrize("key", ["client_id", "tenant_id", "user_id", "session_id"])
def test_whom_a_session_is_for_cannot_change(notebook: Kernel, key: str) -> None:
    notebook.check(f"%codemode context {key}=one")
    notebook.check("%%codemode\nkept = 1")
    for cell in (
        f"%codemode context {key}=two",
        f"%codemode context {key}=",
        f"import codemode_kernel\ncodemode_kernel.set_context({key}='two')",
        f"%%codemode -c {key}=two\nkept",
    ):
        ran = notebook.run(cell)
        assert ran.error is not None and ran.error.ename == "OwnerChangedError", cell
        assert f"{key} from 'one' to " in ran.traceback and "%codemode reset" in ran.traceback
        assert ran.traceback.count("\n") == 0
    assert notebook.check("%%codemode\nkept").value == "1"
    assert notebook.check(f"%%codemode --fresh -c {key}=two\ncontext['{key}']").value == "'two'"
    notebook.check("%codemode reset")
    notebook.check(f"%codemode context {key}=two")
    assert notebook.check(f"%%codemode\n(context['{key}'], 'kept' in globals())").value == "('two', False)"
    notebook.check("%codemode reset")
    notebook.check(f"%codemode context {key}=")


def test_two_kernels_never_mix_their_contexts(notebook: Kernel, start_kernel: StartKernel) -> None:
    other = start_kernel()
    notebook.check("%codemode context client_id=acme")
    other.check("%codemode context client_id=globex")
    cell = "%%codemode\nvariable = context['client_id']\nvariable"
    running = [kernel.start(cell) for kernel in (notebook, other)]
    assert [each.finish().value for each in running] == ["'acme'", "'globex'"]
    assert notebook.check("%%codemode\nvariable").value == "'acme'"


# --- status, files, loss ------------------------------------------------------------------------------


def test_the_status_says_where_cells_run_and_within_which_limits(notebook: Kernel) -> None:
    assert re.search(r"^session +none", notebook.check("%codemode status").text(), re.MULTILINE)
    notebook.check("%codemode context client_id=acme")
    notebook.check("%%codemode\n1")
    status = notebook.check("%codemode status").text()
    for pattern in (
        r"^executor +of this notebook, process \d+$",
        r"^backend +bubblewrap$",
        r"^session +open$",
        r"^sandbox +bwrap-\d+$",
        r"^python +3\.\d+\.\d+$",
        r"^context +client_id='acme'$",
        r"^timeout_seconds +30 s +\w+",
        r"^memory_bytes +512 MB +\w+",
    ):
        assert re.search(pattern, status, re.MULTILINE), f"{pattern} is not in\n{status}"


def test_a_file_is_brought_to_the_session(notebook: Kernel, tmp_path: Path) -> None:
    (tmp_path / "towns.csv").write_text("town\nOslo\n")
    put = f"import codemode_kernel\ncodemode_kernel.put_file({str(tmp_path / 'towns.csv')!r}"
    assert notebook.check(f"{put})").value == "'towns.csv'"
    assert notebook.check("%%codemode\nopen('towns.csv').read()").value == r"'town\nOslo\n'"
    assert notebook.check(f"{put}, 'data/t.csv')").value == "'data/t.csv'"
    assert notebook.run(f"{put}, '../../t.csv')").error is not None


def test_a_reset_ends_the_session_with_its_variables_and_files(notebook: Kernel) -> None:
    notebook.check("%%codemode\nkept = 1\nopen('kept.txt', 'w').close()")
    assert "closed" in notebook.check("%codemode reset").text()
    assert "No session" in notebook.check("%codemode reset").text()
    cell = "%%codemode\nimport os\n('kept' in globals(), os.path.exists('kept.txt'))"
    assert notebook.check(cell).value == "(False, False)"


def test_an_executor_that_was_killed_is_told_and_replaced(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    kernel.check("%%codemode\nkept = 1")
    os.kill(executor_of(kernel), signal.SIGKILL)
    ran = kernel.run("%%codemode\nkept")
    assert ran.error is not None and ran.error.ename == "SessionLostError"
    assert "next cell starts a new session" in ran.traceback and ran.traceback.count("\n") == 0
    assert kernel.check("%%codemode\n'kept' in globals()").value == "False"


def test_an_executor_that_is_killed_under_a_cell_is_told_and_replaced(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    kernel.check("%%codemode\n1")
    executor = executor_of(kernel)
    cell = kernel.start("%%codemode\nprint('begun')\nwhile True:\n    pass")
    cell.wait_for(lambda ran: "begun" in ran.text())
    os.kill(executor, signal.SIGKILL)
    ran = cell.finish()
    assert ran.error is not None and ran.error.ename == "SessionLostError"
    assert kernel.check("%%codemode\n6 * 7").value == "42"


def executor_of(kernel: Kernel) -> int:
    match = re.search(r"process (\d+)", kernel.check("%codemode status").text())
    assert match is not None
    return int(match[1])


def test_another_console_of_the_kernel_interrupts_a_running_cell(notebook: Kernel) -> None:
    assert "No cell is running" in notebook.check("%codemode interrupt").text()
    cell = notebook.start("%%codemode\nkept = 1\nprint('begun')\nwhile True:\n    pass")
    cell.wait_for(lambda ran: "begun" in ran.text())
    notebook.run_beside("%codemode interrupt")
    ran = cell.finish()
    assert ran.error is not None and ran.error.ename == "KeyboardInterrupt"
    assert notebook.check("%%codemode\nkept").value == "1"


# --- other executors ----------------------------------------------------------------------------------


def test_an_executor_that_the_environment_names_is_used(start_kernel: StartKernel) -> None:
    executor = LocalExecutor("bubblewrap")
    try:
        kernel = start_kernel(CODEMODE_EXECUTOR_URL=executor.url, CODEMODE_EXECUTOR_API_KEY=executor.api_key)
        assert kernel.check("%%codemode\n6 * 7").value == "42"
        status = kernel.check("%codemode status").text()
        assert re.search(rf"^executor +{re.escape(executor.url)}$", status, re.MULTILINE)
        assert executor.api_key not in status
    finally:
        executor.close()
    ran = kernel.run("%%codemode\n1")
    assert ran.error is not None and ran.error.ename == "ExecutorConnectionError"
    assert ran.traceback.count("\n") == 0


def test_a_named_executor_without_a_key_says_what_is_missing(start_kernel: StartKernel) -> None:
    ran = start_kernel(CODEMODE_EXECUTOR_URL="http://127.0.0.1:9").run("%%codemode\n1")
    assert ran.error is not None and ran.error.ename == "ConfigLoadError"
    assert "CODEMODE_EXECUTOR_API_KEY" in ran.traceback


def test_the_settings_are_listed_and_a_change_of_backend_ends_the_session(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    assert "CodemodeMagics.trust_outputs" in kernel.check("%config CodemodeMagics").text()
    kernel.check("%%codemode\nkept = 1")
    kernel.check("%config CodemodeMagics.backend = 'abacus'")
    assert "abacus" in kernel.run("%%codemode\n1").traceback
    kernel.check("%config CodemodeMagics.backend = 'bubblewrap'")
    assert kernel.check("%%codemode\n'kept' in globals()").value == "False"
    kernel.check("%config CodemodeMagics.timeout = 0.3")
    assert "timeout_seconds=0.3" in kernel.run("%%codemode\nwhile True: pass").traceback
