import asyncio
import contextvars
import dataclasses
import functools
import threading
from typing import Any

import pytest
from pydantic import BaseModel

from codemode.core.context import RuntimeContext, get_current_context, reset_context
from codemode.errors import ToolError
from codemode.tools import ToolBinding

CONTEXT = RuntimeContext({"client_id": "acme"})


class Arguments(BaseModel):
    location: str


class Run:
    def run(self, location: str) -> str:
        return f"run {location}"


class RunAsync(Run):
    async def run_async(self, location: str) -> str:
        return f"run_async {location}"


class RunWithContext(RunAsync):
    def run_with_context(self, context: RuntimeContext, location: str) -> tuple[RuntimeContext, str]:
        return context, location


class AsyncWithContext:
    async def run_with_context(self, context: RuntimeContext, **kwargs: Any) -> tuple[RuntimeContext, Any]:
        return context, kwargs


class CrewAI:
    """Its run() only forwards, and takes anything."""

    args_schema = Arguments
    description = "Of the framework."

    def run(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("not this one")

    def _run(self, location: str) -> str:
        return f"_run {location}"


class LangChain:
    """Its run() takes one argument of another shape."""

    args_schema = Arguments

    def run(self, tool_input: Any) -> Any:
        raise AssertionError("not this one")

    def invoke(self, input: dict[str, Any]) -> str:  # noqa: A002  # as LangChain has it
        return f"invoke {input}"

    async def ainvoke(self, input: dict[str, Any]) -> str:  # noqa: A002
        return f"ainvoke {input}"


class AsyncLangChain(LangChain):
    @staticmethod
    async def coroutine(location: str) -> None: ...


class Calling:
    def __call__(self, location: str) -> str:
        return f"call {location}"


class AsyncCallable:
    async def __call__(self, location: str) -> str:
        return f"await call {location}"


async def coroutine_function(location: str) -> str:
    return f"coroutine {location}"


def bind(tool: Any) -> ToolBinding:
    return ToolBinding.of("weather", tool)


@pytest.mark.parametrize(
    ("tool", "is_async", "expected"),
    [
        (Run(), False, "run x"),
        (Run().run, False, "run x"),
        (RunAsync(), True, "run_async x"),
        (RunWithContext(), False, (CONTEXT, "x")),
        (AsyncWithContext(), True, (CONTEXT, {"location": "x"})),
        (CrewAI(), False, "_run x"),
        (LangChain(), False, "invoke {'location': 'x'}"),
        (AsyncLangChain(), True, "ainvoke {'location': 'x'}"),
        (Calling(), False, "call x"),
        (AsyncCallable(), True, "await call x"),
        (coroutine_function, True, "coroutine x"),
        (functools.partial(coroutine_function, location="x"), True, "coroutine x"),
        (lambda location: f"lambda {location}", False, "lambda x"),
    ],
)
def test_every_kind_of_tool_is_called(tool: Any, is_async: bool, expected: Any) -> None:
    binding = bind(tool)
    assert binding.is_async is is_async
    assert binding.call([], {"location": "x"}, CONTEXT) == expected
    assert asyncio.run(binding.call_async([], {"location": "x"}, CONTEXT)) == expected


def test_a_frameworks_description_and_arguments_are_used() -> None:
    assert bind(CrewAI()).description == "Of the framework."
    assert bind(CrewAI()).signature == "(location: str) -> str"
    assert bind(LangChain()).signature == "(location: str)"


def test_the_context_is_no_parameter() -> None:
    assert bind(RunWithContext()).input_schema["required"] == ["location"]


def test_a_tool_that_wants_a_context_gets_an_empty_one_where_there_is_none() -> None:
    assert bind(RunWithContext()).call(["x"], {}, None) == (RuntimeContext(), "x")


def test_a_runnable_takes_one_value() -> None:
    class Runnable:
        def invoke(self, input: Any) -> Any:  # noqa: A002
            return input

    binding = bind(Runnable())
    assert binding.call(["question"], {}, None) == "question"
    assert binding.call([], {"a": 1}, None) == {"a": 1}
    with pytest.raises(ToolError, match="one value, or else keyword arguments"):
        binding.call(["question"], {"a": 1}, None)


def test_the_context_is_in_force_during_the_call_and_not_after() -> None:
    reset_context()

    async def asynchronous() -> Any:
        await asyncio.sleep(0)
        return get_current_context()

    for tool in (get_current_context, asynchronous):
        assert bind(tool).call([], {}, CONTEXT) is CONTEXT
        assert asyncio.run(bind(tool).call_async([], {}, CONTEXT)) is CONTEXT
        assert get_current_context() is None


def test_a_tool_sees_the_callers_variables_and_cannot_change_them() -> None:
    variable = contextvars.ContextVar("variable", default="none")

    def synchronous() -> str:
        seen = variable.get()
        variable.set("by the tool")
        return seen

    async def asynchronous() -> str:
        return synchronous()

    async def call(binding: ToolBinding) -> tuple[Any, str]:
        variable.set("by the caller")
        return await binding.call_async([], {}, None), variable.get()

    for tool in (synchronous, asynchronous):
        assert asyncio.run(call(bind(tool))) == ("by the caller", "by the caller")
        token = variable.set("by the caller")
        assert bind(tool).call([], {}, None) == "by the caller"
        assert variable.get() == "by the caller"
        variable.reset(token)


def test_a_synchronous_tool_runs_on_the_calling_thread() -> None:
    assert bind(threading.get_ident).call([], {}, None) == threading.get_ident()


def test_a_synchronous_tool_does_not_block_the_event_loop() -> None:
    async def both() -> bool:
        released = threading.Event()
        waiting = asyncio.create_task(bind(lambda: released.wait(20)).call_async([], {}, None))
        await asyncio.sleep(0.01)
        released.set()
        return bool(await waiting)

    assert asyncio.run(both()) is True


def test_a_function_that_returns_an_awaitable_is_awaited() -> None:
    binding = bind(lambda location: coroutine_function(location))
    assert binding.is_async is False
    assert binding.call(["x"], {}, None) == "coroutine x"
    assert asyncio.run(binding.call_async(["x"], {}, None)) == "coroutine x"


@pytest.mark.parametrize("tool", [coroutine_function, lambda location: coroutine_function(location)])
def test_an_asynchronous_tool_within_a_loop_says_what_to_call(tool: Any) -> None:
    async def call() -> None:
        bind(tool).call(["x"], {}, None)

    with pytest.raises(ToolError, match=r"await call_async\(\) instead"):
        asyncio.run(call())


def test_cancelling_a_call_cancels_the_tool() -> None:
    cancelled = []

    async def tool() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main() -> None:
        task = asyncio.create_task(bind(tool).call_async([], {}, None))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert cancelled == [True]


def test_what_a_tool_raises_is_raised_as_it_is() -> None:
    def broken() -> None:
        raise LookupError("no such city")

    with pytest.raises(LookupError, match=r"^no such city$"):
        bind(broken).call([], {}, None)


def test_a_type_error_within_a_tool_is_not_taken_for_wrong_arguments() -> None:
    with pytest.raises(TypeError) as caught:
        bind(lambda x: x + 1).call(["a"], {}, None)
    assert not isinstance(caught.value, ToolError)


def test_a_binding_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        bind(Run()).name = "x"  # type: ignore[misc]
