import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codemode.errors import ProtocolError
from codemode.rich_output import MAX_MEDIA_TYPES, RichOutput, parse_rich_output

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def parse(content: object, kind: str = "display_data") -> RichOutput:
    return parse_rich_output(kind, json.dumps(content))


def test_a_bundle_is_read() -> None:
    output = parse(
        {
            "data": {"text/plain": "x", "image/png": "aGk=", "application/vnd.vega.v5+json": {"a": [1]}},
            "metadata": {"image/png": {"width": 3}},
            "transient": {"display_id": "d1"},
        },
        "execute_result",
    )
    assert output.kind == "execute_result"
    assert output.data["application/vnd.vega.v5+json"] == {"a": [1]}
    assert output.metadata == {"image/png": {"width": 3}}
    assert output.transient == {"display_id": "d1"}


def test_a_display_hook_is_given_data_and_metadata() -> None:
    output = RichOutput("display_data", {"text/plain": "x", "text/html": "<b>"}, {"text/html": {"a": 1}})
    assert output._repr_mimebundle_() == (output.data, output.metadata)
    assert output._repr_mimebundle_(include={"text/plain"})[0] == {"text/plain": "x"}
    assert output._repr_mimebundle_(exclude={"text/plain"})[0] == {"text/html": "<b>"}


def test_clear_output_tells_whether_to_wait() -> None:
    assert parse({"wait": True}, "clear_output").wait is True
    assert parse({}, "clear_output").wait is False


def test_text_as_a_list_of_lines_is_joined() -> None:
    assert parse({"data": {"text/html": ["<b>\n", "</b>"]}}).data == {"text/html": "<b>\n</b>"}


def test_what_a_notebook_cannot_store_is_replaced() -> None:
    content = (
        '{"data": {"application/json": [NaN, -Infinity, 1e999], "text/plain": "\\ud800 \\ud83d\\ude00"}}'
    )
    assert parse_rich_output("display_data", content).data == {
        "application/json": [None, None, None],
        "text/plain": "\ufffd \U0001f600",
    }


def test_transient_data_other_than_a_display_id_is_dropped() -> None:
    assert parse({"transient": {"x": {}}}).transient == {}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "not JSON"),
        ("[]", "JSON list"),
        ("null", "NoneType"),
        ('{"data": []}', "'data' is not a JSON object"),
        ('{"metadata": "x"}', "'metadata' is not a JSON object"),
        ('{"data": {"text/html": {"a": 1}}}', "text/html is dict, not text"),
        ('{"data": {"text/plain": [1]}}', "text/plain is list, not text"),
        ('{"data": {"nonsense": "x"}}', "not a MIME type"),
        ('{"data": {"text/plain\\n": "x"}}', "not a MIME type"),
        ('{"transient": {"display_id": 3}}', "display_id"),
        ('{"data": {"application/json": ' + "9" * 5000 + "}}", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"data": {"application/json": ' + "[" * 80 + "]" * 80 + "}}", "nested more than 64 deep"),
        ('{"data": {"application/json": ' + '{"a":' * 80 + "1" + "}" * 80 + "}}", "nested more than 64 deep"),
    ],
)
def test_hostile_content_is_refused(content: Any, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        parse_rich_output("display_data", content)


def test_content_beyond_the_bound_is_refused_unread() -> None:
    with pytest.raises(ProtocolError, match="30 characters; at most 20"):
        parse_rich_output("display_data", "x" * 30, max_characters=20)


def test_too_many_mime_types_are_refused() -> None:
    with pytest.raises(ProtocolError, match="MIME types"):
        parse({"data": {f"text/x{number}": "" for number in range(MAX_MEDIA_TYPES + 1)}})


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ProtocolError, match="unknown kind 'erase_disk'"):
        parse({}, "erase_disk")


def test_a_wait_that_is_no_bool_is_refused() -> None:
    with pytest.raises(ProtocolError, match="'wait'"):
        parse({"wait": "yes"}, "clear_output")


@given(st.text() | JSON.map(json.dumps), st.sampled_from(["display_data", "clear_output"]))
@example('{"data": null}', "display_data")
def test_anything_is_read_or_refused_and_nothing_else(content: Any, kind: str) -> None:
    try:
        output = parse_rich_output(kind, content)
    except ProtocolError:
        return
    json.dumps(output.data, allow_nan=False).encode()


@given(JSON)
def test_json_content_comes_through_unchanged(content: Any) -> None:
    assert parse({"data": {"application/json": content}}).data == {"application/json": content}
