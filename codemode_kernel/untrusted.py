"""Making the rich output of a sandbox harmless to look at.

A notebook shows the output of a cell that was just run as trusted: its HTML goes
into the page as it is, and a script in it can do in Jupyter whatever the person
can, outside of any sandbox. So a sandbox's bundle is reduced here, before it
reaches the notebook, to what Jupyter shows of a notebook that is *not* trusted, and
to what makes a browser load nothing: an image's address can carry secrets away.

What passes is listed, not what does not: new media types come with new extensions.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import nh3

from codemode.rich_output import RichOutput

__all__ = ["harmless"]

# Shown by Jupyter as text, as an image, or as data that a renderer of the front end draws.
_PASSIVE = re.compile(
    r"text/(plain|latex|csv)|image/(png|jpeg|gif|webp|bmp|svg\+xml)"
    r"|application/(json|geo\+json|vnd\.dataresource\+json|vnd\.plotly\.v1\+json|vnd\.vega(lite)?\.v\d+\+json)"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
_INLINE_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp|bmp|svg\+xml);base64,[A-Za-z0-9+/=\s]*")
_WEB_ADDRESS = re.compile(r"(https?:|mailto:|#)", re.IGNORECASE)

_ATTRIBUTES = {tag: set(names) for tag, names in nh3.ALLOWED_ATTRIBUTES.items()}
_ATTRIBUTES["*"] = {"class", "style", "title", "dir", "lang"}
_ATTRIBUTES["table"] |= {"border", "width", "cellpadding", "cellspacing"}
_ATTRIBUTES["details"] = {"open"}
for _cell in ("td", "th", "tr"):
    _ATTRIBUTES[_cell] |= {"valign", "width", "height"}
# None that moves an element out of its cell, or that takes an address.
_STYLE = {
    "border",
    "border-bottom",
    "border-collapse",
    "border-color",
    "border-left",
    "border-radius",
    "border-right",
    "border-spacing",
    "border-style",
    "border-top",
    "border-width",
    "color",
    "display",
    "font-family",
    "font-size",
    "font-style",
    "font-weight",
    "height",
    "line-height",
    "margin",
    "margin-bottom",
    "margin-left",
    "margin-right",
    "margin-top",
    "max-height",
    "max-width",
    "min-height",
    "min-width",
    "overflow",
    "overflow-x",
    "overflow-y",
    "padding",
    "padding-bottom",
    "padding-left",
    "padding-right",
    "padding-top",
    "text-align",
    "text-decoration",
    "text-indent",
    "text-transform",
    "vertical-align",
    "white-space",
    "width",
    "word-break",
    "background-color",
}
# A colour too can be given as an address: `url(...)` and its kin, spelled out or with escapes.
_STYLE_ADDRESS = re.compile(r"\\|/\*|@|(?<!rgb)(?<!rgba)(?<!hsl)(?<!hsla)\(", re.IGNORECASE)
# JupyterLab acts on classes of its own.
_FRONT_END_CLASS = re.compile(r"\b(jp|lm|p|cm|jupyter|jl)-", re.IGNORECASE)

_WORD_JOINER = "\u2060"
# In Markdown: what may begin HTML or a bracketed link, an image, or a character that was written as a number.
_MARKDOWN_OPENER = re.compile(r"<|!(?=\[)|&(?!(?:lt|gt|amp|quot|nbsp);)")
_MARKDOWN_SCRIPT = re.compile(r"((?:java|vb)script)(?=\\?:)", re.IGNORECASE)
_ACTIVE_HTML = re.compile(r"<\s*(script|iframe|object|embed)\b", re.IGNORECASE)


def harmless(output: RichOutput) -> tuple[RichOutput, bool]:
    """Reduce an output to what may be shown without trusting it.

    Returns:
        The output, and whether something active was left out. Where nothing else is
        left, the output says so in plain text.
    """
    data: dict[str, Any] = {}
    active = False
    for media_type, content in output.data.items():
        if media_type == "text/html" and isinstance(content, str):
            active = active or _ACTIVE_HTML.search(content) is not None
            data[media_type] = _harmless_html(content)
        elif media_type == "text/markdown" and isinstance(content, str):
            data[media_type] = _harmless_markdown(content)
        elif _PASSIVE.fullmatch(media_type) and not _is_forged_image(media_type, content):
            data[media_type] = content
        else:
            active = True
    if output.data and not data:
        names = ", ".join(output.data)
        data["text/plain"] = f"[{names} of a sandbox is not shown]"
    return replace(output, data=data, metadata=_metadata_of(data, output.metadata)), active


def _harmless_html(html: str) -> str:
    return nh3.clean(
        html,
        attributes=_ATTRIBUTES,
        attribute_filter=_harmless_attribute,
        filter_style_properties=_STYLE,
        url_schemes={"http", "https", "mailto", "data"},
    )


def _harmless_attribute(tag: str, name: str, value: str) -> str | None:
    if name == "src":
        return value if _INLINE_IMAGE.fullmatch(value) else None
    if name == "href":
        return value if _WEB_ADDRESS.match(value) else None
    if name == "style":
        return None if _STYLE_ADDRESS.search(value) else value
    if name == "class":
        return None if _FRONT_END_CLASS.search(value) else value
    return value


def _harmless_markdown(text: str) -> str:
    """Keep HTML, images and script addresses of Markdown from being more than text.

    Taking HTML out would need the very parser that shows it: two that disagree
    leave a way through. A joiner, which has no width, ends the meaning of what it
    follows and leaves the text as it looks, in code too.
    """
    text = _MARKDOWN_OPENER.sub(lambda match: match[0] + _WORD_JOINER, text)
    return _MARKDOWN_SCRIPT.sub(lambda match: match[0] + _WORD_JOINER, text)


def _is_forged_image(media_type: str, content: Any) -> bool:
    """Whether it says to be an image but is not base64: exporters put it into an attribute."""
    if not media_type.startswith("image/") or media_type == "image/svg+xml":
        return False
    return not (isinstance(content, str) and _BASE64.fullmatch(content))


def _metadata_of(data: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """The sizes of images; other metadata chooses other ways of showing."""
    kept: dict[str, Any] = {}
    for media_type in data.keys() & metadata.keys():
        sizes = metadata[media_type]
        if media_type.startswith("image/") and isinstance(sizes, dict):
            kept[media_type] = {
                name: sizes[name]
                for name in ("width", "height")
                if isinstance(sizes.get(name), int | float) and not isinstance(sizes[name], bool)
            }
    return kept
