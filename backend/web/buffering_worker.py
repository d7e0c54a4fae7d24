"""Gunicorn's worker for the backend: a request takes a thread once it is here whole, and gives it back once answered.

One loop owns all connections. It reads heads and bodies and writes answers as the network allows, with a limit on the
time of each; threads see whole requests alone, and write into memory. So whoever is slow or silent costs a socket, and
no thread.

- Who may not come in is answered from the head: the app says so (its `wants_body`), and no byte of a body is kept.
- Connections are bounded, in all and by address. At the bound the oldest that hasn't shown the password gives way.
- /health has a thread of its own: it is answered whatever else runs.

Speaks HTTP/1.x alone: TLS and HTTP/2 are a proxy's. Knows nothing of what the app does.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any

from gunicorn import util
from gunicorn.http import get_parser, wsgi
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.workers.base import Worker

from backend.web.request_bytes import MAX_HEAD_BYTES, Body, ChunkedBody, MalformedBody, SizedBody, take_head

MAX_CONNECTIONS = 512
MAX_OF_ADDRESS = 128
HEAD_SECONDS = 10.0
# For a body or an answer: so many seconds, and one more for each so many bytes that got through.
TRANSFER_SECONDS, TRANSFER_BYTES = 10.0, 32 << 10
# How long the rest of a refused body is read and dropped, so that its sender reads the answer instead of a reset.
LINGER_SECONDS = 2.0

_READ_BYTES = 1 << 20
_ACCEPTED_AT_ONCE = 64
_LOOP_SECONDS = 0.5
# Of an IPv6 address, what one customer of a provider has.
_IPV6_PREFIX = 64

Environ = dict[str, Any]


class Outbox:
    """What is to be sent; for gunicorn it is the socket."""

    def __init__(self) -> None:
        self.waiting = bytearray()
        self.sent = 0

    def sendall(self, data: bytes) -> None:
        """Keep it until it can be sent."""
        self.waiting += data

    send = sendall

    def gettimeout(self) -> float:
        """As a socket that doesn't block."""
        return 0.0


@dataclass(eq=False)
class Connection:
    """A client, and how far its request has come.

    deadline: of what it does at the moment, in time.monotonic's seconds; None while it is being answered.
    began: when its body, or its answer, did. trusted: whether its last request had the password.
    """

    sock: socket.socket
    client: Any
    server: Any
    deadline: float | None
    address: str
    received: bytearray = field(default_factory=bytearray)
    scanned: int = 0
    outbox: Outbox = field(default_factory=Outbox)
    request: Any = None
    body: Body | None = None
    began: float = 0.0
    trusted: bool = False
    keep: bool = False
    lingers: bool = False

    def flush(self) -> None:
        """Send what the network takes. Raises OSError for a connection that is lost."""
        with suppress(BlockingIOError):
            while self.outbox.waiting:
                sent = self.sock.send(memoryview(self.outbox.waiting)[:_READ_BYTES])
                del self.outbox.waiting[:sent]
                self.outbox.sent += sent


class BufferingWorker(Worker):  # type: ignore[misc]
    """See the module. `max_body_bytes`: larger bodies are refused unread."""

    max_body_bytes = 0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse to serve in plain text what should be encrypted."""
        if cfg.is_ssl:
            raise SystemExit("This worker speaks no TLS: remove the certificate, and put a proxy in front.")

    def init_process(self) -> None:
        """As gunicorn's; ends when the worker does."""
        self.poller = selectors.DefaultSelector()
        # In the order in which they came.
        self.connections: dict[Connection, None] = {}
        self.done: deque[Connection] = deque()
        self.pool = ThreadPoolExecutor(self.cfg.threads, "request")
        self.health_pool = ThreadPoolExecutor(1, "health")
        super().init_process()

    def run(self) -> None:
        """Serve until a signal says stop; then answer what was asked, within gunicorn's `graceful_timeout`."""
        # Of an app that people have wrapped into something else, every body is read.
        self.wants_body: Callable[[Environ], bool] = getattr(self.wsgi, "wants_body", lambda environ: True)
        self.poller.register(self.PIPE[0], selectors.EVENT_READ, self._wake)
        for listener in self.sockets:
            listener.setblocking(False)
            self.poller.register(listener, selectors.EVENT_READ, self._accept)
        while self.alive and self.ppid == os.getppid():
            self._turn()
        for listener in self.sockets:
            self.poller.unregister(listener)
            listener.close()
        self._finish(time.monotonic() + self.cfg.graceful_timeout)
        for pool in (self.pool, self.health_pool):
            pool.shutdown(wait=False)

    def _finish(self, end: float) -> None:
        idle_end = time.monotonic() + LINGER_SECONDS
        while self.connections and time.monotonic() < end:
            for connection in self.connections:
                if connection.deadline and connection.request is None:
                    connection.deadline = min(connection.deadline, idle_end)
            self._turn()

    def _turn(self) -> None:
        self.notify()
        for key, _ in self.poller.select(_LOOP_SECONDS):
            key.data(key.fileobj)
        now = time.monotonic()
        for connection in [one for one in self.connections if one.deadline and one.deadline < now]:
            self._expire(connection)

    # Connections

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, client = listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._make_room(list(self.connections))
                return
            self._welcome(sock, client, listener.getsockname())

    def _welcome(self, sock: socket.socket, client: Any, server: Any) -> None:
        address = address_of(client)
        neighbours = [other for other in self.connections if other.address == address]
        if len(neighbours) >= MAX_OF_ADDRESS or len(self.connections) >= MAX_CONNECTIONS:
            crowd = neighbours if len(neighbours) >= MAX_OF_ADDRESS else list(self.connections)
            if not self._make_room(crowd):
                sock.close()
                return
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, client, server, time.monotonic() + HEAD_SECONDS, address)
        self.connections[connection] = None
        self._listen(connection)

    def _make_room(self, crowd: list[Connection]) -> bool:
        """Close the oldest that is neither being answered nor trusted."""
        for connection in crowd:
            if connection.deadline and not connection.trusted:
                self._close(connection)
                return True
        return False

    def _listen(self, connection: Connection) -> None:
        self.poller.register(connection.sock, selectors.EVENT_READ, lambda _: self._read(connection))

    def _close(self, connection: Connection) -> None:
        self.connections.pop(connection, None)
        with suppress(KeyError, ValueError):
            self.poller.unregister(connection.sock)
        connection.sock.close()

    def _expire(self, connection: Connection) -> None:
        if connection.body is not None and not connection.lingers and not connection.outbox.waiting:
            util.write_error(connection.outbox, 408, "Request Timeout", "The request came too slowly.")
            with suppress(OSError):
                connection.flush()
        self._close(connection)

    # Requests

    def _read(self, connection: Connection) -> None:
        if connection not in self.connections:
            # An earlier event of this turn made room.
            return
        try:
            data = connection.sock.recv(_READ_BYTES if connection.body else MAX_HEAD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
        elif not connection.lingers:
            connection.received += data
            self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        """Go on with what was received; hand the request over once it is whole."""
        try:
            if connection.request is None and not self._begin(connection):
                return
            assert connection.body
            is_whole = connection.body.take(connection.received)
        except MalformedBody as error:
            util.write_error(connection.outbox, 400, "Bad Request", f"The request's body is malformed: {error}.")
            self._answered(connection, keep=False)
        except Exception as error:  # noqa: BLE001
            # Of a head. Gunicorn knows an answer for each of its own errors, and logs all others.
            self.handle_error(None, connection.outbox, connection.client, error)
            self._answered(connection, keep=False)
        else:
            if is_whole:
                self._hand_over(connection)
            else:
                connection.deadline = _deadline(connection.began, len(connection.body.content))

    def _begin(self, connection: Connection) -> bool:
        """Read the head; whether it has come."""
        head = take_head(connection.received, connection.scanned)
        if head is None:
            connection.scanned = len(connection.received)
            if connection.scanned > MAX_HEAD_BYTES:
                raise LimitRequestHeaders("too many of them")
            return False
        request = next(get_parser(self.cfg, iter([head]), connection.client))
        expects_continue, request._expected_100_continue = request._expected_100_continue, False
        _, environ = wsgi.create(request, connection.outbox, connection.client, connection.server, self.cfg)
        connection.scanned, connection.request, connection.began = 0, request, time.monotonic()
        connection.trusted = self.wants_body(environ)
        connection.body = _body(request, self.max_body_bytes, connection.trusted)
        if expects_continue and not connection.body.is_refused:
            connection.outbox.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.flush()
        return True

    def _hand_over(self, connection: Connection) -> None:
        connection.deadline = None
        self.poller.unregister(connection.sock)
        is_health = connection.request.path.rpartition("/")[2] == "health"
        (self.health_pool if is_health else self.pool).submit(self._serve, connection)

    # Answers; `_serve` alone runs in a thread

    def _serve(self, connection: Connection) -> None:
        try:
            connection.keep = self._call_app(connection)
        except Exception as error:  # noqa: BLE001
            self.handle_error(connection.request, connection.outbox, connection.client, error)
            connection.keep = False
        # Most answers go out whole, and spare the loop a turn. A lost connection shows there.
        with suppress(OSError):
            connection.flush()
        self.done.append(connection)
        with suppress(BlockingIOError):
            os.write(self.PIPE[1], b"1")

    def _call_app(self, connection: Connection) -> bool:
        """Answer into the outbox; whether the connection can serve another request."""
        request, body, started = connection.request, connection.body, datetime.now()
        assert body
        response, environ = wsgi.create(request, connection.outbox, connection.client, connection.server, self.cfg)
        environ |= {"wsgi.multithread": True, "wsgi.input": BytesIO(body.content)}
        if body.is_refused or not self.alive:
            response.force_close()
        chunks = self.wsgi(environ, response.start_response)
        try:
            for chunk in chunks:
                response.write(chunk)
            response.close()
        finally:
            self.log.access(response, request, environ, datetime.now() - started)
            if hasattr(chunks, "close"):
                chunks.close()
        return not response.should_close()

    def _wake(self, pipe: int) -> None:
        with suppress(BlockingIOError):
            os.read(pipe, 4096)
        while self.done:
            connection = self.done.popleft()
            connection.began = time.monotonic()
            self._answered(connection, connection.keep)

    def _answered(self, connection: Connection, keep: bool) -> None:
        """Send the rest of the answer, then go on with the next request, or end."""
        connection.keep = keep
        if connection not in self.connections:
            return
        try:
            connection.flush()
        except OSError:
            self._close(connection)
            return
        with suppress(KeyError):
            self.poller.unregister(connection.sock)
        if connection.outbox.waiting:
            connection.deadline = _deadline(connection.began, connection.outbox.sent)
            self.poller.register(
                connection.sock, selectors.EVENT_WRITE, lambda _: self._answered(connection, connection.keep)
            )
        elif keep:
            self._next(connection)
        else:
            self._linger(connection)

    def _next(self, connection: Connection) -> None:
        connection.request = connection.body = None
        connection.outbox = Outbox()
        is_idle = not connection.received
        connection.deadline = time.monotonic() + (self.cfg.keepalive if is_idle else HEAD_SECONDS)
        self._listen(connection)
        if not is_idle:
            self._advance(connection)

    def _linger(self, connection: Connection) -> None:
        connection.lingers, connection.trusted = True, False
        connection.deadline = time.monotonic() + LINGER_SECONDS
        connection.received.clear()
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
        else:
            self._listen(connection)


def address_of(client: Any) -> str:
    """Whose connections are counted together: an IPv4 address, or the network of an IPv6 one."""
    if not isinstance(client, tuple):
        return ""
    try:
        address = ipaddress.ip_address(str(client[0]).partition("%")[0])
    except ValueError:
        return str(client[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))


def _body(request: Any, limit: int, is_wanted: bool) -> Body:
    # Gunicorn refuses what is ambiguous: both headers, one of them twice, another coding than chunked.
    headers = dict(request.headers)
    if "TRANSFER-ENCODING" not in headers:
        return SizedBody(int(headers.get("CONTENT-LENGTH", 0)), limit if is_wanted else 0)
    body = ChunkedBody(limit)
    body.is_refused = not is_wanted
    return body


def _deadline(began: float, transferred: int) -> float:
    return began + TRANSFER_SECONDS + transferred / TRANSFER_BYTES
