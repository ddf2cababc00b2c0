import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from codemode.core.registry import ComponentAlreadyExistsError, ComponentRegistry
from codemode.tools import default_registry, tool


@pytest.fixture(autouse=True)
def empty_default_registry() -> Iterator[None]:
    default_registry().clear()
    yield
    default_registry().clear()


def test_a_decorated_function_is_registered_and_still_a_function() -> None:
    def weather(location: str) -> str:
        """Get the weather."""
        return location

    assert tool(weather) is weather
    assert weather("Rome") == "Rome"
    assert default_registry().tools == {"weather": weather}
    assert default_registry().tool_binding("weather").description == "Get the weather."


def test_a_coroutine_function_stays_one() -> None:
    @tool
    async def weather(location: str) -> str:
        return location

    assert asyncio.run(weather("Rome")) == "Rome"
    assert default_registry().tool_binding("weather").is_async


def test_what_the_decorator_says_is_what_the_tool_is() -> None:
    registry = ComponentRegistry()

    @tool(
        name="forecast",
        description="Tell tomorrow's weather.",
        input_schema={"properties": {"location": {"enum": ["Rome"]}}},
        output_schema={"type": "string"},
        registry=registry,
    )
    def weather(location: str) -> str:
        return location

    binding = registry.tool_binding("forecast")
    assert binding.description == "Tell tomorrow's weather."
    assert binding.signature == "(location: Literal['Rome'] = ...) -> str"
    assert default_registry().tools == {}


def test_running_the_definition_again_replaces_the_tool() -> None:
    def define(answer: int) -> None:
        @tool
        def weather() -> int:
            return answer

    define(1)
    define(2)
    assert default_registry().tool_binding("weather").call([], {}, None) == 2


def test_another_tool_of_the_name_is_not_replaced_unasked() -> None:
    default_registry().register_tool("weather", lambda: 1)
    with pytest.raises(ComponentAlreadyExistsError):

        @tool
        def weather() -> None: ...

    @tool(name="weather", overwrite=True)
    def other() -> int:
        return 2

    assert default_registry().tools == {"weather": other}


def test_a_method_is_marked_and_registered_with_an_instance() -> None:
    class Station:
        def __init__(self, name: str) -> None:
            self.name = name

        @tool(description="Read the station.")
        def read(self, unit: str) -> str:
            return f"{self.name} {unit}"

    assert default_registry().tools == {}
    assert Station("a").read("c") == "a c"
    registry = ComponentRegistry()
    registry.register_tool("read", Station("b").read)
    binding = registry.tool_binding("read")
    assert (binding.description, binding.signature) == ("Read the station.", "(unit: str) -> str")
    assert binding.call(["f"], {}, None) == "b f"


@pytest.mark.parametrize("thing", [3, "weather", dict, object()])
def test_only_functions_are_decorated(thing: Any) -> None:
    with pytest.raises(TypeError, match="decorates functions"):
        tool(thing)


def test_a_lambda_needs_a_name() -> None:
    nameless: Any = lambda: 1  # noqa: E731
    tool(name="one")(nameless)
    assert default_registry().tools == {"one": nameless}


def test_there_is_one_default_registry() -> None:
    assert default_registry() is default_registry()
