import dataclasses
import json
import math
import pickle

import pytest

from codemode.errors import ExecutionFailedError, ExecutorTimeoutError
from codemode.results import ErrorDetails, ExecutionResult, LimitNotice, RichOutput, ToolCallRecord


def failure(type_: str, limit: str = "") -> ExecutionResult:
    details = ErrorDetails(type=type_, message="it took too long", limit=limit)
    return ExecutionResult(success=False, error=str(details), error_details=details, correlation_id="cm-1")


def test_a_success_raises_nothing_and_returns_itself() -> None:
    result = ExecutionResult(success=True, result="4")
    assert result.raise_for_error() is result


def test_a_failure_raises_an_error_that_carries_it() -> None:
    result = failure("ValueError")
    with pytest.raises(ExecutionFailedError, match="ValueError: it took too long") as caught:
        result.raise_for_error()
    assert caught.value.result is result
    assert caught.value.correlation_id == "cm-1"
    assert not isinstance(caught.value, ExecutorTimeoutError)


def test_code_that_reached_its_time_limit_raises_a_timeout_error() -> None:
    with pytest.raises(ExecutorTimeoutError) as caught:
        failure("TimeoutError", "timeout_seconds").raise_for_error()
    assert isinstance(caught.value, ExecutionFailedError)


def test_a_timeout_error_that_the_code_raised_is_no_time_limit() -> None:
    with pytest.raises(ExecutionFailedError) as caught:
        failure("TimeoutError").raise_for_error()
    assert not isinstance(caught.value, TimeoutError)


def test_a_failure_without_details_still_raises() -> None:
    with pytest.raises(ExecutionFailedError, match="without saying why"):
        ExecutionResult(success=False).raise_for_error()


def test_a_result_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExecutionResult(success=True).success = False  # type: ignore[misc]


def test_to_dict_is_strict_json_whatever_the_value() -> None:
    nested: list[object] = []
    nested.append(nested)
    result = ExecutionResult(
        success=True,
        value={"a": (1, math.nan), 2: object, "self": nested, "inf": math.inf},
        outputs=[RichOutput("display_data", {"text/plain": "x"})],
        tool_calls=[ToolCallRecord(call_id=1, name="weather")],
        notices=[LimitNotice(limit="output_bytes", message="cut")],
        error_details=ErrorDetails(type="X", traceback_lines=("a",)),
    )
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["value"]["a"] == [1, None]
    assert plain["value"]["2"] == "<class 'object'>"
    assert plain["value"]["inf"] is None
    assert plain["tool_calls"][0]["name"] == "weather"
    assert plain["outputs"][0]["data"] == {"text/plain": "x"}
    assert plain["error_details"]["traceback_lines"] == ["a"]
    assert plain["notices"] == [{"limit": "output_bytes", "message": "cut"}]


def test_to_dict_has_every_field() -> None:
    names = {item.name for item in dataclasses.fields(ExecutionResult)}
    assert ExecutionResult(success=True).to_dict().keys() == names


def test_repr_is_one_short_line() -> None:
    result = ExecutionResult(
        success=True,
        result="x" * 5000,
        stdout="y" * 5000,
        outputs=[RichOutput("display_data", {"image/png": "z" * 5000})],
        tool_calls=[ToolCallRecord(call_id=1, name="a"), ToolCallRecord(call_id=2, name="a")],
        duration_ms=12.345,
        correlation_id="cm-1",
    )
    assert len(repr(result)) < 160
    assert repr(result).endswith("1 output, 2 tool calls, 12.3 ms, cm-1>")


def test_repr_of_a_failure_says_why() -> None:
    assert repr(failure("ValueError")).startswith("<ExecutionResult failed, error='ValueError: it took too")


def test_repr_says_that_a_session_was_lost() -> None:
    assert "session lost" in repr(ExecutionResult(success=False, session_state="lost"))


def test_results_survive_pickling() -> None:
    assert pickle.loads(pickle.dumps(failure("ValueError"))) == failure("ValueError")
