"""The parameters of the callable of a tool: which there are, and how arguments get into them."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codemode.errors import ToolSchemaError
from codemode.tools.entry import ToolEntry

__all__ = ["Parameters"]

_ANY_ARGUMENTS = inspect.signature(lambda *args, **kwargs: None)
_ANY_KEYWORDS = inspect.signature(lambda **kwargs: None)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a tool's callable takes, apart from the context.

    Attributes:
        signature: Its signature without a leading context parameter.
        positional: Names that take positional arguments, in order.
        keyword_only: Names that take keyword arguments only.
        more_positional: Whether it has ``*args``.
        any_keyword: Whether it has ``**kwargs``.
    """

    signature: inspect.Signature
    positional: tuple[str, ...]
    keyword_only: tuple[str, ...]
    more_positional: bool
    any_keyword: bool

    @classmethod
    def of(cls, entry: ToolEntry, *, has_schema: bool) -> Parameters:
        """Look at the callable of a tool; one that does not tell takes any arguments.

        Args:
            entry: The callable.
            has_schema: Whether a schema says what arguments there are.
        """
        signature = _signature(entry, has_schema)
        named = signature.parameters.items()
        kinds = {parameter.kind for _, parameter in named}
        return cls(
            signature,
            tuple(
                name
                for name, parameter in named
                if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            ),
            tuple(name for name, parameter in named if parameter.kind is parameter.KEYWORD_ONLY),
            inspect.Parameter.VAR_POSITIONAL in kinds,
            inspect.Parameter.VAR_KEYWORD in kinds,
        )

    @property
    def named(self) -> tuple[str, ...]:
        """Names of all parameters that have one."""
        return (*self.positional, *self.keyword_only)

    def not_taken(self, names: Iterable[str]) -> list[str]:
        """Return those of the names that the callable cannot be called with."""
        return [] if self.any_keyword else [name for name in names if name not in self.named]

    def check_fits(self, tool: str, names: Collection[str], required: Collection[str]) -> None:
        """Refuse a schema that the tool could not be called by; it would fail at every call.

        Args:
            tool: Name of the tool, for the error.
            names: All arguments of the schema.
            required: Those that every call must give.

        Raises:
            ToolSchemaError: The tool does not take, or needs, other arguments.
        """
        taken = self.named
        parameters = self.signature.parameters
        needed = [name for name in taken if parameters[name].default is inspect.Parameter.empty]
        too_many = self.not_taken(required)
        too_few = [name for name in needed if name not in names]
        if not too_many and not too_few:
            return
        problems = []
        if too_many:
            problems.append(f"requires {', '.join(map(repr, too_many))}, which the tool does not take")
        if too_few:
            problems.append(f"lacks {', '.join(map(repr, too_few))}, which the tool needs")
        raise ToolSchemaError(
            f"the input_schema of tool {tool!r} does not fit the tool: it {' and '.join(problems)}; "
            f"the tool takes ({', '.join(taken)})",
            tool=tool,
        )

    def bind(self, values: Mapping[str, Any], rest: Sequence[Any]) -> inspect.BoundArguments:
        """Put arguments where the callable wants them: by position, by name, or in ``**kwargs``.

        Args:
            values: Arguments by name.
            rest: Positional arguments beyond the named parameters, for ``*args``.
        """
        arguments: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                # After a parameter that is left out, BoundArguments would pass even () by name.
                if rest:
                    arguments[name] = tuple(rest)
            elif parameter.kind is parameter.VAR_KEYWORD:
                arguments[name] = {key: value for key, value in values.items() if key not in self.named}
            elif name in values:
                arguments[name] = values[name]
        return inspect.BoundArguments(self.signature, arguments)


def _signature(entry: ToolEntry, has_schema: bool) -> inspect.Signature:
    if entry.takes_mapping and entry.described_by is None:
        return _ANY_KEYWORDS if has_schema else _ANY_ARGUMENTS
    try:
        signature = inspect.signature(entry.described_by or entry.function)
    except (TypeError, ValueError):
        # Some functions written in C do not tell theirs.
        return _ANY_ARGUMENTS
    parameters = list(signature.parameters.values())
    if entry.takes_context and parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
        del parameters[0]
    return signature.replace(parameters=parameters)
