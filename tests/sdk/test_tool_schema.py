import datetime
import enum
import functools
import socket
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, RootModel

from codemode.errors import ToolSchemaError
from codemode.tools import ToolBinding
from codemode.tools.signature import json_type_text, signature_text


class WeatherInput(BaseModel):
    location: str = Field(..., description="City name")
    units: str = Field("celsius", description="Temperature units")


class WeatherOutput(BaseModel):
    temperature: float


class Colour(enum.Enum):
    RED = "red"


def bind(tool: Any, **options: Any) -> ToolBinding:
    return ToolBinding.of("weather", tool, **options)


def test_a_model_gives_its_schema_and_signature() -> None:
    def run(location: str, units: str) -> None: ...

    binding = bind(run, input_schema=WeatherInput, output_schema=WeatherOutput)
    assert binding.input_schema["properties"]["location"] == {"description": "City name", "type": "string"}
    assert binding.input_schema["required"] == ["location"]
    assert binding.output_schema is not None
    assert binding.output_schema["properties"] == {"temperature": {"type": "number"}}
    assert binding.signature == "(location: str, units: str = 'celsius') -> dict"


def test_a_function_gives_its_parameters() -> None:
    def weather(
        location: str, *, days: int = 3, units: Literal["c", "f"] = "c", tags: list[str] | None = None
    ) -> dict[str, float]:
        return {}

    binding = bind(weather)
    assert binding.signature == (
        "(location: str, *, days: int = 3, units: Literal['c', 'f'] = 'c', tags: list[str] | None = None)"
        " -> dict[str, float]"
    )
    assert binding.input_schema["required"] == ["location"]
    assert binding.input_schema["additionalProperties"] is False


def test_a_signature_shows_what_code_passes_and_not_what_the_function_gets() -> None:
    def plan(day: datetime.date, where: WeatherInput, colour: Colour, blob: Any = None) -> WeatherOutput:
        raise NotImplementedError

    assert bind(plan).signature == (
        "(day: str, where: dict, colour: Literal['red'], blob: Any = None) -> dict"
    )


@pytest.mark.parametrize(
    "documentation",
    [
        "Get the weather.\n\n    Args:\n        location: City\n            name.\n",
        "Get the weather.\n\n    Parameters\n    ----------\n    location : str\n        City name.\n",
        "Get the weather.\n\n    :param location: City name.\n",
    ],
    ids=["google", "numpy", "sphinx"],
)
def test_a_docstring_describes_the_tool_and_its_parameters(documentation: str) -> None:
    def weather(location: str) -> None: ...

    weather.__doc__ = documentation
    binding = bind(weather)
    assert binding.description == "Get the weather."
    assert binding.input_schema["properties"]["location"]["description"] == "City name."


def test_a_hint_says_more_than_a_docstring() -> None:
    def weather(location: Annotated[str, Field(min_length=2)]) -> None: ...

    assert bind(weather).input_schema["properties"]["location"]["minLength"] == 2


def test_an_objects_description_comes_before_docstrings() -> None:
    class Described:
        """Of the class."""

        description = "Its own."

        def run(self) -> None:
            """Of the method."""

    class Documented:
        """Of the class."""

        def run(self) -> None:
            """Of the method."""

    class Plain:
        def run(self) -> None:
            """Of the method."""

    assert bind(Described(), description="Given.").description == "Given."
    assert bind(Described()).description == "Its own."
    assert bind(Documented()).description == "Of the class."
    assert bind(Plain()).description == "Of the method."


def test_nobody_has_to_describe_anything() -> None:
    assert bind(lambda: None).description == ""


def test_a_partial_is_described_by_its_function() -> None:
    def weather(units: str, location: str) -> None:
        """Get it."""

    binding = bind(functools.partial(weather, "celsius"))
    assert (binding.description, binding.signature) == ("Get it.", "(location: str) -> None")


def test_names_that_a_model_could_not_have_are_parameters_like_others() -> None:
    def run(json: int, _private: int, model_config: int, copy: int = 1) -> int:
        return json + _private + model_config + copy

    binding = bind(run)
    assert list(binding.input_schema["properties"]) == ["json", "_private", "model_config", "copy"]
    assert binding.call([1, 2], {"model_config": 3}, None) == 7


def test_a_hint_that_means_nothing_in_json_takes_anything_and_spoils_no_other() -> None:
    def run(
        connection: socket.socket,
        missing: "NotDefinedAnywhere",  # type: ignore[name-defined]  # noqa: F821
        number: int,
    ) -> socket.socket:
        return connection

    binding = bind(run)
    assert binding.signature == "(connection: Any, missing: Any, number: int)"
    assert binding.output_schema is None


def test_a_default_that_json_cannot_carry_is_optional_and_not_shown() -> None:
    nothing = object()

    def run(started: Any = nothing, big: str = "x" * 1000) -> None: ...

    binding = bind(run)
    assert binding.signature == "(started: Any = ..., big: str = ...) -> None"
    assert "required" not in binding.input_schema


def test_none_is_allowed_where_it_is_the_default() -> None:
    def run(units: str = None) -> str | None:  # type: ignore[assignment]  # noqa: RUF013  # common
        return units

    assert bind(run).call([], {"units": None}, None) is None


def test_builtins_without_a_signature_take_anything() -> None:
    assert bind(max).signature == "(*args, **kwargs)"
    assert bind(max).call([3, 7], {}, None) == 7


def test_a_given_schema_is_copied() -> None:
    schema: dict[str, Any] = {"properties": {"a": {"type": "integer"}}}
    binding = bind(lambda a: a, input_schema=schema)
    schema["properties"]["a"]["type"] = "string"
    assert binding.input_schema == {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"type": "string"}, "has type 'string'"),
        ({"type": "nonsense"}, "is not a JSON Schema"),
        ({"properties": {"a": {"minimum": "x"}}}, r"is not a JSON Schema: \$.properties.a.minimum"),
        ({"properties": {"a": object()}}, "is not JSON"),
        (RootModel[list[int]], "has type 'array'"),
        (WeatherInput(location="x", units="c"), "of type WeatherInput"),
    ],
)
def test_an_input_schema_that_is_not_usable_is_refused(schema: Any, complaint: str) -> None:
    with pytest.raises(ToolSchemaError, match=complaint):
        bind(lambda **anything: None, input_schema=schema)


def test_a_model_with_a_field_that_json_cannot_carry_is_refused() -> None:
    class Input(BaseModel, arbitrary_types_allowed=True):
        connection: socket.socket

    with pytest.raises(ToolSchemaError, match="input_schema Input of tool 'weather' has a field"):
        bind(lambda connection: None, input_schema=Input)


@pytest.mark.parametrize(
    "schema", [WeatherInput, {"properties": {"location": {}, "units": {}}, "required": ["location"]}]
)
def test_a_schema_that_the_tool_could_not_be_called_by_is_refused(schema: Any) -> None:
    with pytest.raises(ToolSchemaError, match=r"requires 'location'.*the tool takes \(city\)"):
        bind(lambda city: None, input_schema=schema)
    with pytest.raises(ToolSchemaError, match="lacks 'city', which the tool needs"):
        bind(lambda location, city: None, input_schema=schema)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "array", "items": {"type": "integer"}}, "list[int]"),
        ({"type": ["string", "null"]}, "str | None"),
        ({"anyOf": [{"type": "integer"}, {"type": "integer"}, {"type": "null"}]}, "int | None"),
        ({"const": 3}, "Literal[3]"),
        ({"enum": list(range(50)), "type": "integer"}, "int"),
        ({"$ref": "#/$defs/a~1b"}, "bool"),
        ({"$ref": "#/$defs/loop"}, "Any"),
        ({"$ref": "https://example.com/x"}, "Any"),
        ({"allOf": [{"type": "number"}]}, "float"),
        (True, "Any"),
        ({}, "Any"),
    ],
)
def test_json_types_read_as_python_types(schema: Any, text: str) -> None:
    root = {"$defs": {"a/b": {"type": "boolean"}, "loop": {"$ref": "#/$defs/loop"}}}
    assert json_type_text(schema, root) == text


def test_a_signature_is_valid_python_whatever_the_order() -> None:
    schema = {"properties": {"a": {"default": 1}, "b": {}, "not-a-name": {}, "class": {}}, "required": ["b"]}
    text = signature_text(schema, None)
    assert text == "(a: Any = 1, *, b: Any, **kwargs)"
    compile(f"def f{text}: ...", "<signature>", "exec")
