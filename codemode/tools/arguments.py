"""Arguments of a tool call: from what the code passed to what the tool is given.

The code may be wrong or hostile, and often was written by a model that reads
the error and tries again: a refusal names the parameter and shows the signature.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from pydantic import AliasChoices, BaseModel, ValidationError

from codemode.errors import ToolArgumentError, ToolSchemaError

__all__ = [
    "ArgumentCheck",
    "JsonSchemaCheck",
    "ModelCheck",
    "Problem",
    "named_arguments",
    "refusal",
    "unexpected",
]

_MAX_PROBLEMS = 8
_MAX_PROBLEM_CHARACTERS = 300

Problem = tuple[str, str]
"""Path of the offending argument, and what is wrong with it in words that name it."""


class WrongArgumentsError(Exception):
    """Raised within this package only; `refusal` makes the public error of it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        super().__init__()
        self.problems = list(problems)


class ArgumentCheck(Protocol):
    """Checks arguments by name; `ToolBinding` calls it before every call of the tool."""

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what to pass to the tool, by parameter name.

        Raises:
            WrongArgumentsError: They are not what the tool takes.
        """


class ModelCheck:
    """Checks arguments against a Pydantic model, and passes on its values."""

    def __init__(self, model: type[BaseModel], *, by_alias: bool, fill_in: Collection[str] | None) -> None:
        """Prepare the check.

        Args:
            model: The model.
            by_alias: Whether the tool's parameters have the names of the fields'
                aliases instead of their own.
            fill_in: Parameters that get the model's default when they were not
                passed; None for all.
        """
        self._model = model
        self._by_alias = by_alias
        self._fill_in = fill_in
        self._extra_allowed = model.model_config.get("extra") == "allow"
        self._accepted = _accepted_names(model)

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Validate, see `ArgumentCheck`."""
        # Pydantic ignores names it does not know by default; here that hides a mistake.
        unknown = [] if self._extra_allowed else [name for name in values if name not in self._accepted]
        problems = [unexpected(name, self._accepted) for name in unknown]
        try:
            instance = self._model.model_validate({k: v for k, v in values.items() if k not in unknown})
        except ValidationError as error:
            problems += map(_model_problem, error.errors(include_url=False))
        except RecursionError:
            problems.append(("", "an argument is nested too deeply"))
        if problems:
            raise WrongArgumentsError(problems)
        passed = dict(instance.__pydantic_extra__ or {})
        for name, info in type(instance).model_fields.items():
            target = info.alias if self._by_alias and info.alias else name
            if name in instance.model_fields_set or self._fill_in is None or target in self._fill_in:
                passed[target] = getattr(instance, name)
        return passed


class JsonSchemaCheck:
    """Checks arguments against a JSON Schema, and passes them on as they are."""

    def __init__(self, tool: str, schema: dict[str, Any]) -> None:
        """Prepare the check.

        Args:
            tool: Name of the tool, for the error.
            schema: A schema that `json_schema_of` has found to be one.
        """
        import jsonschema
        import referencing

        validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        # An empty registry: a "$ref" to some address must not make this process fetch it.
        self._validator = validator(schema, registry=referencing.Registry())
        self._unresolvable = referencing.exceptions.Unresolvable
        self._tool = tool

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Validate, see `ArgumentCheck`.

        Raises:
            ToolSchemaError: The schema refers to something outside of it.
        """
        try:
            errors = list(self._validator.iter_errors(dict(values)))
        except RecursionError:
            raise WrongArgumentsError([("", "an argument is nested too deeply")]) from None
        except self._unresolvable as error:
            raise ToolSchemaError(
                f"the input_schema of tool {self._tool!r} refers to {error.ref!r}, which is not in it; "
                "nothing is fetched, so put it under '$defs'",
                tool=self._tool,
            ) from None
        if errors:
            # Without repetitions: each missing name is an error, and each such error lists them all.
            raise WrongArgumentsError(
                dict.fromkeys(problem for error in errors for problem in self._read(error))
            )
        return dict(values)

    def _read(self, error: Any) -> list[Problem]:
        at = ".".join(map(str, error.absolute_path))
        prefix = f"{at}." if at else ""
        if error.validator == "required":
            missing = [prefix + name for name in error.validator_value if name not in error.instance]
            return [(path, f"missing {path!r}") for path in missing]
        if error.validator == "additionalProperties" and error.validator_value is False:
            patterns = error.schema.get("patternProperties", {})
            known = list(error.schema.get("properties", {}))
            return [
                unexpected(name, known, prefix)
                for name in error.instance
                if name not in known and not any(re.search(pattern, name) for pattern in patterns)
            ]
        return [(at, f"{at}: {error.message}" if at else error.message)]


def named_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any], *, positional: Sequence[str], more_positional: bool
) -> tuple[dict[str, Any], list[Any]]:
    """Give positional arguments their parameters' names.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        positional: Names of the parameters that take positional arguments, in order.
        more_positional: Whether the tool takes any number of further ones.

    Returns:
        The arguments by name, and the positional ones beyond the named.

    Raises:
        WrongArgumentsError: There are too many, or one is given twice.
    """
    if len(args) > len(positional) and not more_positional:
        takes = f"at most {len(positional)} positional arguments" if positional else "keyword arguments only"
        raise WrongArgumentsError([("", f"it takes {takes}, and {len(args)} were given by position")])
    values = dict(zip(positional, args, strict=False))
    if twice := [name for name in kwargs if name in values]:
        raise WrongArgumentsError(
            (name, f"{name!r} is given twice, by position and by name") for name in twice
        )
    return {**values, **kwargs}, list(args[len(positional) :])


def refusal(tool: str, signature: str, problems: Sequence[Problem]) -> ToolArgumentError:
    """Return the error that tells the caller what is wrong with its arguments."""
    texts = [_bounded(text) for _, text in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        texts.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    return ToolArgumentError(
        f"wrong arguments for tool {tool!r}: {'; '.join(texts)}. Call it as {tool}{signature}",
        tool=tool,
        fields=tuple(dict.fromkeys(path for path, _ in problems if path)),
        signature=signature,
    )


def _accepted_names(model: type[BaseModel]) -> list[str]:
    by_name = model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name")
    names: list[str] = []
    for name, info in model.model_fields.items():
        alias = info.validation_alias or info.alias
        if alias is None or by_name:
            names.append(name)
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias] if alias else []
        # Of an AliasPath, which reads from within another argument, the first step is its name.
        names += [choice if isinstance(choice, str) else str(choice.path[0]) for choice in choices]
    return names


def _model_problem(error: Mapping[str, Any]) -> Problem:
    path = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return path, f"missing {path!r}"
    if error["type"] == "extra_forbidden":
        return path, f"unexpected {path!r}"
    return path, f"{path}: {error['msg']}" if path else str(error["msg"])


def unexpected(name: str, known: Collection[str], prefix: str = "") -> Problem:
    """Return the problem with an argument that the tool does not know, and the name that was meant."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {prefix + near[0]!r}?)" if near else ""
    return prefix + name, f"unexpected {prefix + name!r}{hint}"


def _bounded(text: str) -> str:
    return text if len(text) <= _MAX_PROBLEM_CHARACTERS else text[: _MAX_PROBLEM_CHARACTERS - 3] + "..."
