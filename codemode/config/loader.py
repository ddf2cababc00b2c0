"""Configuration files: YAML, with variables of the environment in it.

``${NAME}`` in a string is replaced by the environment variable, ``${NAME:-default}``
by the default if that is not set or empty, and ``$${`` stands for ``${``. It is done on the
values after the YAML has been read, so a variable can never add keys to a file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from codemode.config.client import ClientConfig
from codemode.config.legacy import CodemodeConfig
from codemode.errors import ConfigFileNotFoundError, ConfigLoadError

__all__ = ["load_client_config", "load_config", "valid_client_config"]

_VARIABLE = re.compile(
    r"\$(?P<escaped>\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<malformed>\$\{)"
)

M = TypeVar("M", bound=BaseModel)


def load_client_config(path: str | Path, **parameters: Any) -> ClientConfig:
    """Read a ``codemode-client.yaml``.

    Its keys are the fields of `ClientConfig`. A field that it does not have is read
    from the environment, and a parameter goes before both.

    Args:
        path: The file.
        **parameters: Fields that are given here instead.

    Raises:
        ConfigFileNotFoundError: There is no such file; it is a FileNotFoundError.
        ConfigLoadError: It is not YAML, names an environment variable that is not set,
            or has an unknown key or a wrong value; it is a ValueError.
    """
    loaded = _load(path)
    return valid_client_config(ClientConfig, {**loaded, **parameters}, source=str(path), path=str(path))


def load_config(path: str | Path) -> CodemodeConfig:
    """Read a ``codemode.yaml``, the older configuration file.

    Args:
        path: The file.

    Raises:
        ConfigFileNotFoundError: There is no such file; it is a FileNotFoundError.
        ConfigLoadError: As for `load_client_config`.
    """
    loaded = _load(path)
    try:
        return CodemodeConfig.model_validate(loaded)
    except ValidationError as error:
        raise _load_error(error, CodemodeConfig, source=str(path), path=str(path)) from None


def valid_client_config(
    of: type[ClientConfig], fields: Mapping[str, Any], *, source: str, path: str = ""
) -> ClientConfig:
    """Return the configuration of these fields and, for the rest, the environment.

    Args:
        of: The class to make.
        fields: Fields by name.
        source: Where they come from, for the error.
        path: The same, if it is a file.

    Raises:
        ConfigLoadError: A field is missing, unknown, or has a wrong value.
    """
    try:
        return of(**fields)
    except ValidationError as error:
        raise _load_error(error, of, source=source, path=path) from None
    except SettingsError as error:
        # A variable of a section, such as CODEMODE_TLS, that is not JSON.
        raise ConfigLoadError(f"{source}: {error}", path=path) from None


def _load(path: str | Path) -> dict[str, Any]:
    import yaml

    from codemode.config.yaml_reader import read_yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigFileNotFoundError(
            f"there is no configuration file {str(path)!r}; create it, or give another path", path=str(path)
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigLoadError(f"cannot read the configuration file {path}: {error}", path=str(path)) from None
    try:
        loaded = read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigLoadError(f"{path} is not valid YAML: {_yaml_problem(error)}", path=str(path)) from None
    except (ValueError, RecursionError) as error:
        # A date such as 2024-13-01, or nesting without end.
        raise ConfigLoadError(f"{path} is not valid YAML: {error}", path=str(path)) from None
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise ConfigLoadError(
            f"{path} holds a {type(loaded).__name__}; a configuration is keys with values, such as "
            "'executor_url: http://localhost:8001'",
            path=str(path),
        )
    substituted: dict[str, Any] = _substituted(loaded, "", str(path))
    return substituted


def _substituted(value: Any, key: str, path: str) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(match, key, path), value)
    if isinstance(value, list):
        return [_substituted(item, f"{key}[{index}]", path) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {
            str(name): _substituted(item, f"{key}.{name}" if key else str(name), path)
            for name, item in value.items()
        }
    return value


def _variable(match: re.Match[str], key: str, path: str) -> str:
    if match["escaped"]:
        return "${"
    if match["malformed"]:
        raise ConfigLoadError(
            f"{path}: {key}: '${{' begins no variable; write ${{NAME}} or ${{NAME:-default}}, or $${{ for "
            "the characters themselves",
            path=path,
            keys=(key,),
        )
    name, default = match["name"], match["default"]
    value = os.environ.get(name)
    # As in a shell, ":-" also stands in for a variable that is set to nothing.
    if default is not None:
        return value or default
    if value is None:
        raise ConfigLoadError(
            f"{path}: {key}: the environment variable {name} is not set; set it, or give a default with "
            f"${{{name}:-default}}",
            path=path,
            keys=(key,),
        )
    return value


def _load_error(error: ValidationError, of: type[BaseModel], *, source: str, path: str) -> ConfigLoadError:
    """Tell what is wrong by key, and never the values: one of them is the API key."""
    problems, keys = [], []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        key = ".".join(map(str, item["loc"]))
        if key not in keys and key:
            keys.append(key)
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown key {key!r}{_did_you_mean(item['loc'], of)}")
        elif item["type"] == "missing":
            problems.append(f"{key!r} is missing")
        else:
            said = item["msg"].removeprefix("Value error, ")
            problems.append(f"{key}: {said}" if key else said)
    return ConfigLoadError(f"{source}: {'; '.join(dict.fromkeys(problems))}", path=path, keys=tuple(keys))


def _did_you_mean(location: tuple[int | str, ...], of: type[BaseModel]) -> str:
    for step in location[:-1]:
        annotation = of.model_fields[str(step)].annotation
        if not isinstance(annotation, type) or not issubclass(annotation, BaseModel):
            return ""
        of = annotation
    near = difflib.get_close_matches(str(location[-1]), of.model_fields, n=1)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f" (known keys: {', '.join(of.model_fields)})"


def _yaml_problem(error: Any) -> str:
    # The error's own text quotes the line, which may hold the API key.
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be read"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark is not None else str(problem)
