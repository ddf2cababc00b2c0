import asyncio
import copy
import json
import math
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codemode.core.context import RuntimeContext, get_current_context, reset_context, use_context
from codemode.core.registry import ComponentRegistry
from codemode.errors import ContextVariableError


def variable(context: RuntimeContext | None, name: str) -> Any:
    assert context is not None
    return context[name]


@pytest.fixture(autouse=True)
def no_context() -> Iterator[None]:
    reset_context()
    yield
    reset_context()


def test_variables_are_read_as_from_a_mapping() -> None:
    context = RuntimeContext(variables={"client_id": "acme"})
    assert context.get("client_id") == context["client_id"] == "acme"
    assert context.get("user_id") is None
    assert context.get("user_id", "?") == "?"
    assert "client_id" in context
    assert "user_id" not in context
    assert dict(context) == context.variables == {"client_id": "acme"}
    with pytest.raises(KeyError):
        context["user_id"]


def test_a_context_without_variables_is_still_a_context() -> None:
    assert RuntimeContext()


def test_later_changes_of_the_callers_dictionary_are_not_seen() -> None:
    variables = {"client_id": "acme"}
    context = RuntimeContext(variables)
    variables["client_id"] = "evil"
    assert context["client_id"] == "acme"


def test_variables_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        RuntimeContext({"a": 1}).variables["a"] = 2  # type: ignore[index]


def test_more_variables_make_another_context() -> None:
    context = RuntimeContext({"a": 1, "b": 1})
    assert context.with_variables(b=2, c=3) == RuntimeContext({"a": 1, "b": 2, "c": 3})
    assert context == RuntimeContext({"a": 1, "b": 1})


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_contexts_survive_pickling_and_copying(clone: Callable[[Any], Any]) -> None:
    assert clone(RuntimeContext({"a": [1]})) == RuntimeContext({"a": [1]})


@pytest.mark.parametrize("variables", [[("a", 1)], "ab", {1: 2}])
def test_variables_are_a_mapping_of_names(variables: dict[Any, Any]) -> None:
    with pytest.raises(TypeError):
        RuntimeContext(variables)


@given(
    st.dictionaries(
        st.text(),
        st.none() | st.text() | st.integers() | st.lists(st.floats(allow_nan=False, allow_infinity=False)),
    )
)
def test_json_carries_the_variables(variables: dict[Any, Any]) -> None:
    assert json.loads(RuntimeContext(variables).to_json()) == variables


@pytest.mark.parametrize("value", [object(), math.nan, {1, 2}, b"x", {(1,): 2}])
def test_a_variable_that_json_cannot_carry_is_named(value: Any) -> None:
    with pytest.raises(ContextVariableError, match=r"'bad'.*cannot be sent") as caught:
        RuntimeContext({"good": 1, "bad": value}).to_json()
    assert caught.value.variable == "bad"


def test_parameters_that_are_none_are_left_out() -> None:
    assert RuntimeContext.from_parameters({"client_id": "a", "user_id": None}) == RuntimeContext(
        {"client_id": "a"}
    )


def test_parameters_that_json_cannot_carry_are_refused_at_once() -> None:
    with pytest.raises(ContextVariableError, match="'x'"):
        RuntimeContext.from_parameters({"x": object()})


def test_the_current_context_is_the_registrys() -> None:
    registry = ComponentRegistry()
    assert registry.get_context() is get_current_context() is None
    registry.set_context(RuntimeContext({"a": 1}))
    assert get_current_context() is registry.get_context()
    assert variable(registry.get_context(), "a") == 1
    registry.clear_context()
    assert registry.get_context() is get_current_context() is None


def test_reset_clears_the_context_of_every_registry() -> None:
    one, other = ComponentRegistry(), ComponentRegistry()
    one.set_context(RuntimeContext({"a": 1}))
    other.set_context(RuntimeContext({"a": 2}))
    reset_context()
    assert one.get_context() is other.get_context() is get_current_context() is None


def test_registries_do_not_see_each_others_context() -> None:
    one, other = ComponentRegistry(), ComponentRegistry()
    one.set_context(RuntimeContext({"tenant": "a"}))
    assert other.get_context() is None
    other.set_context(RuntimeContext({"tenant": "b"}))
    assert variable(one.get_context(), "tenant") == "a"
    assert variable(get_current_context(), "tenant") == "b"
    one.set_context(RuntimeContext({"tenant": "c"}))
    assert variable(get_current_context(), "tenant") == "c"
    one.clear_context()
    assert get_current_context() is other.get_context()


def test_tasks_have_contexts_of_their_own() -> None:
    registry = ComponentRegistry()

    async def request(client: str) -> object:
        registry.set_context(RuntimeContext({"client": client}))
        await asyncio.sleep(0.01)
        return variable(registry.get_context(), "client")

    async def both() -> list[object]:
        seen = await asyncio.gather(request("A"), request("B"))
        return [*seen, registry.get_context()]

    assert asyncio.run(both()) == ["A", "B", None]


def test_a_task_inherits_the_context_and_cannot_change_its_parents() -> None:
    registry = ComponentRegistry()

    async def child() -> str:
        inherited: str = variable(registry.get_context(), "client")
        registry.set_context(RuntimeContext({"client": "child"}))
        return inherited

    async def parent() -> tuple[str, str]:
        registry.set_context(RuntimeContext({"client": "parent"}))
        return await asyncio.create_task(child()), variable(registry.get_context(), "client")

    assert asyncio.run(parent()) == ("parent", "parent")


def test_threads_have_contexts_of_their_own() -> None:
    registry = ComponentRegistry()
    registry.set_context(RuntimeContext({"client": "main"}))
    seen = []

    def other() -> None:
        seen.append(registry.get_context())
        registry.set_context(RuntimeContext({"client": "other"}))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [None]
    assert variable(registry.get_context(), "client") == "main"


def test_every_registry_sees_the_context_in_use_and_its_own_afterwards() -> None:
    one, other = ComponentRegistry(), ComponentRegistry()
    one.set_context(RuntimeContext({"client": "own"}))
    with use_context(RuntimeContext({"client": "execution"})):
        assert variable(one.get_context(), "client") == variable(other.get_context(), "client") == "execution"
        one.clear_context()
        assert one.get_context() is None
        assert other.get_context() is not None
    assert variable(one.get_context(), "client") == "own"
    assert other.get_context() is None


def test_what_is_set_on_a_registry_is_a_runtime_context() -> None:
    with pytest.raises(TypeError, match="RuntimeContext, not dict"):
        ComponentRegistry().set_context({"client_id": "a"})  # type: ignore[arg-type]
