"""From the bytes of a connection to requests: where a head ends, and when a body is whole. Knows no sockets.

Everything is taken as it comes, in pieces of any length: nothing here waits, and nothing is kept beyond its bound.
Framing is HTTP/1.1's (RFC 9112, sections 6 and 7).
"""

import re
from typing import Protocol

MAX_HEAD_BYTES = 64 << 10

_END_OF_HEAD, _END_OF_LINE = b"\r\n\r\n", b"\r\n"
# A chunk's length is at most as long as that of a body that can be allowed; extensions are passed over.
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[\t\x20-\x7e\x80-\xff]*)?")
_MAX_LINE_BYTES = 4 << 10
_MAX_TRAILER_BYTES = 8 << 10


class MalformedBody(ValueError):
    """A body that isn't framed as HTTP/1.1 says; where the next request starts can't be known."""


class Body(Protocol):
    """A body on its way.

    content: what came of it. is_refused: what is still to come isn't taken, for its length or its sender.
    """

    content: bytearray
    is_refused: bool

    def take(self, received: bytearray) -> bool:
        """Remove from `received` what belongs to the body; whether it is whole, or refused.

        Raises MalformedBody.
        """


def take_head(received: bytearray, scanned: int = 0) -> bytes | None:
    """Remove a request's head, its empty line included; None while that hasn't come.

    scanned: how many bytes were there when it was asked last.
    """
    end = received.find(_END_OF_HEAD, max(0, scanned - len(_END_OF_HEAD) + 1))
    return None if end < 0 else _take(received, end + len(_END_OF_HEAD))


class SizedBody:
    """A body of announced length, in bytes. One that is longer than `limit` isn't taken at all."""

    def __init__(self, length: int, limit: int) -> None:
        self.content = bytearray()
        self.is_refused = length > limit
        self._length = length

    def take(self, received: bytearray) -> bool:
        """See `Body`."""
        if self.is_refused:
            return True
        self.content += _take(received, self._length - len(self.content))
        return len(self.content) == self._length


class ChunkedBody:
    """A body in chunks, of a length that shows at its end: at most one byte more than `limit` is taken."""

    def __init__(self, limit: int) -> None:
        self.content = bytearray()
        self.is_refused = False
        self._limit = limit
        # Of the chunk that comes; None between two.
        self._left: int | None = None
        self._in_trailer, self._trailer_bytes = False, 0

    def take(self, received: bytearray) -> bool:
        """See `Body`."""
        while not self.is_refused:
            if self._left:
                if not received:
                    return False
                self._take_data(received)
                continue
            line = _take_line(received)
            if line is None:
                return False
            if self._in_trailer:
                if self._ends(line):
                    return True
            elif self._left == 0:
                if line:
                    raise MalformedBody("a chunk is longer than it says")
                self._left = None
            else:
                self._begin_chunk(line)
        return True

    def _take_data(self, received: bytearray) -> None:
        assert self._left
        room = self._limit + 1 - len(self.content)
        data = _take(received, min(self._left, room))
        self.content += data
        self._left -= len(data)
        self.is_refused = len(self.content) > self._limit

    def _begin_chunk(self, line: bytes) -> None:
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise MalformedBody("the size of a chunk isn't a hexadecimal number")
        length = int(size[1], 16)
        if length:
            self._left = length
        else:
            self._in_trailer = True

    def _ends(self, line: bytes) -> bool:
        # What a trailer says is of no use to us.
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _MAX_TRAILER_BYTES:
            raise MalformedBody("the trailer is too long")
        return not line


def _take(received: bytearray, count: int) -> bytes:
    taken = bytes(received[:count])
    del received[:count]
    return taken


def _take_line(received: bytearray) -> bytes | None:
    """Remove a line -> what it says; None while its end hasn't come. Raises MalformedBody for one without an end."""
    end = received.find(_END_OF_LINE, 0, _MAX_LINE_BYTES)
    if end >= 0:
        return _take(received, end + len(_END_OF_LINE))[:end]
    if len(received) >= _MAX_LINE_BYTES:
        raise MalformedBody("the line before a chunk is too long")
    return None
