"""Sessions as their caller sees them."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codemode import Codemode, RuntimeContext
from codemode.errors import (
    ExecutorClientError,
    LimitExceededError,
    OwnerChangedError,
    SessionLostError,
)


def test_variables_and_imports_stay_from_one_execution_to_the_next(codemode: Codemode) -> None:
    with codemode.session() as session:
        first = session.run("import math\nx = 2")
        assert (first.session_state, first.execution_count) == ("kept", 1)
        assert session.execute("math.sqrt(x * 8)") == "4.0"
        assert session.run("_").execution_count == 3


def test_sessions_do_not_see_each_other(codemode: Codemode) -> None:
    with codemode.session() as one, codemode.session() as other:
        one.run("secret = 1; open('file', 'w').write('x')")
        assert "NameError" in str(other.run("secret").error)
        assert other.execute("import os; os.listdir()") == "[]"
        assert one.run("1").sandbox_id != other.run("1").sandbox_id


def test_a_session_works_asynchronously(codemode: Codemode) -> None:
    async def main() -> str:
        async with codemode.session() as session:
            await session.run_async("x = 20")
            return await session.execute_async("x + 1")

    assert asyncio.run(main()) == "21"


def test_executions_of_one_session_take_turns(codemode: Codemode) -> None:
    with codemode.session() as session:
        session.run("running = 0")
        code = """
import time
running += 1
assert running == 1
time.sleep(0.02)
running -= 1
"""
        with ThreadPoolExecutor(5) as threads:
            results = list(threads.map(session.run, [code] * 5))
    assert [result.error for result in results] == [None] * 5


def test_a_timeout_keeps_the_session(codemode: Codemode) -> None:
    with codemode.session() as session:
        session.run("x = 1")
        result = session.run("while True: pass", execution_timeout=0.3)
        assert result.session_state == "kept"
        assert "variables are kept" in str(result.error)
        assert session.execute("x") == "1"


def test_code_that_ignores_the_interrupt_loses_the_session_and_both_errors_say_so(codemode: Codemode) -> None:
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    session = codemode.session()
    result = session.run(code, execution_timeout=0.3)
    assert result.session_state == "lost"
    assert "killed" in str(result.error)
    with pytest.raises(SessionLostError, match="did not stop when interrupted") as caught:
        session.run("1")
    assert caught.value.session_id == session.session_id
    session.close()


def test_a_session_that_is_closed_says_so(codemode: Codemode) -> None:
    session = codemode.session().open()
    assert session.is_open
    session.close()
    session.close()
    assert not session.is_open
    with pytest.raises(SessionLostError, match="closed; open a new one"):
        session.run("1")


def test_the_context_may_change_except_for_the_isolation_keys(codemode: Codemode) -> None:
    codemode.with_context(client_id="acme", request="1")
    with codemode.session() as session:
        assert session.execute("context['request']") == "1"
        later = RuntimeContext({"client_id": "acme", "request": "2"})
        assert session.run("context['request']", context=later).result == "2"
        with pytest.raises(OwnerChangedError, match="open a new session") as caught:
            session.run("1", context=RuntimeContext({"client_id": "other", "user_id": "u"}))
        assert caught.value.keys == ("client_id", "user_id")
        assert session.execute("1") == "1"


def test_limits_of_a_session_hold_for_its_executions(codemode: Codemode) -> None:
    with codemode.session(limits={"memory_bytes": 300 << 20, "output_bytes": 100}) as session:
        result = session.run("print('x' * 1000)")
        assert result.limits["memory_bytes"] == 300 << 20
        assert len(result.stdout) == 100


def test_silent_executions_are_not_counted(codemode: Codemode) -> None:
    with codemode.session() as session:
        session.run("x = 1")
        session.run("x = 2", silent=True)
        assert session.run("x").execution_count == 2


def test_completions_know_the_sessions_variables(codemode: Codemode) -> None:
    with codemode.session() as session:
        session.run("import math\nfrobnicate = 1")
        assert "frobnicate" in session.complete("frob")
        assert session.complete("math.fact") == ["factorial"]
        assert session.complete("math.sq + 1", cursor=7) == ["sqrt"]
        assert session.complete("nothing_like_this.") == []


def test_completion_of_a_busy_session_answers_at_once_with_nothing(codemode: Codemode) -> None:
    begun, done = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        done.wait(20)

    codemode.registry.register_tool("wait", wait)
    with codemode.session() as session:
        thread = threading.Thread(target=session.run, args=("x = 1\ntools.wait()",))
        thread.start()
        assert begun.wait(10)
        assert session.complete("x.bit") == []
        done.set()
        thread.join()
        assert session.complete("x.bit_l") == ["bit_length"]


# --- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, 5_000_001])
def test_a_file_goes_in_and_comes_out_as_it_was(codemode: Codemode, tmp_path: Path, size: int) -> None:
    source = tmp_path / "data.bin"
    source.write_bytes(os.urandom(size))
    with codemode.session() as session:
        assert session.put_file(source) == "data.bin"
        digest = session.execute("import hashlib; hashlib.sha256(open('data.bin', 'rb').read()).hexdigest()")
        import hashlib

        assert digest == hashlib.sha256(source.read_bytes()).hexdigest()
        copied = session.get_file("data.bin", tmp_path / "copy.bin")
    assert copied.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.bin", "data.bin"]


def test_a_file_may_go_into_a_folder_under_another_name(codemode: Codemode, tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("x\n1\n")
    with codemode.session() as session:
        assert session.put_file(source, "data/in/b.csv") == "data/in/b.csv"
        assert session.execute("open('data/in/b.csv').read()") == "x\n1\n"
        # Again, over the old one.
        source.write_text("y\n")
        session.put_file(source, "data/in/b.csv")
        assert session.execute("open('data/in/b.csv').read()") == "y\n"


def test_files_move_while_code_runs(codemode: Codemode, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("moved")
    with codemode.session() as session:
        codemode.registry.register_tool("put", lambda: session.put_file(tmp_path / "in"))
        assert session.execute("tools.put(); open('in').read()") == "moved"


def test_a_file_that_is_not_there_leaves_nothing_here(codemode: Codemode, tmp_path: Path) -> None:
    with codemode.session() as session:
        with pytest.raises(ExecutorClientError, match="No such file"):
            session.get_file("missing", tmp_path / "missing")
        with pytest.raises(FileNotFoundError):
            session.put_file(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_leads_out_is_refused(codemode: Codemode, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with codemode.session() as session, pytest.raises(LimitExceededError, match="leads out"):
        session.put_file(tmp_path / "x", "../../etc/x")


def test_a_missing_file_of_the_callers_is_explained_to_the_code(codemode: Codemode) -> None:
    result = codemode.run("open('sales.csv')")
    assert result.error_details is not None
    assert "put_file" in result.error_details.traceback
