"""What a tool returned, as JSON.

Most results are plain already, and the standard encoder's C code writes them,
asking `_plainer` about each object it does not know. Only when that fails is the
result walked in Python, to convert dictionary keys, which the encoder does not ask
about, or else to name the place of what cannot be sent.

NumPy and pandas are looked up in ``sys.modules``: an object of theirs cannot exist
unless they have been imported, and importing them for nothing would cost seconds.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import inspect
import ipaddress
import json
import os
import sys
import uuid
from collections.abc import Mapping
from typing import Any

from codemode.errors import ToolResultError

__all__ = ["encode_result"]

_TEXT_TYPES = (
    decimal.Decimal,
    uuid.UUID,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
)
_UNKNOWN = object()


def encode_result(value: Any, *, max_bytes: int | None = None) -> bytes:
    """Encode what a tool returned as JSON, in UTF-8.

    Besides what JSON has: tuples, sets, deques and ranges become lists; dataclasses and
    Pydantic models objects; dates and times ISO 8601 strings; a ``timedelta`` its
    seconds; Decimal, UUID and paths strings; an Enum its value; NumPy scalars and
    arrays numbers and lists; a DataFrame a list of records, with named index levels
    among the columns; a Series a list, or an object if it has an index of its own.
    NaN and infinities are written as Python's ``json`` reads them.

    Args:
        value: The result.
        max_bytes: Longest encoding, the limit ``message_bytes``; None for any.

    Raises:
        ToolResultError: It holds something that cannot be sent, or is too long.
    """
    try:
        text = _dumps(value)
    except (TypeError, ValueError, RecursionError):
        try:
            text = _dumps(_plain(value, "result", ()))
        except RecursionError:
            raise ToolResultError(
                "the tool's result is nested too deeply to send; return a flatter structure", path="result"
            ) from None
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can write only as an escape.
        encoded = json.dumps(json.loads(text)).encode()
    if max_bytes is not None and len(encoded) > max_bytes:
        raise ToolResultError(
            f"the tool's result is {len(encoded):,} bytes of JSON, above the limit message_bytes of "
            f"{max_bytes:,}; return less, such as a summary, a page, or the rows that are needed",
            path="result",
            limit="message_bytes",
        )
    return encoded


def _dumps(value: Any) -> str:
    return json.dumps(value, default=_plainer_or_error, ensure_ascii=False, separators=(",", ":"))


def _plainer_or_error(value: Any) -> Any:
    plainer = _plainer(value)
    if plainer is _UNKNOWN:
        raise TypeError
    return plainer


def _plain(value: Any, path: str, around: tuple[int, ...]) -> Any:
    """Convert a result all the way, or raise an error that names the place."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if id(value) in around:
        raise ToolResultError(f"{path} contains itself; return a structure without cycles", path=path)
    around = (*around, id(value))
    if isinstance(value, dict):
        plain: dict[str, Any] = {}
        for key, item in value.items():
            name = _key(key, path)
            if name in plain:
                raise ToolResultError(
                    f"{path} has two keys that are both {name!r} in JSON; make its keys distinct strings",
                    path=path,
                )
            plain[name] = _plain(item, f"{path}[{key!r}]", around)
        return plain
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{index}]", around) for index, item in enumerate(value)]
    try:
        plainer = _plainer(value)
    except (TypeError, ValueError) as error:
        raise ToolResultError(
            f"{path} is of type {_type_name(value)}, which could not be converted to JSON: {error}", path=path
        ) from None
    if plainer is _UNKNOWN:
        raise ToolResultError(
            f"{path} is of type {_type_name(value)}, which cannot be sent to the code that called the tool; "
            f"{_advice(value)}",
            path=path,
        )
    return _plain(plainer, path, around)


def _plainer(value: Any) -> Any:
    """Return something closer to JSON that stands for this object, or `_UNKNOWN`."""
    if isinstance(value, enum.Enum):
        return value.value
    # pandas first: its NaT is a datetime.
    if (of_library := _plainer_of_library(value)) is not _UNKNOWN:
        return of_library
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, _TEXT_TYPES):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, collections.deque | range | tuple):
        return list(value)
    if isinstance(value, set | frozenset):
        # Sorted where they can be, so that the same result is the same text.
        try:
            return sorted(value)
        except TypeError:
            return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    return _UNKNOWN


def _plainer_of_library(value: Any) -> Any:
    if (pydantic := sys.modules.get("pydantic")) is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    if (numpy := sys.modules.get("numpy")) is not None and isinstance(value, numpy.generic | numpy.ndarray):
        if value.dtype.kind in "mM":
            # Beyond microseconds Python's own types end, and NumPy would give bare integers.
            return value.astype(f"{value.dtype.kind}8[us]").tolist()
        if value.dtype.kind in "VSc":
            return _UNKNOWN
        if value.dtype.kind == "f":
            # tolist() of extended precision would give back what it was given.
            value = value.astype("float64")
        return value.tolist()
    if (pandas := sys.modules.get("pandas")) is None:
        return _UNKNOWN
    if value is pandas.NaT or value is pandas.NA:
        return None
    if isinstance(value, pandas.DataFrame):
        return _records(value)
    if isinstance(value, pandas.Series):
        if isinstance(value.index, pandas.RangeIndex):
            return _none_for_missing(value).tolist()
        return _none_for_missing(value).to_dict() if value.index.is_unique else _records(value.reset_index())
    if isinstance(value, pandas.Index | pandas.api.extensions.ExtensionArray):
        return value.tolist()
    if isinstance(value, pandas.Period | pandas.Interval):
        return str(value)
    return _UNKNOWN


def _records(frame: Any) -> list[dict[Any, Any]]:
    if any(name is not None for name in frame.index.names):
        # The groups of a groupby(), for one, are in a named index.
        frame = frame.reset_index()
    if not frame.columns.is_unique:
        raise ValueError("it has two columns of the same name; rename one")
    frame = frame.copy(deep=False)
    for name in frame.columns:
        frame[name] = _none_for_missing(frame[name])
    records: list[dict[Any, Any]] = frame.to_dict(orient="records")
    return records


def _none_for_missing(column: Any) -> Any:
    # Among numbers a NaN is one of them; anywhere else it stands for nothing.
    if column.dtype.kind == "f" or not column.hasnans:
        return column
    return column.astype(object).where(column.notna(), None)


def _key(key: Any, path: str) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, str):
        return key
    plain = key if key is None or isinstance(key, bool | int | float) else _plainer(key)
    if plain is None or isinstance(plain, bool | int | float):
        return json.dumps(plain)
    if isinstance(plain, str):
        return plain
    raise ToolResultError(
        f"{path} has a key of type {_type_name(key)} ({str(key)[:80]!r}), and JSON keys are strings; "
        "return a dict with string keys, or a list of records",
        path=path,
    )


def _type_name(value: Any) -> str:
    of = type(value)
    return of.__qualname__ if of.__module__ == "builtins" else f"{of.__module__}.{of.__qualname__}"


def _advice(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return "return text, for instance base64.b64encode(...).decode()"
    if inspect.isawaitable(value):
        return "await it in the tool, and return what it gives"
    if inspect.isgenerator(value) or hasattr(value, "__next__"):
        return "return list(...) of it"
    if isinstance(value, complex):
        return "return its parts, [value.real, value.imag]"
    if isinstance(value, BaseException):
        return "raise it, or return its message"
    return "return a dict, list, string or number made from it"
