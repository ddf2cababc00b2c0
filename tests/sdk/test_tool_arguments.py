import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, Field, field_validator

from codemode.errors import ToolArgumentError, ToolSchemaError
from codemode.tools import ToolBinding


class WeatherInput(BaseModel):
    location: str
    days: int = 3


OBJECT = {
    "type": "object",
    "properties": {
        "location": {"type": "string"},
        "days": {"type": "integer", "minimum": 1},
        "where": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
    },
    "required": ["location"],
}


def everything(**arguments: Any) -> dict[str, Any]:
    return arguments


def bind(tool: Any = everything, schema: Any = WeatherInput) -> ToolBinding:
    return ToolBinding.of("weather", tool, input_schema=schema)


def refused(binding: ToolBinding, *args: Any, **kwargs: Any) -> ToolArgumentError:
    with pytest.raises(ToolArgumentError) as caught:
        binding.call(args, kwargs, None)
    assert caught.value.tool == "weather"
    assert f"Call it as weather{binding.signature}" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("schema", [WeatherInput, OBJECT])
def test_arguments_by_position_get_the_names_of_the_schema(schema: Any) -> None:
    assert bind(schema=schema).call(["Rome", 2], {}, None) == {"location": "Rome", "days": 2}


def test_arguments_by_position_get_the_names_of_the_function_first() -> None:
    def run(days: int, location: str) -> tuple[int, str]:
        return days, location

    assert bind(run).call([2], {"location": "Rome"}, None) == (2, "Rome")


def test_a_models_values_are_passed_and_not_what_came() -> None:
    class Input(BaseModel):
        day: datetime.date
        inner: WeatherInput

    given_ = {"day": "2026-01-02", "inner": {"location": "Rome", "days": "4"}}
    passed = bind(schema=Input).call([], given_, None)
    assert passed == {"day": datetime.date(2026, 1, 2), "inner": WeatherInput(location="Rome", days=4)}


def test_a_models_defaults_are_passed_where_the_tool_takes_them() -> None:
    assert bind().call(["Rome"], {}, None) == {"location": "Rome", "days": 3}
    assert bind(lambda location: location).call(["Rome"], {}, None) == "Rome"
    assert bind(lambda location, days=99: days).call(["Rome"], {}, None) == 3


def test_a_function_keeps_its_own_defaults_without_a_schema() -> None:
    sentinel = object()

    def run(a: int, b: Any = sentinel) -> bool:
        return b is sentinel

    assert ToolBinding.of("weather", run).call([1], {}, None) is True


def test_hints_are_honoured_without_a_schema() -> None:
    def run(day: datetime.date, *more: int, count: int = 0, **rest: str) -> tuple[Any, ...]:
        return day, more, count, rest

    binding = ToolBinding.of("weather", run)
    assert binding.call(["2026-01-02", 8, 9], {"count": "5", "x": "y"}, None) == (
        datetime.date(2026, 1, 2),
        (8, 9),
        5,
        {"x": "y"},
    )


def test_positional_only_parameters_are_filled() -> None:
    def run(a: int, /, b: int) -> int:
        return a - b

    assert ToolBinding.of("weather", run).call([], {"b": 1, "a": 3}, None) == 2


@pytest.mark.parametrize("schema", [WeatherInput, OBJECT, None])
def test_a_missing_argument_is_named(schema: Any) -> None:
    def run(location: str, days: int = 3, where: Any = None) -> None: ...

    error = refused(bind(run, schema), days=2)
    assert "missing 'location'" in str(error)
    assert error.fields == ("location",)


@pytest.mark.parametrize("schema", [WeatherInput, OBJECT, {**OBJECT, "additionalProperties": False}, None])
def test_an_unexpected_argument_is_named_with_what_was_meant(schema: Any) -> None:
    def run(location: str, days: int = 3, where: Any = None) -> None: ...

    error = refused(bind(run, schema), "Rome", dayz=2)
    assert "unexpected 'dayz' (did you mean 'days'?)" in str(error)
    assert error.fields == ("dayz",)


@pytest.mark.parametrize("schema", [WeatherInput, OBJECT, None])
def test_an_argument_of_the_wrong_type_is_named(schema: Any) -> None:
    def run(location: str, days: int = 3, where: Any = None) -> None: ...

    error = refused(bind(run, schema), "Rome", days="many")
    assert "days: " in str(error)
    assert error.fields == ("days",)


def test_a_field_within_an_argument_is_named_by_its_path() -> None:
    error = refused(bind(schema=OBJECT), "Rome", where={"y": 1})
    assert error.fields == ("where.x",)
    error = refused(bind(schema=OBJECT), "Rome", where={"x": "1"})
    assert error.fields == ("where.x",)


def test_an_unknown_name_and_the_missing_one_are_both_told() -> None:
    assert refused(bind(), city="Rome").fields == ("city", "location")


def test_too_many_positional_arguments_are_refused() -> None:
    assert "at most 2 positional arguments, and 3 were given" in str(refused(bind(), "Rome", 1, 2))


def test_keyword_only_parameters_take_none_by_position() -> None:
    def run(*, location: str) -> None: ...

    assert "keyword arguments only" in str(refused(ToolBinding.of("weather", run), "Rome"))


def test_an_argument_given_twice_is_refused() -> None:
    assert refused(bind(), "Rome", location="Paris").fields == ("location",)


def test_a_validator_of_the_model_is_heard() -> None:
    class Input(BaseModel):
        location: str

        @field_validator("location")
        @classmethod
        def check(cls, location: str) -> str:
            raise ValueError("no weather there")

    assert "location: Value error, no weather there" in str(refused(bind(schema=Input), "x"))


def test_a_model_that_allows_other_names_passes_them_on() -> None:
    class Input(BaseModel, extra="allow"):
        location: str

    assert bind(schema=Input).call([], {"location": "x", "y": 1}, None) == {"location": "x", "y": 1}
    assert refused(bind(lambda location: None, Input), "x", y=1).fields == ("y",)


def test_a_models_aliases_are_what_callers_use() -> None:
    class Input(BaseModel):
        start: str = Field(alias="from")
        end: str = Field(validation_alias=AliasChoices("to", "until"))

    passed = bind(schema=Input).call([], {"from": "a", "until": "b"}, None)
    assert passed == {"start": "a", "end": "b"}


def test_a_refusal_is_bounded_whatever_was_sent() -> None:
    error = refused(bind(schema=OBJECT), location=["x" * 100_000] * 10, where={"x": "y" * 100_000})
    assert len(str(error)) < 2000
    error = refused(bind(), **{f"unknown{number}": 1 for number in range(1000)})
    assert "more" in str(error)
    assert len(str(error)) < 2000


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    schema = {"properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}}
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in str(refused(bind(schema=schema), x=deep))


def test_a_reference_to_an_address_is_not_fetched() -> None:
    schema = {"properties": {"x": {"$ref": "http://127.0.0.1:9/schema"}}}
    with pytest.raises(ToolSchemaError, match=r"'http://127.0.0.1:9/schema', which is not in it"):
        bind(schema=schema).call([], {"x": 1}, None)


@given(
    st.lists(st.integers(), max_size=4),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(), max_size=4),
)
def test_arguments_arrive_as_python_would_pass_them(args: list[int], kwargs: dict[str, int]) -> None:
    def run(a: int, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> tuple[Any, ...]:
        return a, b, rest, c, d, more

    binding = ToolBinding.of("weather", run)
    try:
        expected = run(*args, **kwargs)
    except TypeError:
        with pytest.raises(ToolArgumentError):
            binding.call(args, kwargs, None)
    else:
        assert binding.call(args, kwargs, None) == expected
