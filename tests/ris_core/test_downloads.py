"""Downloads go on where they broke off, whether the server knows how to or not."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from encoders import servers

from ris_core import downloads
from ris_core.downloads import commit_of, download, explained, one_process
from ris_core.errors import CheckpointError

CONTENT = bytes(range(256)) * 40


@contextmanager
def cutting(pieces: list[int]) -> Iterator[tuple[str, list[str]]]:
    """A server that breaks off after so many bytes, each time another -> its address and the ranges asked for."""
    ranges: list[str] = []

    class Cut(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            ranges.append(self.headers.get("Range", ""))
            first = int(ranges[-1].removeprefix("bytes=").removesuffix("-") or 0)
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(CONTENT) - first))
            self.end_headers()
            self.wfile.write(CONTENT[first:][: pieces.pop(0)])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Cut)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/file", ranges
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)


def test_a_connection_that_breaks_is_tried_again_from_there(tmp_path: Path) -> None:
    shares: list[tuple[int, int | None]] = []
    with cutting([1000, 10, 0, 20_000]) as (url, ranges):
        download(url, tmp_path / "file", lambda *share: shares.append(share))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert ranges == ["", "bytes=1000-", "bytes=1010-", "bytes=1010-"]
    assert shares[-1] == (len(CONTENT), len(CONTENT))


def test_one_that_stays_broken_is_given_up_with_what_arrived(tmp_path: Path) -> None:
    with cutting([1000] + [0] * 10) as (url, ranges), pytest.raises(httpx.TransportError):
        download(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT[:1000]
    assert len(ranges) == 5


def test_a_server_that_cannot_go_on_sends_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"some other bytes")
    with servers.one_file(CONTENT) as (url, _):
        download(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_nobody_there_is_told_at_once(tmp_path: Path) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as closed:
        port = closed.server_address[1]
    with pytest.raises(httpx.ConnectError):
        download(f"http://127.0.0.1:{port}/file", tmp_path / "file")


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_what_the_hub_answers_becomes_a_sentence(status: int) -> None:
    response = httpx.Response(status, request=httpx.Request("GET", "http://hub"))
    with (
        pytest.raises(CheckpointError) as raised,
        explained("a/b", "a/b can't be listed", "take a copy"),
    ):
        response.raise_for_status()
    way_in = "ask for access at https://huggingface.co/a/b, then run `hf auth login` or set HF_TOKEN."
    asks = way_in in str(raised.value)
    assert asks == (status in (401, 403))
    assert str(raised.value).endswith("r take a copy.")
    assert "\n" not in str(raised.value)


def test_what_was_left_half_done_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / ".a.x1").mkdir()
    (tmp_path / ".ab.x1").mkdir()
    with one_process(tmp_path / "a"):
        assert sorted(path.name for path in tmp_path.glob(".*/") if path.is_dir()) == [".ab.x1"]


def test_a_folder_that_is_no_commit_names_none(tmp_path: Path) -> None:
    assert commit_of(tmp_path, "model.safetensors") is None
