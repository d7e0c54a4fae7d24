"""The client, the masks and the image resolver against the real Label Studio."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from backend.errors import LabelStudioNotFound, LabelStudioRefused, LabelStudioUnauthorized
from backend.labelstudio import label_config, regions
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver

pytestmark = pytest.mark.e2e

INTERFACE = (
    '<View><Image name="img" value="$image"/><TextArea name="prompt" toName="img"/>'
    '<BrushLabels name="brush" toName="img"><Label value="Thing"/></BrushLabels></View>'
)


@pytest.fixture
def client(label_studio: Any) -> Iterator[LabelStudio]:
    with LabelStudio(label_studio.url, label_studio.token) as client:
        yield client


@pytest.fixture
def project(client: LabelStudio) -> int:
    return int(client.create_project("Client", INTERFACE)["id"])


@pytest.fixture
def photo() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def backend_url() -> Iterator[str]:
    """The least that Label Studio takes for an ML backend."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            tasks = json.loads(body).get("tasks", []) if body else []
            results = [{"result": [], "score": 0.5, "model_version": "v1"}] * len(tasks)
            reply = json.dumps({"status": "UP", "model_version": "v1", "results": results}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_token_has_an_owner(client: LabelStudio, label_studio: Any) -> None:
    assert "@" in client.whoami()["email"]
    with LabelStudio(label_studio.url, "no token") as stranger, pytest.raises(LabelStudioUnauthorized):
        stranger.whoami()


def test_projects(client: LabelStudio, project: int) -> None:
    assert project in [each["id"] for each in client.projects()]
    client.update_project(project, description="changed")
    assert client.project(project)["description"] == "changed"
    assert label_config.parse(client.project(project)["label_config"]).image.key == "image"
    with pytest.raises(LabelStudioRefused, match="at least 3"):
        client.create_project("x", INTERFACE)
    with pytest.raises(LabelStudioNotFound):
        client.project(10**6)


def test_tasks_come_page_by_page_with_whole_annotations(
    client: LabelStudio, project: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.labelstudio.client.PAGE_SIZE", 2)
    ids = client.import_tasks(project, [{"image": f"https://example.org/{number}.png"} for number in range(5)])
    interface = label_config.parse(INTERFACE)
    mask = np.zeros((48, 64), dtype=np.bool_)
    mask[5:20, 5:30] = True
    (drawn,) = regions.mask_regions(interface, interface.labels[0], mask, 0.9, "the square")
    typed = regions.prompt_region(interface, mask.shape, "the square")
    client.create_annotation(ids[2], [drawn, typed])
    client.create_annotation(ids[2], [], was_cancelled=True)
    tasks = list(client.tasks(project))
    assert [task["id"] for task in tasks] == ids
    kept, cancelled = sorted(tasks[2]["annotations"], key=lambda annotation: annotation["id"])
    assert cancelled["was_cancelled"]
    read = regions.read_annotation(kept["result"], interface)
    assert read.prompts == ("the square",)
    assert (read.masks[0].mask == mask).all()
    assert (read.masks[0].prompt, read.masks[0].label) == ("the square", "Thing")


def test_a_prediction_is_stored_and_deleted(client: LabelStudio, project: int) -> None:
    (task,) = client.import_tasks(project, [{"image": "https://example.org/a.png"}])
    interface = label_config.parse(INTERFACE)
    mask = np.eye(48, 64, dtype=np.bool_)
    (region,) = regions.mask_regions(interface, interface.labels[0], mask, 0.25, "a line")
    prediction = {"task": task, "result": [region], "score": 0.25, "model_version": "lda-01234567"}
    assert client.import_predictions(project, [json.dumps(prediction).encode()]) == 1
    (stored,) = client.predictions(task)
    assert (stored["result"], stored["model_version"]) == ([region], "lda-01234567")
    assert client.delete_predictions(project, "lda-01234567") == 1
    assert client.predictions(task) == []


def test_an_upload_comes_back_unchanged(
    client: LabelStudio, project: int, photo: bytes, label_studio: Any, tmp_path: Path
) -> None:
    (task,) = client.upload(project, "a cät.png", photo)
    value = client.task(task)["data"]["image"]
    images = ImageResolver(label_studio.url, label_studio.token, cache=tmp_path)
    assert images.fetch(value, task) == photo
    assert images.fetch(label_studio.url + value, task) == photo


def test_backend_and_webhook(client: LabelStudio, project: int, backend_url: str) -> None:
    (task,) = client.import_tasks(project, [{"image": "https://example.org/a.png"}])
    backend = client.create_ml_backend(project, backend_url, "RIS", "ris", "word")
    assert (backend["state"], backend["basic_auth_user"]) == ("CO", "ris")
    assert client.update_ml_backend(backend["id"], backend_url, "RIS 2", "ris", "other")["title"] == "RIS 2"
    assert [each["url"] for each in client.ml_backends(project)] == [backend_url]
    (webhook,) = client.webhooks(project)
    assert webhook["url"] == f"{backend_url}/webhook"
    assert client.update_webhook(webhook["id"], {"X-Secret": "s"})["headers"] == {"X-Secret": "s"}
    other = client.create_webhook(project, f"{backend_url}/other")
    client.delete_webhook(other["id"])
    assert [each["id"] for each in client.webhooks(project)] == [webhook["id"]]
    client.retrieve_predictions(project)
    assert [each["model_version"] for each in client.predictions(task)] == ["v1"]
    train = httpx.post(f"{client.url}/api/ml/{backend['id']}/train", json={}, auth=client.auth, timeout=60)
    assert train.is_success


def test_a_backend_that_does_not_answer(client: LabelStudio, project: int) -> None:
    with pytest.raises(LabelStudioRefused, match="health check failed"):
        client.create_ml_backend(project, "http://127.0.0.1:9", "RIS", "ris", "word")
