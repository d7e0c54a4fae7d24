"""Servers on this machine in place of those that weights come from."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_JSON = {"Content-Type": "application/json"}
_LARGE = (".safetensors", ".bin")
# (method, file, first byte) of what was asked of the last `hub`.
requests: list[tuple[str, str, int]] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def reply(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def _serving(handler: type[_Handler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def one_file(content: bytes, stall: threading.Event | None = None) -> Iterator[tuple[str, list[str]]]:
    """A server of one file -> its URL and the requests it got. `stall`: half is sent, the rest once that is set."""
    requests: list[str] = []

    class File(_Handler):
        def do_GET(self) -> None:
            requests.append(self.path)
            if not self.path.endswith("/file.pth"):
                self.reply(b"", 404)
                return
            if not stall:
                self.reply(content)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            stall.wait(60)

    with _serving(File) as address:
        yield f"{address}/file.pth", requests


@contextmanager
def hub(
    repositories: dict[tuple[str, str], Path], gated: Collection[str] = (), stall: threading.Event | None = None
) -> Iterator[str]:
    """As much of the Hugging Face hub as downloading a commit takes. repositories: (name, commit) -> its files.

    The last commit of a repository is its newest. gated: repositories whose files nobody is given. stall: of weights
    half is sent, and the rest once that is set.
    """
    newest = dict(repositories.keys())
    requests.clear()

    class Hub(_Handler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            for (repository, commit), folder in repositories.items():
                if path == f"/api/models/{repository}":
                    self.reply(json.dumps({"id": repository, "sha": newest[repository]}).encode(), headers=_JSON)
                    return
                if path == f"/api/models/{repository}/tree/{commit}":
                    self.reply(_listing(folder), headers=_JSON)
                    return
                start = f"/{repository}/resolve/{commit}/"
                if path.startswith(start) and repository in gated:
                    self.reply(b"{}", 401, {"X-Error-Code": "GatedRepo"})
                    return
                if path.startswith(start) and (folder / path.removeprefix(start)).is_file():
                    self.send(folder / path.removeprefix(start), commit)
                    return
            self.reply(b"{}", 404, {"X-Error-Code": "EntryNotFound"})

        do_HEAD = do_GET

        def send(self, file: Path, commit: str) -> None:
            body = file.read_bytes()
            headers = {"ETag": f'"{_digest(body)}"', "X-Repo-Commit": commit}
            first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            requests.append((self.command, file.name, first))
            if not stall or stall.is_set() or self.command == "HEAD" or file.suffix != ".safetensors":
                span = {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"} if first else {}
                self.reply(body[first:], 206 if first else 200, headers | span)
                return
            self.send_response(200)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            stall.wait(60)

    with _serving(Hub) as address:
        yield address


def _listing(folder: Path) -> bytes:
    return json.dumps([_entry(path) for path in sorted(folder.iterdir()) if path.is_file()]).encode()


def _entry(file: Path) -> dict[str, Any]:
    size, digest = file.stat().st_size, _digest(file.read_bytes())
    entry = {"type": "file", "path": file.name, "size": size, "oid": digest[:40]}
    # Of large files the hub says the SHA-256.
    return entry | ({"lfs": {"oid": digest, "size": size, "pointerSize": 134}} if file.suffix in _LARGE else {})


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
