"""JSON Schemas of a tool's arguments and result.

A schema comes from a Pydantic model or a JSON Schema that was given, or from a
function's signature and type hints. The last also ends as a Pydantic model, so
that a function which asks for a ``date`` gets one though JSON brings a string.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, Optional, TypeGuard, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaWarningKind

from codemode.errors import ToolSchemaError

__all__ = [
    "SchemaOf",
    "is_model",
    "json_schema_of",
    "model_of_signature",
    "output_schema_of",
    "require_schema",
]

SchemaOf = Literal["input_schema", "output_schema"]
"""What a schema describes: the arguments, or the result."""

_MAX_DEFAULT_CHARACTERS = 200
_NO_HINT = inspect.Parameter.empty


class _PlainJsonSchema(GenerateJsonSchema):
    """Schemas without a title on every field, which says its name again."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {  # noqa: RUF012  # a base class's attribute
        "skipped-choice",
        "non-serializable-default",
    }

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def is_model(schema: object) -> TypeGuard[type[BaseModel]]:
    """Whether this is the class of a Pydantic model."""
    return inspect.isclass(schema) and issubclass(schema, BaseModel)


def require_schema(tool: str, what: SchemaOf, schema: object) -> None:
    """Check that this is a Pydantic model class or a dictionary; cheap.

    Raises:
        ToolSchemaError: It is neither.
    """
    if not is_model(schema) and not isinstance(schema, Mapping):
        raise ToolSchemaError(
            f"the {what} of tool {tool!r} is of type {type(schema).__name__}; give a Pydantic model class, "
            "or a JSON Schema as a dict",
            tool=tool,
        )


def json_schema_of(tool: str, what: SchemaOf, schema: object) -> dict[str, Any]:
    """Return the JSON Schema of a Pydantic model, or a checked copy of one that was given.

    Args:
        tool: Name of the tool, for the error.
        what: What the schema describes.
        schema: Pydantic model class, or JSON Schema.

    Raises:
        ToolSchemaError: It is neither, a field has a type that JSON cannot carry, or
            it is for arguments and not of an object.
    """
    require_schema(tool, what, schema)
    make = _schema_of_model if is_model(schema) else _checked_schema
    found: dict[str, Any] = make(tool, what, schema)
    if what == "input_schema":
        if found.get("type", "object") != "object":
            raise ToolSchemaError(
                f"the input_schema of tool {tool!r} has type {found['type']!r}; arguments are an 'object' "
                "whose properties are the parameters",
                tool=tool,
            )
        found.setdefault("type", "object")
    return found


def _schema_of_model(tool: str, what: SchemaOf, model: Any) -> dict[str, Any]:
    mode: JsonSchemaMode = "validation" if what == "input_schema" else "serialization"
    try:
        found: dict[str, Any] = model.model_json_schema(mode=mode, schema_generator=_PlainJsonSchema)
    except PydanticUserError as error:
        raise ToolSchemaError(
            f"the {what} {model.__name__} of tool {tool!r} has a field that JSON cannot carry: "
            f"{error.message}",
            tool=tool,
        ) from None
    return found


def _checked_schema(tool: str, what: SchemaOf, schema: Any) -> dict[str, Any]:
    import jsonschema

    try:
        copied: dict[str, Any] = json.loads(json.dumps(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolSchemaError(f"the {what} of tool {tool!r} is not JSON: {error}", tool=tool) from None
    validator = jsonschema.validators.validator_for(copied, default=jsonschema.Draft202012Validator)
    try:
        validator.check_schema(copied)
    except jsonschema.SchemaError as error:
        raise ToolSchemaError(
            f"the {what} of tool {tool!r} is not a JSON Schema: {error.json_path}: {error.message}", tool=tool
        ) from None
    return copied


def model_of_signature(
    tool: str, function: Callable[..., Any], signature: inspect.Signature, descriptions: Mapping[str, str]
) -> type[BaseModel]:
    """Make a Pydantic model of a function's parameters.

    Its fields are called ``arg_0``, ``arg_1`` ... and have the parameters' names as
    aliases: a parameter may be called ``json`` or ``_x``, a field may not. A parameter
    whose hint is missing, cannot be resolved, or means nothing to Pydantic takes
    any value. ``**kwargs`` allows other names.

    Args:
        tool: Name of the tool; the schema's title.
        function: The function, for the names that its hints use.
        signature: Its signature, without a leading context parameter.
        descriptions: Parameter name to description.
    """
    fields: dict[str, tuple[Any, FieldInfo]] = {}
    extra_allowed = False
    for index, parameter in enumerate(signature.parameters.values()):
        if parameter.kind is parameter.VAR_KEYWORD:
            extra_allowed = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            hint = _usable_hint(_resolved(parameter.annotation, function))
            # "units: str = None" is wrong and common; None is then as good as left out.
            if parameter.default is None:
                hint = Optional[hint]  # noqa: UP045  # a hint may be of a type that has no |
            fields[f"arg_{index}"] = (
                hint,
                Field(
                    alias=parameter.name,
                    description=descriptions.get(parameter.name),
                    **_default(parameter.default),
                ),
            )
    config = ConfigDict(title=tool, extra="allow" if extra_allowed else "forbid")
    model: type[BaseModel] = create_model("Arguments", __config__=config, **fields)  # type: ignore[call-overload]
    return model


def output_schema_of(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Any] | None:
    """Return the JSON Schema of a function's return annotation, or None if it tells nothing."""
    hint = _resolved(signature.return_annotation, function)
    if hint in (_NO_HINT, Any):
        return None
    try:
        return TypeAdapter(hint).json_schema(mode="serialization", schema_generator=_PlainJsonSchema)
    except (PydanticUserError, TypeError):
        return None


def _resolved(annotation: Any, function: Callable[..., Any]) -> Any:
    """Evaluate one annotation; alone, so that one bad name does not spoil the others."""
    if annotation is _NO_HINT:
        return _NO_HINT

    def holder() -> None: ...

    holder.__annotations__ = {"hint": annotation}
    innermost = inspect.unwrap(getattr(function, "func", function))
    if not hasattr(innermost, "__globals__"):
        innermost = getattr(innermost, "__func__", None) or type(innermost).__call__
    names = getattr(innermost, "__globals__", {})
    try:
        return get_type_hints(holder, globalns=names, include_extras=True)["hint"]
    except Exception:  # noqa: BLE001 - evaluating somebody's annotation can raise anything
        return _NO_HINT


def _usable_hint(hint: Any) -> Any:
    if hint is _NO_HINT:
        return Any
    try:
        TypeAdapter(hint).json_schema(schema_generator=_PlainJsonSchema)
    except (PydanticUserError, TypeError):
        return Any
    return hint


def _default(default: Any) -> dict[str, Any]:
    if default is _NO_HINT:
        return {}
    try:
        if len(json.dumps(default, allow_nan=False)) <= _MAX_DEFAULT_CHARACTERS:
            return {"default": default}
    except (TypeError, ValueError, RecursionError):
        pass
    # Optional, but the schema does not show it: the function itself fills it in.
    return {"default_factory": lambda: None}
