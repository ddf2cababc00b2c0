import threading
from typing import Any

import pytest

from codemode.core.registry import (
    ComponentAlreadyExistsError,
    ComponentNotFoundError,
    ComponentRegistry,
)
from codemode.errors import ToolNotFoundError, ToolSchemaError

KINDS = ["tool", "agent", "team", "flow"]


class Weather:
    def run(self, location: str) -> str:
        return f"sunny in {location}"


def register(registry: ComponentRegistry, kind: str, name: Any, component: Any, **options: Any) -> None:
    getattr(registry, f"register_{kind}")(name, component, **options)


def get(registry: ComponentRegistry, kind: str, name: Any) -> Any:
    return getattr(registry, f"get_{kind}")(name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_is_found_under_its_name(kind: str) -> None:
    registry, component = ComponentRegistry(), Weather()
    register(registry, kind, "weather", component)
    assert get(registry, kind, "weather") is component
    assert getattr(registry, f"{kind}s") == {"weather": component}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_do_not_share_names(kind: str) -> None:
    registry = ComponentRegistry()
    register(registry, kind, "weather", Weather())
    for other in set(KINDS) - {kind}:
        assert getattr(registry, f"{other}s") == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_taken_name_is_refused_unless_overwriting(kind: str) -> None:
    registry, first, second = ComponentRegistry(), Weather(), Weather()
    register(registry, kind, "weather", first)
    with pytest.raises(ComponentAlreadyExistsError, match=f"{kind} 'weather' is already registered"):
        register(registry, kind, "weather", second)
    assert get(registry, kind, "weather") is first
    register(registry, kind, "weather", second, overwrite=True)
    assert get(registry, kind, "weather") is second


@pytest.mark.parametrize("kind", KINDS)
def test_an_unregistered_component_is_gone(kind: str) -> None:
    registry, component = ComponentRegistry(), Weather()
    register(registry, kind, "weather", component)
    assert getattr(registry, f"unregister_{kind}")("weather") is component
    with pytest.raises(ComponentNotFoundError):
        get(registry, kind, "weather")
    with pytest.raises(ComponentNotFoundError):
        getattr(registry, f"unregister_{kind}")("weather")


def test_clear_takes_everything_out() -> None:
    registry = ComponentRegistry()
    for kind in KINDS:
        register(registry, kind, "x", Weather())
    registry.clear()
    assert registry.tools == registry.agents == registry.teams == registry.flows == {}


def test_a_not_found_error_suggests_near_names_and_lists_what_exists() -> None:
    registry = ComponentRegistry()
    for name in ("weather", "database"):
        registry.register_tool(name, Weather())
    with pytest.raises(ToolNotFoundError) as caught:
        registry.get_tool("Wether")
    assert str(caught.value) == (
        "no tool named 'Wether' is registered; did you mean 'weather'? (registered: 'weather', 'database')"
    )
    assert caught.value.suggestions == ("weather",)
    assert (caught.value.kind, caught.value.name) == ("tool", "Wether")


def test_a_not_found_error_says_that_there_are_none() -> None:
    with pytest.raises(KeyError, match=r"there are no agents at all: register_agent\(\) adds one"):
        ComponentRegistry().get_agent("researcher")


def test_a_not_found_error_stays_short_with_thousands_registered() -> None:
    registry = ComponentRegistry()
    for number in range(3000):
        registry.register_agent(f"agent-{number:04}", Weather())
    with pytest.raises(ComponentNotFoundError) as caught:
        registry.get_agent("q" * 10_000)
    assert "and 2980 more" in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", [None, 3, ["weather"]])
def test_a_name_that_is_no_string_is_not_found(name: Any) -> None:
    with pytest.raises(ComponentNotFoundError):
        ComponentRegistry().get_tool(name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["", "  ", None, 3, "a\nb", "a\x00", " a", "__class__", "x" * 129, "a\u202eb"]
)
def test_a_name_that_is_not_valid_is_refused(kind: str, name: Any) -> None:
    registry = ComponentRegistry()
    with pytest.raises(ValueError, match=f"cannot register {kind}"):
        register(registry, kind, name, Weather())
    assert getattr(registry, f"{kind}s") == {}


@pytest.mark.parametrize("name", ["weather", "get weather", "wetter-für-münchen", "a.b/c", "_x"])
def test_names_need_not_be_identifiers(name: str) -> None:
    registry = ComponentRegistry()
    registry.register_tool(name, Weather())
    assert registry.tool_binding(name).call(["x"], {}, None) == "sunny in x"


@pytest.mark.parametrize("kind", KINDS)
def test_none_is_no_component(kind: str) -> None:
    with pytest.raises(ValueError, match="it is None"):
        register(ComponentRegistry(), kind, "weather", None)


def test_an_object_that_cannot_be_called_is_refused_at_registration() -> None:
    registry = ComponentRegistry()
    with pytest.raises(ToolSchemaError, match="has no run, run_async"):
        registry.register_tool("x", object())
    with pytest.raises(ValueError, match="Weather as tool 'x': it is a class; register an instance"):
        registry.register_tool("x", Weather)
    with pytest.raises(ValueError, match="input_schema of tool 'x' is of type str"):
        registry.register_tool("x", Weather(), input_schema="str")  # type: ignore[arg-type]
    assert registry.tools == {}


def test_the_tools_are_a_copy() -> None:
    registry = ComponentRegistry()
    registry.tools["x"] = Weather()
    assert registry.tools == {}


def test_a_binding_is_made_once_and_again_for_another_tool() -> None:
    registry = ComponentRegistry()
    registry.register_tool("weather", Weather())
    binding = registry.tool_binding("weather")
    assert registry.tool_binding("weather") is binding
    registry.register_tool("weather", lambda: "rain", overwrite=True)
    assert registry.tool_binding("weather").call([], {}, None) == "rain"


def test_exactly_one_of_many_threads_gets_a_name() -> None:
    registry, refused = ComponentRegistry(), []
    barrier = threading.Barrier(8)

    def compete() -> None:
        barrier.wait()
        for number in range(200):
            try:
                registry.register_agent(f"agent-{number}", Weather())
            except ComponentAlreadyExistsError:
                refused.append(number)

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.agents) == 200
    assert len(refused) == 7 * 200


def test_repr_counts_the_components() -> None:
    registry = ComponentRegistry()
    registry.register_tool("x", Weather())
    assert repr(registry) == "<ComponentRegistry 1 tools, 0 agents, 0 teams, 0 flows>"
