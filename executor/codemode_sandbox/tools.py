"""`tools`, `context` and `config` as the code in a sandbox sees them.

A tool here is a name and a way to ask: the function itself lives with the
caller, who checks every call again. What is refused here is refused early and
with a better message, not more safely.
"""

import difflib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from codemode_sandbox.channel import Channel
from codemode_sandbox.frames import MAX_MESSAGE, FrameError, Message, MessageKind
from codemode_sandbox.signatures import parse_signature


class ToolError(Exception):
    """A tool failed, was refused or does not exist.

    Attributes:
        tool: Name of the tool.
        type: Name of the exception in the caller's process, or of the refusal.
        message: Its message.
    """

    def __init__(self, tool: str, type: str, message: str) -> None:  # noqa: A002 - the name of the field
        super().__init__(tool, type, message)
        self.tool = tool
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"tool {self.tool!r} failed: {self.type}: {self.message}"


class ToolNotFoundError(ToolError, KeyError):
    """There is no such tool, or this execution may not call it."""

    def __str__(self) -> str:
        return self.message


class ReadOnlyMapping(Mapping[str, Any]):
    """A mapping that cannot be changed, such as the context of the request.

    Args:
        name: What the mapping is called in messages.
        values: Its contents.
    """

    __slots__ = ("_name", "_values")

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self._name = name
        self._values = values

    @property
    def variables(self) -> dict[str, Any]:
        """A copy as a dictionary."""
        return dict(self._values)

    def __getitem__(self, key: str) -> Any:
        try:
            return self._values[key]
        except KeyError:
            known = ", ".join(sorted(self._values)) or "nothing"
            raise KeyError(f"{self._name} has no {key!r}; it holds {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{self._name}({self._values!r})"


class Tools:
    """The tools this execution may call: `tools.weather(city='Oslo')` or `tools['weather'].run(city='Oslo')`.

    `list(tools)` names them, `help(tools.weather)` explains one, and
    `await tools.weather.run_async(...)` calls one without blocking.
    """

    __slots__ = ("_allowed", "_channel", "_schemas")

    def __init__(self, channel: Channel, allowed: list[str] | None) -> None:
        self._channel = channel
        self._allowed = allowed
        self._schemas: dict[str, dict[str, Any]] = {}

    def __getitem__(self, name: str) -> Any:
        if name == "__list__":
            return _Special(self.__list)
        if name == "__schema__":
            return _Special(self.__schema)
        if not isinstance(name, str):
            raise TypeError(f"a tool is named by a str, not {type(name).__name__}")
        if self._allowed is not None and name not in self._allowed:
            self.__refuse(name)
        return ToolProxy(self, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except ToolNotFoundError as error:
            raise AttributeError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.__names())

    def __len__(self) -> int:
        return len(self.__names())

    def __contains__(self, name: object) -> bool:
        return name in self.__names()

    def __dir__(self) -> list[str]:
        return [name for name in self.__names() if name.isidentifier()]

    def __repr__(self) -> str:
        if self._allowed is None:
            return "<tools: all that the caller has registered; list(tools) names them>"
        return f"<tools: {', '.join(self._allowed) or 'none'}>"

    def __refuse(self, name: str) -> NoReturn:
        known = self._allowed or []
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it may call: {', '.join(known[:20]) or 'none'}"
        raise ToolNotFoundError(name, "ToolNotFoundError", f"this execution has no tool {name!r}; {hint}")

    def __names(self) -> list[str]:
        if self._allowed is not None:
            return list(self._allowed)
        return [tool["name"] for tool in self.__list()]

    def __list(self) -> list[dict[str, Any]]:
        answer = self._channel.request(MessageKind.SCHEMA_REQUEST, {"name": ""})
        tools: list[dict[str, Any]] = json.loads(answer.body or b"[]")
        self._schemas.update((tool["name"], tool) for tool in tools)
        return tools

    def __schema(self, name: str) -> dict[str, Any]:
        """The schema of one tool: name, description, signature, input_schema, output_schema."""
        if self._allowed is not None and name not in self._allowed:
            self.__refuse(name)
        if name not in self._schemas:
            answer = self._channel.request(MessageKind.SCHEMA_REQUEST, {"name": name})
            found = json.loads(answer.body or b"[]")
            if not found:
                raise ToolNotFoundError(
                    name, "ToolNotFoundError", f"there is no tool {name!r}; list(tools) names those there are"
                )
            self._schemas[name] = found[0]
        return self._schemas[name]


class _Special:
    """`tools['__list__']` and `tools['__schema__']`: called as a tool is."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)

    async def run_async(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)


class ToolProxy:
    """One tool. Call it, or `await tool.run_async(...)`."""

    __slots__ = ("_name", "_tools")

    def __init__(self, tools: Tools, name: str) -> None:
        self._tools = tools
        self._name = name

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Call the tool in the caller's process and wait for its value."""
        body = encode_arguments(self._name, args, kwargs)
        answer = self._tools._channel.request(MessageKind.TOOL_CALL, {"name": self._name}, body)
        return decode_answer(self._name, answer)

    async def run_async(self, *args: Any, **kwargs: Any) -> Any:
        """Call the tool without blocking other tasks."""
        body = encode_arguments(self._name, args, kwargs)
        answer = await self._tools._channel.request_async(MessageKind.TOOL_CALL, {"name": self._name}, body)
        return decode_answer(self._name, answer)

    __call__ = run

    @property
    def schema(self) -> dict[str, Any]:
        """Name, description, signature, input_schema and output_schema."""
        schema: dict[str, Any] = self._tools["__schema__"].run(self._name)
        return schema

    @property
    def __name__(self) -> str:
        return self._name

    @property
    def __signature__(self) -> inspect.Signature:
        return parse_signature(str(self.schema.get("signature") or ""))

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return str(self.schema.get("description") or "")

    def __repr__(self) -> str:
        return f"<tool {self._name}>"

    def as_function(self) -> Any:
        """A plain function with the tool's name, signature and docstring, for `help()`."""

        def function(*args: Any, **kwargs: Any) -> Any:
            return self.run(*args, **kwargs)

        function.__name__ = function.__qualname__ = self._name
        function.__module__ = "tools"
        function.__doc__ = self.__doc__
        function.__signature__ = self.__signature__  # type: ignore[attr-defined]
        return function


def _plain(value: Any) -> Any:
    """Turn what JSON has no form for into what it has, without importing anything for it."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return value.item()
    if numpy is not None and isinstance(value, numpy.ndarray):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return list(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    hint = ""
    if hasattr(value, "to_dict"):
        hint = "; send value.to_dict('records')"
    raise TypeError(f"{type(value).__name__} is not JSON{hint}")


def encode_arguments(tool: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Encode a call's arguments. Raises ToolError that names the argument at fault."""
    try:
        body = json.dumps({"args": args, "kwargs": kwargs}, default=_plain).encode()
    except (TypeError, ValueError, RecursionError):
        for name, value in [*((str(i), value) for i, value in enumerate(args)), *kwargs.items()]:
            try:
                json.dumps(value, default=_plain)
            except (TypeError, ValueError, RecursionError) as error:
                reason = (
                    "it contains itself or is nested too deeply"
                    if not isinstance(error, TypeError)
                    else error
                )
                raise ToolError(tool, "TypeError", f"argument {name!r} cannot be sent: {reason}") from None
        raise
    if len(body) > MAX_MESSAGE - 4096:
        raise ToolError(
            tool,
            "ValueError",
            f"the arguments are {len(body):,} bytes, above the limit message_bytes of {MAX_MESSAGE:,}; "
            "send less, or a summary",
        )
    return body


def decode_answer(tool: str, answer: Message) -> Any:
    """The value of a tool's answer. Raises ToolError when the tool failed."""
    error = answer.head.get("type")
    if error is not None:
        kind = ToolNotFoundError if error == "ToolNotFoundError" else ToolError
        raise kind(tool, str(error), str(answer.head.get("message", "")))
    try:
        return json.loads(answer.body)
    except ValueError as invalid:
        raise FrameError(f"the answer of {tool!r} is not JSON") from invalid
