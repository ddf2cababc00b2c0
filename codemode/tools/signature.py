"""A tool's signature as one readable line.

It is written from the JSON Schemas and not from the function, because it is for
code on the other side of the wall: that passes a ``str`` where the function takes
a ``date``, and gets a ``dict`` where it returns a model.
"""

from __future__ import annotations

import keyword
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["json_type_text", "signature_text"]

_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
    "array": "list",
    "object": "dict",
}
_MAX_DEPTH = 6
_MAX_CHOICES = 8
_MAX_DEFAULT_CHARACTERS = 40


def signature_text(
    input_schema: Mapping[str, Any],
    output_schema: Mapping[str, Any] | None,
    *,
    order: Collection[str] = (),
    keyword_only: Collection[str] = (),
    more_positional: bool = False,
) -> str:
    """Return a signature such as ``(location: str, units: str = 'celsius') -> dict``.

    Args:
        input_schema: JSON Schema of the arguments.
        output_schema: JSON Schema of the result; None leaves the arrow out.
        order: Names in the order of positional arguments; the rest follow as the
            schema has them.
        keyword_only: Names that cannot be given by position.
        more_positional: Whether any number of positional arguments may follow.
    """
    properties: Mapping[str, Any] = input_schema.get("properties", {})
    required = set(input_schema.get("required", ()))
    names = [name for name in order if name in properties]
    names += [name for name in properties if name not in names]
    # Of what cannot be written as a parameter, ``**kwargs`` at least says that it is there.
    shown = [name for name in names if name.isidentifier() and not keyword.iskeyword(name)]
    parts: list[str] = []
    star = after_default = False
    for name in shown:
        # A parameter without a default cannot follow one that has one, except after a star.
        if not star and (name in keyword_only or (after_default and name in required)):
            parts.append("*args" if more_positional else "*")
            star = True
        text = f"{name}: {json_type_text(properties[name], input_schema)}"
        if name not in required:
            text += f" = {_default_text(properties[name])}"
            after_default = True
        parts.append(text)
    if more_positional and not star:
        parts.append("*args")
    if input_schema.get("additionalProperties", not properties) not in (False, None) or len(shown) < len(
        names
    ):
        parts.append("**kwargs")
    arrow = f" -> {json_type_text(output_schema, output_schema)}" if output_schema is not None else ""
    return f"({', '.join(parts)}){arrow}"


def json_type_text(schema: Any, root: Mapping[str, Any], depth: int = 0) -> str:
    """Return the Python type that JSON of this schema is read as, such as ``list[str]``.

    Args:
        schema: The schema.
        root: The schema that its ``$ref`` refer into.
        depth: How deep within another type; beyond a few levels it is ``Any``.
    """
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return "Any"
    if isinstance(reference := schema.get("$ref"), str):
        return json_type_text(_referred(reference, root), root, depth + 1)
    if "const" in schema:
        return f"Literal[{schema['const']!r}]"
    choices = schema.get("enum")
    if isinstance(choices, list) and 0 < len(choices) <= _MAX_CHOICES:
        return f"Literal[{', '.join(map(repr, choices))}]"
    for combination in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(combination), list):
            return _union(json_type_text(option, root, depth + 1) for option in options)
    if isinstance(options := schema.get("allOf"), list) and len(options) == 1:
        return json_type_text(options[0], root, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union(json_type_text({**schema, "type": option}, root, depth + 1) for option in kind)
    if kind == "array" and "items" in schema:
        return f"list[{json_type_text(schema['items'], root, depth + 1)}]"
    if kind == "object" and isinstance(values := schema.get("additionalProperties"), Mapping):
        return f"dict[str, {json_type_text(values, root, depth + 1)}]"
    return _TYPES.get(kind, "Any") if isinstance(kind, str) else "Any"


def _union(texts: Any) -> str:
    # dict.fromkeys: without repetitions, in order.
    distinct = list(dict.fromkeys(texts))
    return "Any" if "Any" in distinct else " | ".join(distinct)


def _referred(reference: str, root: Any) -> Any:
    if not reference.startswith("#/"):
        return None
    for step in reference[2:].split("/"):
        root = root.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(root, Mapping) else None
    return root


def _default_text(schema: Any) -> str:
    if not isinstance(schema, Mapping) or "default" not in schema:
        return "..."
    text = repr(schema["default"])
    return text if len(text) <= _MAX_DEFAULT_CHARACTERS else "..."
