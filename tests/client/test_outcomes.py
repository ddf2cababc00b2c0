"""What an execution gives back, how it fails, and what becomes of it when its client or executor is gone."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from codemode import Codemode, ExecutorClient
from codemode.errors import (
    CodeTimeoutError,
    ContextVariableError,
    ExecutionFailedError,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorTimeoutError,
    LimitExceededError,
)
from tests.conftest import BACKEND

if TYPE_CHECKING:
    from codemode.local import LocalExecutor
    from tests.conftest import MakeClient

# --- results ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text", "value"),
    [
        ("result = 2 + 2", "4", 4),
        ("2 + 2", "4", 4),
        ("result = 1\n'an expression'", "1", 1),
        ("x = 1", "", None),
        ("result = None", "None", None),
        ("", "", None),
        ("# only a comment", "", None),
        ("result = {'a': [1, 2.5, True, None, 'é']}", "{'a': [1, 2.5, True, None, 'é']}", None),
        ("result = (1, 2)", "(1, 2)", [1, 2]),
        ("result = object", "<class 'object'>", None),
        ("result = {1, 2}", "{1, 2}", None),
        ("result = {1: 2}", "{1: 2}", None),
        ("result = float('nan')", "nan", None),
        ("result = ''", "", ""),
        ("result = 0", "0", 0),
        ("result = False", "False", False),
        ("result = '\\ud800'", "?", None),
        ("if True:\n    result = 5", "5", 5),
        ("def f():\n    return 7\nf()", "7", 7),
        ("await __import__('asyncio').sleep(0, 'awaited')", "awaited", "awaited"),
    ],
)
def test_the_result_is_the_variable_or_else_the_last_value(
    codemode: Codemode, code: str, text: str, value: Any
) -> None:
    result = codemode.run(code)
    assert result.success, result.error
    assert result.result == text
    if "{'a'" in code:
        value = {"a": [1, 2.5, True, None, "é"]}
    if "nan" not in code and "ud800" not in code:
        assert result.value == value
        assert type(result.value) is type(value)


def test_a_result_of_an_earlier_execution_does_not_count(codemode: Codemode) -> None:
    with codemode.session() as session:
        assert session.execute("result = 'old'") == "old"
        assert session.execute("x = 1") == ""
        assert session.execute("x + 1") == "2"
        assert session.execute("result") == "old"
        assert session.execute("result = result + 'er'") == "older"
        assert session.execute("result = result") == "older"
        assert session.execute("1 / 1") == "1.0"


def test_a_result_above_its_limit_is_cut_with_a_notice(codemode: Codemode) -> None:
    result = codemode.run("result = 'x' * 5000", limits={"result_bytes": 1000})
    assert result.success
    assert result.result == "x" * 1000
    assert [notice.limit for notice in result.notices] == ["result_bytes"]
    assert "5,000" in result.notices[0].message


def test_output_above_its_limit_is_cut_with_a_notice(codemode: Codemode) -> None:
    result = codemode.run("print('x' * 5000); result = 'ok'", limits={"output_bytes": 1000})
    assert (result.result, result.stdout) == ("ok", "x" * 1000)
    assert [notice.limit for notice in result.notices] == ["output_bytes"]
    assert "4,001" in result.notices[0].message


def test_the_whole_outcome_of_an_execution(codemode: Codemode) -> None:
    codemode.registry.register_tool("ping", lambda: "pong")
    code = """
import sys
print('out')
print('err', file=sys.stderr)
import IPython.display as d
d.display(d.HTML('<b>x</b>'))
tools.ping()
"""
    result = codemode.run(code, correlation_id="req-1", config={"a": 1})
    assert result.success
    assert (result.stdout, result.stderr, result.result) == ("out\n", "err\n", "pong")
    assert [output.kind for output in result.outputs] == ["display_data", "execute_result"]
    assert result.outputs[0].data["text/html"] == "<b>x</b>"
    assert result.correlation_id == "req-1"
    assert [call.name for call in result.tool_calls] == ["ping"]
    assert 0 < result.duration_ms < 10_000
    assert (result.error, result.error_details, result.session_state) == (None, None, "none")
    assert result.backend == BACKEND
    assert result.sandbox_id
    assert result.limits["memory_bytes"] > 0


# --- failures -----------------------------------------------------------------------------------------


def test_code_that_fails_raises_with_the_traceback_of_the_sandbox(codemode: Codemode) -> None:
    with pytest.raises(ExecutionFailedError, match="ZeroDivisionError: division by zero") as caught:
        codemode.execute("def f(x):\n    return 1 / x\n\nf(0)")
    assert isinstance(caught.value, ExecutorClientError)
    assert caught.value.result is not None
    details = caught.value.result.error_details
    assert details is not None
    assert (details.type, details.message, details.line) == ("ZeroDivisionError", "division by zero", 2)
    assert "return 1 / x" in details.traceback
    assert "codemode_sandbox" not in details.traceback
    assert "".join(caught.value._render_traceback_())


def test_the_low_level_client_returns_the_failure(executor: LocalExecutor) -> None:
    with ExecutorClient(executor.url, executor.api_key) as client:
        failed = client.execute("1 / 0", [], {})
        assert (failed.success, failed.error) == (False, "ZeroDivisionError: division by zero")
        late = client.execute("while True: pass", [], {}, execution_timeout=0.3)
        assert not late.success
        assert late.error_details is not None
        assert (late.error_details.type, late.error_details.limit) == ("TimeoutError", "timeout_seconds")


def test_code_that_runs_too_long_raises_a_timeout(codemode: Codemode) -> None:
    with pytest.raises(ExecutorTimeoutError, match=r"timeout_seconds=0\.3") as caught:
        codemode.execute("while True: pass", execution_timeout=0.3)
    assert isinstance(caught.value, (CodeTimeoutError, TimeoutError))
    assert codemode.execute("1 + 1") == "2"


def test_a_timeout_error_of_the_codes_own_is_no_timeout(codemode: Codemode) -> None:
    with pytest.raises(ExecutionFailedError) as caught:
        codemode.execute("raise TimeoutError('mine')")
    assert not isinstance(caught.value, ExecutorTimeoutError)


def test_syntax_errors_show_where(codemode: Codemode) -> None:
    result = codemode.run("x = 1\ny = = 2")
    assert result.error_details is not None
    assert (result.error_details.type, result.error_details.line) == ("SyntaxError", 2)
    assert "y = = 2" in result.error_details.traceback


def test_code_above_the_configured_length_is_refused_before_it_is_sent(
    executor: LocalExecutor, connect: MakeClient
) -> None:
    codemode = connect(executor, max_code_length=10)
    with pytest.raises(LimitExceededError, match="max_code_length=10") as caught:
        codemode.execute("result = 12345")
    assert caught.value.limit == "max_code_length"


def test_what_cannot_be_sent_is_named(codemode: Codemode) -> None:
    with pytest.raises(TypeError, match="code must be a str"):
        codemode.executor_client.execute(b"1", [], {})  # type: ignore[arg-type]
    with pytest.raises(LimitExceededError, match="config"):
        codemode.run("1", config={"a": object()})
    with pytest.raises(LimitExceededError, match="no limit 'memory'"):
        codemode.run("1", limits={"memory": 1})
    with pytest.raises(LimitExceededError, match=r"limits\.processes"):
        codemode.run("1", limits={"processes": -1})
    with pytest.raises(ContextVariableError, match="connection"):
        codemode.with_context(connection=object()).run("1")


# --- life ---------------------------------------------------------------------------------------------


def test_closing_is_idempotent_and_nothing_works_afterwards(
    executor: LocalExecutor, connect: MakeClient
) -> None:
    codemode = connect(executor)
    session = codemode.session().open()
    assert codemode.execute("1") == "1"
    codemode.close()
    codemode.close()
    asyncio.run(codemode.close_async())
    with pytest.raises(ExecutorClientError, match="closed"):
        codemode.execute("1")
    with pytest.raises(ExecutorClientError, match="closed"):
        asyncio.run(codemode.execute_async("1"))
    with pytest.raises(ExecutorClientError, match="closed"):
        codemode.session().open()
    with pytest.raises(ExecutorClientError, match="closed"):
        session.complete("x.")
    assert not codemode.health_check()
    assert not codemode.ready_check()


def test_closing_ends_what_runs(executor: LocalExecutor, connect: MakeClient) -> None:
    codemode = connect(executor)
    begun = threading.Event()
    codemode.registry.register_tool("begun", begun.set)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            codemode.execute("import time\ntools.begun()\ntime.sleep(60)")
        except ExecutorConnectionError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(10)
    codemode.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(errors) == 1


def test_an_executor_that_is_not_there_is_neither_healthy_nor_ready() -> None:
    with ExecutorClient("http://127.0.0.1:9", "secret", timeout=2) as client:
        assert not client.health_check()
        assert not client.ready_check()


def test_an_executor_that_does_not_know_the_key_is_healthy_but_not_ready(executor: LocalExecutor) -> None:
    with ExecutorClient(executor.url, "another-key-than-the-right-one") as client:
        assert client.health_check()
        assert not client.ready_check()


def test_readiness_is_proved_with_a_tool_though_none_is_registered(codemode: Codemode) -> None:
    assert codemode.registry.tools == {}
    assert codemode.ready_check()
    assert codemode.registry.tools == {}


def test_correlation_ids_reach_results_and_errors(executor: LocalExecutor, connect: MakeClient) -> None:
    codemode = connect(executor, correlation_id_prefix="shop")
    assert codemode.run("1").correlation_id.startswith("shop-")
    assert codemode.run("1").correlation_id != codemode.run("1").correlation_id
    with pytest.raises(ExecutionFailedError, match=r"\[correlation id: shop-") as caught:
        codemode.execute("1 / 0")
    assert caught.value.correlation_id.startswith("shop-")
    assert connect(executor, include_correlation_id=False).run("1").correlation_id == ""
