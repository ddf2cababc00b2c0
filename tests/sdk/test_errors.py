import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from codemode import errors
from codemode.errors import (
    CodemodeError,
    CodeTimeoutError,
    ComponentNotFoundError,
    ConfigFileNotFoundError,
    ExecutionFailedError,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorTimeoutError,
    ToolError,
    ToolNotFoundError,
)
from codemode.results import ErrorDetails, ExecutionResult

EVERY_ERROR = [getattr(errors, name) for name in errors.__all__]


def failed(**details: Any) -> ExecutionResult:
    return ExecutionResult(
        success=False,
        error="ZeroDivisionError: division by zero",
        error_details=ErrorDetails(type="ZeroDivisionError", message="division by zero", **details),
        correlation_id="cm-1",
    )


def test_everything_exported_is_in_the_tree_and_the_drawing_of_it() -> None:
    for error in EVERY_ERROR:
        assert issubclass(error, CodemodeError)
        assert error.__name__ in errors.__doc__


def test_no_error_is_left_out_of_the_exports() -> None:
    defined = {
        name for name, item in vars(errors).items() if isinstance(item, type) and issubclass(item, Exception)
    }
    assert defined == set(errors.__all__)


@pytest.mark.parametrize("error", EVERY_ERROR)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_errors_survive_pickling_and_copying(error: type[CodemodeError], clone: Callable[[Any], Any]) -> None:
    original = error("it broke", correlation_id="cm-7")
    cloned = clone(original)
    assert type(cloned) is error
    assert vars(cloned) == vars(original)
    assert str(cloned) == str(original) == "it broke [correlation id: cm-7]"


def test_data_survives_pickling() -> None:
    original = ExecutorConnectionError("gone", status="UNAVAILABLE", outcome_unknown=True)
    cloned = pickle.loads(pickle.dumps(original))
    assert (cloned.status, cloned.outcome_unknown) == ("UNAVAILABLE", True)


def test_a_failed_execution_survives_pickling_with_its_result() -> None:
    cloned = pickle.loads(pickle.dumps(ExecutionFailedError("boom", result=failed())))
    assert cloned.result == failed()


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ExecutorConnectionError, ConnectionError),
        (ExecutorTimeoutError, TimeoutError),
        (ComponentNotFoundError, KeyError),
        (errors.ComponentAlreadyExistsError, ValueError),
        (errors.InvalidComponentError, ValueError),
        (errors.ToolArgumentError, ValueError),
        (errors.ToolSchemaError, ValueError),
        (errors.ConfigLoadError, ValueError),
        (ConfigFileNotFoundError, FileNotFoundError),
        (CodeTimeoutError, TimeoutError),
        (CodeTimeoutError, ExecutionFailedError),
        (ToolNotFoundError, ToolError),
        (ToolNotFoundError, KeyError),
    ],
)
def test_errors_are_what_callers_already_catch(error: type[CodemodeError], builtin: type[Exception]) -> None:
    assert issubclass(error, builtin)


def test_a_key_error_shows_its_message_and_not_the_repr_of_it() -> None:
    assert str(ComponentNotFoundError("no tool named 'x'")) == "no tool named 'x'"


def test_a_correlation_id_that_the_message_has_is_not_repeated() -> None:
    assert str(ExecutorClientError("request cm-9 failed", correlation_id="cm-9")) == "request cm-9 failed"


def test_a_failed_execution_takes_the_correlation_id_of_its_result() -> None:
    error = ExecutionFailedError("ZeroDivisionError: division by zero", result=failed())
    assert str(error) == "ZeroDivisionError: division by zero [correlation id: cm-1]"


def test_ipython_is_given_the_traceback_of_the_sandbox() -> None:
    error = ExecutionFailedError("boom", result=failed(traceback_lines=("\x1b[31mline 1\x1b[0m", "line 2")))
    assert error._render_traceback_() == ["\x1b[31mline 1\x1b[0m", "line 2"]


def test_ipython_is_given_the_plain_traceback_where_there_is_no_coloured_one() -> None:
    error = ExecutionFailedError("boom", result=failed(traceback="Traceback:\n  line 1"))
    assert error._render_traceback_() == ["Traceback:", "  line 1"]


def test_ipython_is_given_the_message_where_there_is_no_traceback() -> None:
    assert ExecutionFailedError("boom", correlation_id="cm-2")._render_traceback_() == [
        "boom [correlation id: cm-2]"
    ]
