"""Messages on a stream: whole, in parts, between noise, with raw bytes."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrun.wire import BEAT, BEAT_LINE, Frames, Lines, encoded, first_message, greet

WORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
MESSAGES = st.dictionaries(st.text().filter(lambda name: name != "nbytes"), WORDS)


def in_parts(data: bytes, nbytes: int) -> list[bytes]:
    return [data[at : at + nbytes] for at in range(0, len(data), nbytes)]


@given(st.lists(MESSAGES), st.integers(1, 40))
def test_messages_come_whole_however_the_stream_is_cut(
    messages: list[dict[str, Any]], nbytes: int
) -> None:
    lines = Lines()
    data = BEAT.join(encoded(message) + BEAT_LINE for message in messages)
    found = [message for part in in_parts(data, nbytes) for message in lines.feed(part)]
    assert found == messages
    assert lines.rest == b""


@given(st.lists(st.tuples(MESSAGES, st.binary(max_size=60))), st.integers(1, 40))
def test_raw_bytes_follow_their_message_in_as_many_parts_as_they_come(
    sent: list[tuple[dict[str, Any], bytes]], nbytes: int
) -> None:
    frames = Frames()
    data = b"".join(
        encoded(
            {**message, "nbytes": len(raw), "number": number}
            if raw
            else {**message, "number": number}
        )
        + raw
        + BEAT_LINE
        for number, (message, raw) in enumerate(sent)
    )
    found: dict[int, bytes] = {}
    for part in in_parts(data, nbytes):
        for message, raw in frames.feed(part):
            found[message["number"]] = found.get(message["number"], b"") + bytes(raw)
    assert found == dict(enumerate(raw for _, raw in sent))


@given(st.lists(st.integers(1, 600), min_size=1, max_size=900), st.integers(1, 4000))
def test_headers_that_come_again_are_read_as_the_first_time(sizes: list[int], cut: int) -> None:
    frames, found = Frames(), b""
    data = b"".join(
        encoded({"event": "output", "nbytes": size}) + bytes([size % 256]) * size for size in sizes
    )
    for part in in_parts(data, cut):
        for message, raw in frames.feed(part):
            assert set(raw) == {message["nbytes"] % 256}
            found += bytes(raw)
    assert found == b"".join(bytes([size % 256]) * size for size in sizes)


NOISE = b"Welcome!\n[1, 2]\nnull\n" + b"[" * 3000 + b"\n\xff\xfe\n"


def test_noise_is_passed_over_and_its_end_is_kept() -> None:
    frames = Frames()
    found = frames.feed(NOISE + encoded({"event": "a"}) + b"This account is not available.\n")
    assert [message for message, _ in found] == [{"event": "a"}]
    assert frames.noise.endswith(b"\xff\xfe\nThis account is not available.\n")
    assert len(frames.noise) <= 2048


@pytest.mark.parametrize("nbytes", ["3", -3, 0, None, True, [3], 3.0])
def test_a_number_of_raw_bytes_that_is_none_is_no_number(nbytes: object) -> None:
    first, second = {"event": "a", "nbytes": nbytes}, {"event": "b"}
    found = Frames().feed(encoded(first) + encoded(second))
    assert [message for message, _ in found] == [first, second]


@pytest.mark.parametrize("nbytes", [1, 7, 1000])
def test_all_that_a_login_shell_prints_before_the_greeting_is_noise(nbytes: int) -> None:
    read, write = os.pipe()
    banner = b'{"event": "swept", "nbytes": 99}\n{"disk": "ok"}\n$ '
    os.write(write, banner)
    greet(write)
    os.write(write, encoded({"event": "a", "nbytes": 2}) + b"{}" + encoded({"greeting": "distrun"}))
    data = os.read(read, 1000)
    os.close(write)
    os.close(read)
    frames = Frames(greeted=True)
    found = [
        (message, bytes(raw))
        for part in in_parts(data, nbytes)
        for message, raw in frames.feed(part)
    ]
    raw = b"".join(raw for message, raw in found if message.get("event") == "a")
    assert raw == b"{}"
    assert found[-1] == ({"greeting": "distrun"}, b"")
    assert frames.noise == banner + b"\n"


def test_a_greeting_that_nobody_reads_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    greet(write)
    os.close(write)


def test_lines_that_are_no_messages_are_passed_over_only_where_that_is_asked_for() -> None:
    assert Lines(tolerant=True).feed(NOISE + b"{}\n") == [{}]
    with pytest.raises(ValueError, match="Expecting value"):
        Lines().feed(b"Welcome!\n")


def test_a_line_that_never_ends_is_dropped_at_the_limit() -> None:
    lines = Lines(tolerant=True, max_nbytes=10)
    assert lines.feed(b'{"a": "' + b"x" * 20) == []
    assert lines.rest == b""
    assert lines.feed(b'"}\n{"b": 1}\n') == [{"b": 1}]


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b'{"a": 1}\n{"b": 2}\n{"c', ({"a": 1}, b'{"b": 2}\n{"c')),
        (b'\0{"a"\0: 1}\n', ({"a": 1}, b"")),
        (b'{"a": 1}', None),
        (b"", None),
    ],
)
def test_the_first_message_is_read_and_what_came_with_it_is_handed_on(
    stream: bytes, found: tuple[dict[str, Any], bytes] | None
) -> None:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, stream)
    os.close(write_fd)
    assert first_message(read_fd) == found
    os.close(read_fd)
    if found:
        assert Lines(received=found[1]).feed(b"") == ([{"b": 2}] if found[1] else [])
