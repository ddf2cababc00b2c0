"""A tool's signature, from its text."""

import ast
from inspect import Parameter, Signature
from typing import Any

_ANYTHING = Signature(
    [Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)]
)


class _Source:
    """An annotation or a default of which only the text is known; shown as it is."""

    def __init__(self, node: ast.expr) -> None:
        self._text = ast.unparse(node)

    def __repr__(self) -> str:
        return self._text


def parse_signature(text: str) -> Signature:
    """The signature that a text such as ``(location: str, units: str = 'celsius') -> dict`` describes.

    Nothing in it is evaluated: annotations and defaults are their texts. A
    text that is no signature gives one that takes anything.
    """
    try:
        function = ast.parse(f"def tool{text}: ...").body[0]
        assert isinstance(function, ast.FunctionDef)
        return Signature(_parameters(function.args), return_annotation=_annotation(function.returns))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _ANYTHING


def _parameters(found: ast.arguments) -> list[Parameter]:
    kinds: list[Any] = [Parameter.POSITIONAL_ONLY] * len(found.posonlyargs)
    kinds += [Parameter.POSITIONAL_OR_KEYWORD] * len(found.args)
    # Defaults belong to the last ones.
    defaults = [None] * (len(kinds) - len(found.defaults)) + list(found.defaults)
    parameters = list(map(_parameter, found.posonlyargs + found.args, kinds, defaults))
    if found.vararg is not None:
        parameters.append(_parameter(found.vararg, Parameter.VAR_POSITIONAL))
    for one, default in zip(found.kwonlyargs, found.kw_defaults, strict=True):
        parameters.append(_parameter(one, Parameter.KEYWORD_ONLY, default))
    if found.kwarg is not None:
        parameters.append(_parameter(found.kwarg, Parameter.VAR_KEYWORD))
    return parameters


def _parameter(argument: ast.arg, kind: Any, default: ast.expr | None = None) -> Parameter:
    value = Parameter.empty if default is None else _Source(default)
    return Parameter(argument.arg, kind, default=value, annotation=_annotation(argument.annotation))


def _annotation(node: ast.expr | None) -> object:
    return Parameter.empty if node is None else _Source(node)
