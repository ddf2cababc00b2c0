"""Answering the calls that sandboxed code makes to tools of this process.

Everything in a call is hostile: the name is checked against what this
execution may call, the arguments against the tool's schema, and only the type
and message of a failure go back.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from codemode_proto.v1 import executor_pb2 as pb

from codemode.core.correlation import set_correlation_id
from codemode.errors import ComponentNotFoundError, ToolNotFoundError

if TYPE_CHECKING:
    from codemode.core.context import RuntimeContext
    from codemode.core.registry import ComponentRegistry
    from codemode.tools import ToolBinding
    from codemode.wire.connection import Connection

MAX_MESSAGE = 4000
# What a message needs besides the value in it.
_ENVELOPE_BYTES = 64 << 10


class HostTools:
    """The tools that one execution may call.

    Args:
        registry: Where they are.
        allowed: Names of those it may call; None for all in the registry.
        context: The caller's context, in force while a tool runs.
        connection: The way that answers go.
        correlation_id: Of the execution, for tools that ask for it.
    """

    def __init__(
        self,
        registry: ComponentRegistry,
        allowed: frozenset[str] | None,
        context: RuntimeContext | None,
        connection: Connection,
        correlation_id: str,
    ) -> None:
        self._registry = registry
        self._allowed = allowed
        self._context = context
        self._connection = connection
        # What the caller's context variables were when it called execute.
        self._variables = contextvars.copy_context()
        self._variables.run(set_correlation_id, correlation_id)

    def binding_of(self, call: pb.ToolCall) -> ToolBinding | pb.ExecuteRequest:
        """The tool that a call names, or the answer that there is none."""
        try:
            return self._find(call.name)
        except (ComponentNotFoundError, ToolNotFoundError) as error:
            return _failure(call, "ToolNotFoundError", error.message)
        except Exception as error:  # noqa: BLE001 - a schema of the user's may be wrong in any way
            return failure_of(call, error)

    def _find(self, name: str) -> ToolBinding:
        if self._allowed is not None and name not in self._allowed:
            raise ToolNotFoundError(f"this execution may not call a tool {name!r}", name=name)
        return self._registry.tool_binding(name)

    def call(self, binding: ToolBinding, call: pb.ToolCall) -> pb.ExecuteRequest:
        """Call a tool on this thread and return the answer. KeyboardInterrupt is passed on."""
        try:
            args, kwargs = _arguments(call)
            value = self._variables.copy().run(binding.call, args, kwargs, self._context)
            return self._success(call, value)
        except Exception as error:  # noqa: BLE001 - a tool may raise anything; its type and message go back
            return failure_of(call, error)

    async def call_async(self, binding: ToolBinding, call: pb.ToolCall) -> pb.ExecuteRequest:
        """Call a coroutine tool on the running loop and return the answer."""
        try:
            args, kwargs = _arguments(call)
            return self._success(call, await binding.call_async(args, kwargs, self._context))
        except Exception as error:  # noqa: BLE001
            return failure_of(call, error)

    def _success(self, call: pb.ToolCall, value: Any) -> pb.ExecuteRequest:
        from codemode.tools import encode_result

        data = encode_result(value, max_bytes=self._connection.max_message_bytes - _ENVELOPE_BYTES)
        answer = pb.ToolAnswer(call_id=call.call_id, value=pb.Value(media_type="application/json", data=data))
        return pb.ExecuteRequest(tool_answer=answer)

    def start(self, make_task: Callable[..., Any], work: Coroutine[Any, Any, Any]) -> Any:
        """Make a task that has the caller's context variables."""
        return make_task(work, context=self._variables.copy())

    def describe(self, request: pb.SchemaRequest) -> pb.ExecuteRequest:
        """Answer what tools there are, or what one of them takes."""
        names = [request.name] if request.name else sorted(self._registry.tools)
        tools = []
        for name in names:
            try:
                binding = self._find(name)
            except Exception:  # noqa: BLE001, S112 - one tool with a broken schema must not hide the others
                continue
            tools.append(
                pb.ToolSchema(
                    name=binding.name,
                    description=binding.description,
                    input_schema_json=json.dumps(binding.input_schema),
                    output_schema_json=json.dumps(binding.output_schema) if binding.output_schema else "",
                    signature=binding.signature,
                )
            )
        return pb.ExecuteRequest(schema_answer=pb.SchemaAnswer(request_id=request.request_id, tools=tools))


def _arguments(call: pb.ToolCall) -> tuple[list[Any], dict[str, Any]]:
    try:
        arguments = json.loads(call.arguments_json)
        args, kwargs = arguments["args"], arguments["kwargs"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("the arguments are not what the runner sends") from None
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise ValueError("the arguments are not what the runner sends")
    return args, kwargs


def failure_of(call: pb.ToolCall, error: BaseException) -> pb.ExecuteRequest:
    """The answer that a tool failed: its error's type and message, never its traceback, cause or locals."""
    try:
        message = getattr(error, "message", None) or str(error)
    except Exception:  # noqa: BLE001 - an exception's own text may fail
        message = "(its message could not be made)"
    return _failure(call, type(error).__name__, str(message))


def _failure(call: pb.ToolCall, kind: str, message: str) -> pb.ExecuteRequest:
    failure = pb.ToolFailure(type=kind, message=message[:MAX_MESSAGE].encode("utf-8", "replace").decode())
    return pb.ExecuteRequest(tool_answer=pb.ToolAnswer(call_id=call.call_id, failure=failure))
