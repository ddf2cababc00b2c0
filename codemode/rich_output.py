"""Rich output: figures, tables and HTML, as MIME bundles.

A bundle comes out of a sandbox as JSON that hostile code may have written. It
is only ever data here, bounded in size and depth, with values of the types
that Jupyter's messages have; no object is rebuilt from it. Whether its HTML may
be shown as it is remains the decision of who shows it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from codemode.errors import ProtocolError

__all__ = ["OutputKind", "RichOutput", "parse_rich_output"]

OutputKind = Literal["display_data", "update_display_data", "execute_result", "clear_output"]
"""The kinds of Jupyter's messages of the same names."""

DEFAULT_MAX_CHARACTERS = 32 * 1024 * 1024
MAX_DEPTH = 64
MAX_MEDIA_TYPES = 64
MAX_NAME_CHARACTERS = 256

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+;= -]*")
_JSON_MEDIA_TYPE = re.compile(r"application/(.+\+)?json", re.IGNORECASE)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class RichOutput:
    """One rich output of an execution; a notebook shows it when it is a cell's value.

    Attributes:
        kind: What to do with it: show it, show it as the cell's value, replace an
            earlier one, or (``clear_output``) clear what was shown.
        data: MIME type to content. Text and base64 of binary content are
            strings; content of JSON types is any JSON value.
        metadata: MIME type to metadata, as Jupyter has it.
        transient: ``display_id`` of an output that may be replaced later.
        wait: For ``clear_output``: clear only when the next output comes.
    """

    kind: OutputKind
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    transient: dict[str, Any] = field(default_factory=dict)
    wait: bool = False

    def _repr_mimebundle_(
        self, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return data and metadata for IPython's display, of the MIME types it asks for."""
        included = set(include) if include else set(self.data)
        chosen = included.difference(exclude or ())
        return {name: content for name, content in self.data.items() if name in chosen}, dict(self.metadata)

    def __repr__(self) -> str:
        """Return the kind and the MIME types; the contents may be megabytes."""
        return f"<RichOutput {self.kind} {', '.join(self.data) or 'empty'}>"


def parse_rich_output(
    kind: str, content_json: str, *, max_characters: int = DEFAULT_MAX_CHARACTERS
) -> RichOutput:
    """Read the content of one display event of a sandbox.

    ``NaN`` and infinities, which JSON does not have, are read as None, and half
    of a surrogate pair as U+FFFD: a notebook could store neither.

    Args:
        kind: One of `OutputKind`.
        content_json: JSON object ``{"data": {...}, "metadata": {...}, "transient": {...}}``,
            or ``{"wait": bool}`` for ``clear_output``.
        max_characters: Longest content that is read.

    Raises:
        ProtocolError: The content is none of that, too long, or too deeply nested.
    """
    if kind not in get_args(OutputKind):
        raise ProtocolError(f"the sandbox sent a display of unknown kind {kind[:MAX_NAME_CHARACTERS]!r}")
    content = _read_object(kind, content_json, max_characters)
    if kind == "clear_output":
        wait = content.get("wait", False)
        if not isinstance(wait, bool):
            raise ProtocolError(
                f"the sandbox sent a clear_output whose 'wait' is {type(wait).__name__}, not bool"
            )
        return RichOutput("clear_output", wait=wait)
    data = _member(kind, content, "data")
    if len(data) > MAX_MEDIA_TYPES:
        raise ProtocolError(
            f"the sandbox sent a {kind} of {len(data)} MIME types; at most {MAX_MEDIA_TYPES} are read"
        )
    return RichOutput(
        kind,  # type: ignore[arg-type]  # checked against OutputKind above
        data={name: _media_content(kind, name, item) for name, item in data.items()},
        metadata=_member(kind, content, "metadata"),
        transient=_transient(kind, _member(kind, content, "transient")),
    )


def _read_object(kind: str, text: str, max_characters: int) -> dict[str, Any]:
    if len(text) > max_characters:
        raise ProtocolError(
            f"the sandbox sent a {kind} of {len(text)} characters; at most {max_characters} are read"
        )
    try:
        content = json.loads(text, parse_constant=lambda _constant: None)
    except RecursionError:
        raise ProtocolError(f"the sandbox sent a {kind} that is nested too deeply to read") from None
    except ValueError as error:
        # The decoder's message tells a position and no content.
        raise ProtocolError(f"the sandbox sent a {kind} that is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ProtocolError(
            f"the sandbox sent a {kind} that is a JSON {type(content).__name__}, not an object"
        )
    cleaned: dict[str, Any] = _cleaned(kind, content, 0)
    return cleaned


def _cleaned(kind: str, value: Any, depth: int) -> Any:
    if isinstance(value, str):
        # isascii() first: it is what makes a large base64 image cheap.
        return value if value.isascii() else _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, float):
        # 1e999 is JSON, and read as infinity.
        return value if math.isfinite(value) else None
    if depth > MAX_DEPTH:
        raise ProtocolError(f"the sandbox sent a {kind} nested more than {MAX_DEPTH} deep")
    if isinstance(value, list):
        return [_cleaned(kind, item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_cleaned(kind, name, depth): _cleaned(kind, item, depth + 1) for name, item in value.items()}
    return value


def _member(kind: str, content: dict[str, Any], name: str) -> dict[str, Any]:
    member = content.get(name)
    if member is None:
        return {}
    if not isinstance(member, dict):
        raise ProtocolError(f"the sandbox sent a {kind} whose {name!r} is not a JSON object")
    return member


def _media_content(kind: str, name: str, content: Any) -> Any:
    if len(name) > MAX_NAME_CHARACTERS or not _MEDIA_TYPE.fullmatch(name):
        raise ProtocolError(
            f"the sandbox sent a {kind} with {name[:MAX_NAME_CHARACTERS]!r}, which is not a MIME type"
        )
    if isinstance(content, str) or _JSON_MEDIA_TYPE.fullmatch(name):
        return content
    # Notebooks on disk hold text as a list of its lines, and some libraries send that.
    if isinstance(content, list) and all(isinstance(line, str) for line in content):
        return "".join(content)
    raise ProtocolError(f"the sandbox sent a {kind} whose {name} is {type(content).__name__}, not text")


def _transient(kind: str, transient: dict[str, Any]) -> dict[str, Any]:
    display_id = transient.get("display_id")
    if display_id is None:
        return {}
    if not isinstance(display_id, str) or len(display_id) > MAX_NAME_CHARACTERS:
        raise ProtocolError(f"the sandbox sent a {kind} whose display_id is not a short string")
    return {"display_id": display_id}
