"""Framing of requests, cut into pieces at any place."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.web.buffering_worker import address_of
from backend.web.request_bytes import Body, ChunkedBody, MalformedBody, SizedBody, take_head

LIMIT = 200


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(whole) + 1) for place in places} | {0, len(whole)})
    return [whole[start:end] for start, end in itertools.pairwise(ends)]


def feed(body: Body, pieces: list[bytes]) -> tuple[bool, bytes]:
    """Whether it is whole at the end, and what is left."""
    received = bytearray()
    whole = body.take(received)
    for piece in pieces:
        received += piece
        whole = whole or body.take(received)
    return whole, bytes(received)


places = st.lists(st.integers(0, 10_000), max_size=20)


@given(st.binary(max_size=300), st.binary(max_size=20), places)
def test_a_head_ends_at_its_empty_line_wherever_it_is_cut(before: bytes, after: bytes, places: list[int]) -> None:
    whole = before + b"\r\n\r\n" + after
    end = whole.index(b"\r\n\r\n") + 4
    received, scanned, head = bytearray(), 0, None
    for piece in cut(whole, places):
        received += piece
        head = head or take_head(received, scanned)
        scanned = len(received)
    assert head == whole[:end]
    assert bytes(received) == whole[end:]


@given(st.binary(max_size=300), st.binary(max_size=20), places)
def test_a_body_of_announced_length_leaves_what_follows_it(content: bytes, after: bytes, places: list[int]) -> None:
    body = SizedBody(len(content), LIMIT)
    whole, left = feed(body, cut(content + after, places))
    assert whole
    if len(content) > LIMIT:
        assert body.is_refused
        assert (body.content, left) == (b"", content + after)
    else:
        assert (body.content, left) == (content, after)


def in_chunks(pieces: list[bytes], extension: bytes, trailer: bytes) -> bytes:
    chunks = [b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces if piece]
    return b"".join([*chunks, b"0\r\n", trailer, b"\r\n"])


@given(
    st.lists(st.binary(max_size=80), max_size=8),
    st.sampled_from([b"", b";a", b' ;a="b"']),
    st.sampled_from([b"", b"X: 1\r\n", b"X: 1\r\nY: 2\r\n"]),
    st.binary(max_size=20),
    places,
)
def test_chunks_are_joined_wherever_they_are_cut(
    pieces: list[bytes], extension: bytes, trailer: bytes, after: bytes, places: list[int]
) -> None:
    content, body = b"".join(pieces), ChunkedBody(LIMIT)
    whole, left = feed(body, cut(in_chunks(pieces, extension, trailer) + after, places))
    assert whole
    assert body.is_refused == (len(content) > LIMIT)
    assert body.content == content[: LIMIT + 1]
    if not body.is_refused:
        assert left == after


@given(st.binary(max_size=300), places)
def test_any_bytes_are_a_body_or_malformed_and_nothing_is_kept_beyond_the_limit(data: bytes, places: list[int]) -> None:
    body = ChunkedBody(LIMIT)
    with contextlib.suppress(MalformedBody):
        feed(body, cut(data, places))
    assert len(body.content) <= LIMIT + 1


@pytest.mark.parametrize("line", [b"1" * 5000, b"5;" + b"a" * 5000])
def test_a_line_without_an_end_is_malformed(line: bytes) -> None:
    with pytest.raises(MalformedBody):
        ChunkedBody(LIMIT).take(bytearray(line))


def test_a_trailer_without_an_end_is_malformed() -> None:
    with pytest.raises(MalformedBody):
        ChunkedBody(LIMIT).take(bytearray(b"0\r\n" + b"X: 1\r\n" * 5000))


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.7", 5), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.7", 5, 0, 0), "192.0.2.7"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("", ""),
        (("odd", 1), "odd"),
    ],
)
def test_connections_are_counted_by_whose_they_are(client: object, address: str) -> None:
    assert address_of(client) == address
