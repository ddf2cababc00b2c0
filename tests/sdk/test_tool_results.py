import asyncio
import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import subprocess
import sys
import types
import uuid
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # no stubs are needed for this
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from codemode.errors import ToolResultError
from codemode.tools import encode_result


class Model(BaseModel):
    when: datetime.date
    tags: set[str] = set()


@dataclasses.dataclass
class Point:
    x: int
    inner: Any = None


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


Pair = collections.namedtuple("Pair", "a b")  # as tools return them
DAY = datetime.date(2026, 1, 2)
UTC = datetime.UTC


def through(value: Any) -> Any:
    return json.loads(encode_result(value))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_json_comes_through_unchanged(value: Any) -> None:
    assert through(value) == value


def test_numbers_that_are_not_finite_survive() -> None:
    nan, infinite, negative = through([math.nan, math.inf, -math.inf])
    assert math.isnan(nan)
    assert (infinite, negative) == (math.inf, -math.inf)
    assert math.isnan(through(pd.DataFrame({"x": [1.0, math.nan]}))[1]["x"])
    assert math.isnan(through(np.array([math.nan]))[0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, 2), [1, 2]),
        (Pair(1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset("b"), ["b"]),
        (collections.deque([1]), [1]),
        (range(3), [0, 1, 2]),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (DAY, "2026-01-02"),
        (datetime.datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02T03:04:00+00:00"),
        (datetime.time(3, 4), "03:04:00"),
        (datetime.timedelta(minutes=1.5), 90.0),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        (Model(when=DAY, tags={"a"}), {"when": "2026-01-02", "tags": ["a"]}),
        (Point(1, Point(2)), {"x": 1, "inner": {"x": 2, "inner": None}}),
        ({DAY: 1, Colour.RED: 2, None: 3, 4: 5}, {"2026-01-02": 1, "red": 2, "null": 3, "4": 5}),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.str_("x"), "x"),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array(["2026-01-02", "NaT"], "datetime64[ns]"), ["2026-01-02T00:00:00", None]),
        (np.timedelta64(90, "s"), 90.0),
        ({np.int64(1): np.array(2)}, {"1": 2}),
        (pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
        (pd.NaT, None),
        (pd.NA, None),
        (pd.Period("2026-01"), "2026-01"),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Series([1, 2], index=["a", "b"]), {"a": 1, "b": 2}),
        (pd.Series([1, 2], index=["a", "a"]), [{"index": "a", "0": 1}, {"index": "a", "0": 2}]),
        (pd.Index([1, 2]), [1, 2]),
        (pd.Categorical(["a"]), ["a"]),
        (pd.DataFrame({"a": [1], "day": [pd.Timestamp(DAY)]}), [{"a": 1, "day": "2026-01-02T00:00:00"}]),
        (pd.DataFrame({1: [None, "x"]}), [{"1": None}, {"1": "x"}]),
        (pd.DataFrame({"n": pd.array([1, None], "Int64")}), [{"n": 1}, {"n": None}]),
        (pd.DataFrame({"day": [pd.Timestamp(DAY), None]}), [{"day": "2026-01-02T00:00:00"}, {"day": None}]),
        (pd.Series(["x", None]), ["x", None]),
        (
            pd.DataFrame({"city": ["a", "a"], "n": [1, 2]}).groupby("city").sum(),
            [{"city": "a", "n": 3}],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_become_the_json_that_says_the_same(value: Any, expected: Any) -> None:
    assert through(value) == expected
    # Alone and within other values, on the fast way and on the slow one.
    assert through({"x": [value]}) == {"x": [expected]}
    assert through({DAY: [value]}) == {"2026-01-02": [expected]}


@pytest.mark.parametrize(
    ("value", "path", "complaint"),
    [
        (object(), "result", "of type object, which cannot be sent"),
        ({"x": [1, 2, 3, object()]}, "result['x'][3]", "of type object"),
        ({"x": Point(1, {2: b"data"})}, "result['x']['inner'][2]", "b64encode"),
        ([1 + 2j], "result[0]", "value.real"),
        ((item for item in [1]), "result", r"return list\(...\) of it"),
        (ValueError("x"), "result", "raise it"),
        (lambda: 1, "result", "of type function"),
        (Model, "result", "cannot be sent"),
        ({"a": {(1, 2): 3}}, "result['a']", r"a key of type tuple \('\(1, 2\)'\)"),
        ({DAY: 1, "2026-01-02": 2}, "result", "two keys that are both '2026-01-02'"),
        (np.array([b"x"]), "result", "numpy.ndarray"),
        (np.array([1j]), "result", "numpy.ndarray"),
        ([pd.DataFrame([[1, 2]], columns=["a", "a"])], "result[0]", "two columns of the same name"),
        (pd.DataFrame({"a": [object()]}), "result[0]['a']", "of type object"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_sent_is_named_with_its_place(value: Any, path: str, complaint: str) -> None:
    with pytest.raises(ToolResultError, match=complaint) as caught:
        encode_result(value)
    assert caught.value.path == path
    assert str(caught.value).startswith(path)


def test_a_coroutine_is_named_with_what_to_do() -> None:
    coroutine = asyncio.sleep(0)
    with pytest.raises(ToolResultError, match="await it in the tool"):
        encode_result([coroutine])
    coroutine.close()


def test_a_cycle_is_named_with_its_place() -> None:
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    with pytest.raises(ToolResultError, match=r"result\['a'\]\[0\] contains itself"):
        encode_result(value)


def test_the_same_object_twice_is_no_cycle() -> None:
    shared = {DAY: 1}
    assert through([shared, shared]) == [{"2026-01-02": 1}] * 2


def test_nesting_without_end_is_refused() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ToolResultError, match="nested too deeply"):
        encode_result(value)


def test_text_that_utf8_cannot_carry_is_escaped() -> None:
    assert encode_result("\ud800") == b'"\\ud800"'
    assert encode_result("é") == '"é"'.encode()


def test_a_result_beyond_the_limit_names_it() -> None:
    assert encode_result("x" * 8, max_bytes=10)
    with pytest.raises(
        ToolResultError, match="11 bytes of JSON, above the limit message_bytes of 10"
    ) as caught:
        encode_result("x" * 9, max_bytes=10)
    assert caught.value.limit == "message_bytes"


def test_numpy_and_pandas_are_not_imported_for_nothing() -> None:
    program = (
        "import sys, datetime; from codemode.tools import encode_result\n"
        "encode_result({'a': datetime.date(2026, 1, 2)})\n"
        "print(sorted({'numpy', 'pandas', 'jsonschema', 'yaml', 'pydantic_settings'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
