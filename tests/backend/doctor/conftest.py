"""The chain with every link whole."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from labelstudio.site import serve
from labelstudio.tokens import json_web_token
from PIL import Image
from redis import Redis
from rq import Queue, SimpleWorker
from werkzeug.serving import make_server

from backend.queue.names import QUEUES
from backend.settings import load
from backend.web import ml_backend
from backend.web.app import create_app
from ris_core import checkpoint_files

from .chain import Chain, LabelStudio


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model", clicks=True)


@pytest.fixture
def lasting_redis(redis: Redis) -> Iterator[Redis]:
    """Valkey as it should be run: it keeps its data on disk."""
    redis.config_set("save", "3600 1")
    yield redis
    redis.config_set("save", "")


@pytest.fixture
def worker(lasting_redis: Redis) -> Iterator[SimpleWorker]:
    """A worker that has just shown itself; its process is this one."""
    queues = [Queue(name, connection=lasting_redis) for name in QUEUES]
    worker = SimpleWorker(queues, connection=lasting_redis)
    worker.register_birth()
    yield worker
    worker.register_death()


@pytest.fixture
def chain(
    tmp_path: Path,
    weights: Path,
    worker: SimpleWorker,
    redis_url: str,
    clean_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Chain]:
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: weights)
    home, token, photo = tmp_path / "home", json_web_token(), io.BytesIO()
    home.mkdir()
    Image.new("RGB", (64, 48), "red").save(photo, "PNG")
    monkeypatch.setenv("RIS_HOME", str(home))
    knobs = {
        "password": "backend-pass",
        "webhook_secret": "hook-secret",
        "label_studio_token": token,
        "redis_url": redis_url,
    }
    label_studio = LabelStudio("http://127.0.0.1:9", token, photo.getvalue(), checkpoint_files.version(weights))
    with serve(label_studio) as site:
        chain = Chain(home, knobs | {"label_studio_url": site.url}, label_studio, lambda: None)
        chain.write()
        settings = load()
        server = make_server("127.0.0.1", 0, create_app(settings, ml_backend.build(settings)), threaded=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()

        def stop() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        chain.stop_backend = stop
        chain.knobs["backend_url"] = label_studio.backend = f"http://127.0.0.1:{server.server_port}"
        label_studio.__post_init__()
        try:
            yield chain
        finally:
            stop()
