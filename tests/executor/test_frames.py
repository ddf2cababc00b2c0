"""The two layers of frames, whatever bytes come and however they are cut."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from codemode_sandbox.frames import (
    LINK_HEADER,
    MAX_LINK_PAYLOAD,
    MAX_MESSAGE,
    MAX_MESSAGE_HEAD,
    MESSAGE_HEADER,
    FrameError,
    LinkFrame,
    LinkReader,
    Message,
    MessageReader,
    decode_head,
    pack_data,
    pack_link,
    pack_message,
)
from hypothesis import given
from hypothesis import strategies as st

kinds = st.integers(0, 255)
link_frames = st.lists(st.builds(LinkFrame, kinds, kinds, st.binary(max_size=300)), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
heads = st.dictionaries(st.text(max_size=8), st.recursive(scalars, st.lists, max_leaves=8), max_size=4)
messages = st.lists(st.builds(Message, kinds, heads, st.binary(max_size=300)), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The same bytes in pieces, some of them empty."""
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def feed(reader: Any, pieces: list[bytes]) -> list[Any]:
    return [item for piece in pieces for item in reader.feed(piece)]


@given(link_frames, st.lists(st.integers(0, 10**6), max_size=20))
def test_link_frames_are_the_same_however_the_stream_is_cut(
    frames: list[LinkFrame], places: list[int]
) -> None:
    data = b"".join(pack_link(frame.kind, frame.channel, frame.payload) for frame in frames)
    assert feed(LinkReader(), cut(data, places)) == frames


@given(messages, st.lists(st.integers(0, 10**6), max_size=20))
def test_messages_are_the_same_however_the_stream_is_cut(said: list[Message], places: list[int]) -> None:
    data = b"".join(pack_message(message.kind, message.head, message.body) for message in said)
    assert feed(MessageReader(), cut(data, places)) == said


@given(messages, st.lists(st.integers(0, 10**6), max_size=5))
def test_messages_survive_both_layers(said: list[Message], places: list[int]) -> None:
    data = b"".join(pack_message(message.kind, message.head, message.body) for message in said)
    stream = b"".join(pack_data(7, piece) for piece in cut(data, places))
    inner = MessageReader()
    heard = [m for frame in LinkReader().feed(stream) for m in inner.feed(frame.payload)]
    assert heard == said


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_no_bytes_make_a_reader_raise_anything_but_its_own_error(pieces: list[bytes]) -> None:
    for reader in (LinkReader(), MessageReader(), MessageReader(max_message=10)):
        try:
            feed(reader, pieces)
        except FrameError:
            continue


@given(st.integers(0, 2**32 - 1), kinds, kinds)
def test_a_length_above_the_limit_is_refused_before_its_bytes_come(
    length: int, kind: int, channel: int
) -> None:
    header = LINK_HEADER.pack(length, kind, channel)
    if length > MAX_LINK_PAYLOAD:
        with pytest.raises(FrameError, match="above the limit"):
            feed(LinkReader(), [header])
    else:
        assert feed(LinkReader(), [header]) == ([] if length else [LinkFrame(kind, channel, b"")])


@given(st.integers(0, 2**32 - 1), kinds, st.integers(0, 2**32 - 1))
def test_a_message_whose_lengths_do_not_fit_is_refused_before_its_bytes_come(
    length: int, kind: int, head_length: int
) -> None:
    header = MESSAGE_HEADER.pack(length, kind, head_length)
    if length > MAX_MESSAGE or head_length > min(length, MAX_MESSAGE_HEAD):
        with pytest.raises(FrameError):
            feed(MessageReader(), [header])
    else:
        assert feed(MessageReader(), [header]) == ([] if length else [Message(kind, {}, b"")])


@pytest.mark.parametrize(
    "head",
    [b"[]", b"1", b"null", b'"x"', b"{", b"\xff", b"[" * 100_000, b"{}x", b'{"a":' * 50_000, b"9" * 10_000],
    ids=["list", "number", "null", "text", "cut", "bytes", "deep list", "more", "deep object", "digits"],
)
def test_a_header_that_is_no_json_object_is_refused(head: bytes) -> None:
    data = MESSAGE_HEADER.pack(len(head), 32, len(head)) + head
    with pytest.raises(FrameError):
        feed(MessageReader(), [data])


@given(st.binary(max_size=100))
def test_any_header_is_an_object_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(decode_head(raw), dict)
    except FrameError:
        return


def test_what_is_above_a_limit_is_not_packed() -> None:
    with pytest.raises(FrameError, match="header"):
        pack_message(1, {"a": "x" * MAX_MESSAGE_HEAD})
    with pytest.raises(FrameError, match="message"):
        pack_message(1, None, bytes(MAX_MESSAGE + 1))


def test_data_of_any_length_is_cut_into_frames_that_fit() -> None:
    data = bytes(range(256)) * (3 * MAX_LINK_PAYLOAD // 256) + b"end"
    frames = feed(LinkReader(), [pack_data(3, data)])
    assert [frame.channel for frame in frames] == [3] * 4
    assert all(len(frame.payload) <= MAX_LINK_PAYLOAD for frame in frames)
    assert b"".join(frame.payload for frame in frames) == data


def test_a_reader_keeps_no_more_than_what_is_not_yet_read() -> None:
    reader = LinkReader()
    for _ in range(2000):
        assert len(feed(reader, [pack_link(1, 1, bytes(1000))])) == 1
    assert len(reader._buffer._data) <= 1000 + LINK_HEADER.size


def test_the_headers_have_the_sizes_that_both_ends_rely_on() -> None:
    assert (
        (LINK_HEADER.size, MESSAGE_HEADER.size)
        == (struct.calcsize("!IBB"), struct.calcsize("!IBI"))
        == (6, 9)
    )
    assert json.loads(pack_message(1, {"é": "\ud800"})[9:].decode("utf-8", "surrogatepass"))
