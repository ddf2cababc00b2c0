"""A tool as the rest of the package sees it: described, checked, and ready to call."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from codemode.errors import ToolError
from codemode.tools.arguments import (
    ArgumentCheck,
    JsonSchemaCheck,
    ModelCheck,
    WrongArgumentsError,
    named_arguments,
    refusal,
    unexpected,
)
from codemode.tools.decorator import described_tool
from codemode.tools.documentation import read_documentation
from codemode.tools.entry import ToolEntry, find_entry
from codemode.tools.parameters import Parameters
from codemode.tools.schema import is_model, json_schema_of, model_of_signature, output_schema_of
from codemode.tools.signature import signature_text

if TYPE_CHECKING:
    from codemode.core.context import RuntimeContext

__all__ = ["ToolBinding"]


@dataclass(frozen=True, slots=True, eq=False)
class ToolBinding:
    """One registered tool: what it is called, what it takes and gives, and how to call it.

    Attributes:
        name: Name it is registered under.
        description: What it does; empty when nobody said.
        input_schema: JSON Schema of its arguments, an object's.
        output_schema: JSON Schema of its result; None when unknown.
        signature: Such as ``(location: str, units: str = 'celsius') -> dict``.
        is_async: Whether it is a coroutine function, to be called by `call_async`.
    """

    name: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    signature: str
    is_async: bool
    _entry: ToolEntry = field(repr=False)
    _parameters: Parameters = field(repr=False)
    _positional: tuple[str, ...] = field(repr=False)
    _check: ArgumentCheck = field(repr=False)

    @classmethod
    def of(
        cls,
        name: str,
        tool: Any,
        *,
        description: str | None = None,
        input_schema: type[BaseModel] | Mapping[str, Any] | None = None,
        output_schema: type[BaseModel] | Mapping[str, Any] | None = None,
    ) -> ToolBinding:
        """Describe a tool.

        What is not given is taken from the tool: from its ``@tool`` decorator, its
        ``args_schema`` or ``description`` (LangChain, CrewAI), its signature, type
        hints and docstring.

        Args:
            name: Name it is registered under.
            tool: See `ComponentRegistry.register_tool`.
            description: What it does.
            input_schema: Pydantic model or JSON Schema of its arguments. A model's
                values are what the tool is given; a JSON Schema only checks.
            output_schema: Pydantic model or JSON Schema of its result.

        Raises:
            ToolSchemaError: The tool cannot be called, or a schema is not usable.
        """
        entry = find_entry(name, tool)
        said = described_tool(tool)
        documentation = read_documentation(tool, entry.described_by or entry.function)
        given = _first_given(input_schema, said.input_schema, getattr(tool, "args_schema", None))
        parameters = Parameters.of(entry, has_schema=given is not None)
        if given is None:
            arguments, check = _derived_arguments(name, entry, parameters, documentation.parameters)
        else:
            arguments, check = _given_arguments(name, given, entry, parameters)
        given = _first_given(output_schema, said.output_schema)
        if given is None:
            result = output_schema_of(entry.described_by or entry.function, parameters.signature)
        else:
            result = json_schema_of(name, "output_schema", given)
        positional = parameters.positional
        # A tool of **kwargs alone has no order of its own; that of its schema is what callers know.
        if not positional and not parameters.more_positional:
            positional = tuple(
                key for key in arguments.get("properties", ()) if key not in parameters.keyword_only
            )
        return cls(
            name=name,
            description=_first_given(description, said.description, documentation.description) or "",
            input_schema=arguments,
            output_schema=result,
            signature=signature_text(
                arguments,
                result,
                order=positional,
                keyword_only=parameters.keyword_only,
                more_positional=parameters.more_positional,
            ),
            is_async=entry.is_async,
            _entry=entry,
            _parameters=parameters,
            _positional=positional,
            _check=check,
        )

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any], context: RuntimeContext | None) -> Any:
        """Call the tool in this thread and return its result, as it is.

        It runs in a copy of the caller's ``contextvars`` in which the context is in
        force. A coroutine function is run by an event loop of its own; where a loop is
        running already, use `call_async`. What the tool raises is raised.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            context: Context of the execution that calls the tool.

        Raises:
            ToolArgumentError: The arguments are not what the tool takes.
            ToolError: The tool is asynchronous and an event loop runs in this thread.
        """
        call = self._prepared(args, kwargs, context)
        if self.is_async and _loop_is_running():
            raise self._needs_call_async()
        result = contextvars.copy_context().run(_in_context, context, call)
        if not inspect.isawaitable(result):
            return result
        if _loop_is_running():
            if inspect.iscoroutine(result):
                result.close()
            raise self._needs_call_async()
        # A runner takes the context as the variables of its task; asyncio.run() does not.
        with asyncio.Runner() as runner:
            return runner.run(_awaited(context, result), context=contextvars.copy_context())

    async def call_async(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], context: RuntimeContext | None
    ) -> Any:
        """Call the tool without blocking the event loop, and return its result, as it is.

        A coroutine function runs on this loop; any other tool in a thread, where it
        may block. Both in a copy of the caller's ``contextvars`` in which the context is
        in force. What the tool raises is raised.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            context: Context of the execution that calls the tool.

        Raises:
            ToolArgumentError: The arguments are not what the tool takes.
        """
        call = self._prepared(args, kwargs, context)
        if self.is_async:
            # A task of its own, because what it sets in its context must not reach the caller.
            return await asyncio.create_task(_called_and_awaited(context, call))
        result = await asyncio.to_thread(_in_context, context, call)
        if inspect.isawaitable(result):
            return await asyncio.create_task(_awaited(context, result))
        return result

    def _prepared(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], context: RuntimeContext | None
    ) -> Callable[[], Any]:
        """Check the arguments, and return the call that is left to make."""
        entry, parameters = self._entry, self._parameters
        try:
            values, rest = named_arguments(
                args,
                kwargs,
                positional=self._positional,
                more_positional=parameters.more_positional,
            )
            values = self._check(values)
            if entry.takes_mapping and rest and (values or len(rest) > 1):
                raise WrongArgumentsError([("", "it takes one value, or else keyword arguments")])
            if not entry.takes_mapping and (unknown := parameters.not_taken(values)):
                raise WrongArgumentsError(unexpected(name, parameters.named) for name in unknown)
        except WrongArgumentsError as error:
            raise refusal(self.name, self.signature, error.problems) from None
        if entry.takes_mapping:
            return lambda: entry.function(rest[0] if rest else values)
        bound = parameters.bind(values, rest)
        leading = (_or_empty(context),) if entry.takes_context else ()
        return lambda: entry.function(*leading, *bound.args, **bound.kwargs)

    def _needs_call_async(self) -> ToolError:
        return ToolError(
            f"tool {self.name!r} is asynchronous and an event loop is running in this thread; "
            "await call_async() instead",
            tool=self.name,
        )


def _first_given(*choices: Any) -> Any:
    return next((choice for choice in choices if choice is not None), None)


def _derived_arguments(
    tool: str, entry: ToolEntry, parameters: Parameters, descriptions: Mapping[str, str]
) -> tuple[dict[str, Any], ArgumentCheck]:
    function = entry.described_by or entry.function
    model = model_of_signature(tool, function, parameters.signature, descriptions)
    # Nothing to fill in: the function has its defaults itself.
    return json_schema_of(tool, "input_schema", model), ModelCheck(model, by_alias=True, fill_in=())


def _given_arguments(
    tool: str, given: Any, entry: ToolEntry, parameters: Parameters
) -> tuple[dict[str, Any], ArgumentCheck]:
    schema = json_schema_of(tool, "input_schema", given)
    if is_model(given):
        fields = given.model_fields
        names, required = list(fields), [name for name, info in fields.items() if info.is_required()]
        takes_all = parameters.any_keyword or entry.takes_mapping
        taken = None if takes_all else parameters.named
        check: ArgumentCheck = ModelCheck(given, by_alias=False, fill_in=taken)
    else:
        names, required = list(schema.get("properties", ())), schema.get("required", ())
        check = JsonSchemaCheck(tool, schema)
    if not entry.takes_mapping:
        parameters.check_fits(tool, names, required)
    return schema, check


def _in_context(context: RuntimeContext | None, call: Callable[[], Any]) -> Any:
    # Imported here because importing codemode.core imports, in the end, this module.
    from codemode.core.context import use_context

    with use_context(context):
        return call()


async def _called_and_awaited(context: RuntimeContext | None, call: Callable[[], Awaitable[Any]]) -> Any:
    from codemode.core.context import use_context

    with use_context(context):
        return await call()


async def _awaited(context: RuntimeContext | None, awaitable: Awaitable[Any]) -> Any:
    return await _called_and_awaited(context, lambda: awaitable)


def _or_empty(context: RuntimeContext | None) -> RuntimeContext:
    from codemode.core.context import RuntimeContext

    return context if context is not None else RuntimeContext()


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
