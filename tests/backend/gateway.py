"""A way to an S3 server that a test can break: cut off, refuse, fail, delay, damage; and count what goes through."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_SKEWED = b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>"


class Gateway(ThreadingHTTPServer):
    """One fault at a time. fault: None, "reset", "403", "skew", "500", "slow", "damage" or "forget conditions"."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.client = httpx.Client(base_url=target, timeout=60)
        self.fault: str | None = None
        self.damage_left = 0
        self.lose_answers = 0
        self.requests: list[tuple[str, str]] = []
        # moto looks at a condition and writes in two steps.
        self.writing = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_GET(self) -> None:
        self._forward()

    do_PUT = do_DELETE = do_HEAD = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _forward(self) -> None:
        gateway = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        gateway.requests.append((self.command, self.path))
        if gateway.fault == "reset":
            self.close_connection = True
            return
        if gateway.fault in ("403", "skew", "500"):
            said = {"403": (403, _DENIED), "skew": (403, _SKEWED), "500": (500, b"<Error/>")}[gateway.fault]
            self._answer(*said, {})
            return
        if gateway.fault == "slow":
            time.sleep(1)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        if gateway.fault == "forget conditions":
            headers = {name: value for name, value in headers.items() if not name.lower().startswith("if-")}
        if self.command == "PUT":
            with gateway.writing:
                answer = gateway.client.request(self.command, self.path, content=body, headers=headers)
        else:
            answer = gateway.client.request(self.command, self.path, content=body, headers=headers)
        content = answer.content
        is_weights = self.command == "GET" and "model.safetensors" in self.path
        if is_weights and gateway.fault == "damage" and gateway.damage_left:
            gateway.damage_left -= 1
            content = bytes([content[0] ^ 1]) + content[1:]
        if self.command == "PUT" and "/records/" in self.path and gateway.lose_answers and answer.is_success:
            gateway.lose_answers -= 1
            self.close_connection = True
            return
        self._answer(answer.status_code, content, dict(answer.headers))

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOP or (self.command == "HEAD" and name.lower() == "content-length"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


_HOP = ("host", "content-length", "connection", "transfer-encoding", "content-encoding")


@contextmanager
def gateway_to(target: str) -> Iterator[Gateway]:
    gateway = Gateway(target)
    thread = threading.Thread(target=gateway.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        gateway.shutdown()
        gateway.server_close()
        gateway.client.close()
        thread.join()
