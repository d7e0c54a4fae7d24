"""`make bench-predict`: how long an answer takes with the shipped model, and what of that isn't the bare model.

Medians over repeats on a 640x480 photo, two threads: encoding it and answering the first prompt, each further prompt,
a click without words and one that mends a sentence's mask, the bare model's forward passes, the answer as Label Studio
gets it over HTTP, /health and /setup, and the peak memory. QUICK=1 repeats less often. The result is appended to
benchmarks/results/predict.json.
"""

from __future__ import annotations

import base64
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from flask.testing import FlaskClient
from record import record

from backend.labelstudio.masks.brush import encode
from backend.projects.connect import LABEL_CONFIG
from backend.projects.samples import photos
from backend.settings import Settings
from backend.web import ml_backend
from backend.web.app import create_app
from ris_core.images import read_image
from ris_core.inference.predictor import Predictor
from ris_core.inference.prompt import Point, Prompt
from ris_core.inference.segmenter import PreparedImage

REPEATS = 5 if os.environ.get("QUICK") else 20
CLICKS = (Point(0.5, 0.5), Point(0.1, 0.1, positive=False))
PROMPTS = ["the cat", "the eyes", "the nose", "the fur", "the whiskers", "the ears"]


def median_ms(action: Callable[[], object], repeats: int = REPEATS) -> float:
    action()
    return round(1000 * statistics.median(seconds(action) for _ in range(repeats)), 2)


def photo() -> bytes:
    """A cat of 640x480, encoded as a JPEG."""
    pixels = cv2.resize(read_image(dict(photos())["chelsea.png"]), (640, 480), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", pixels[..., ::-1])[1].tobytes()


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def forward(predictor: Predictor, embedding: PreparedImage) -> dict[str, Callable[[], object]]:
    """The floor: the model's own passes on tensors that are ready."""
    model, (height, width) = predictor.model, embedding.frame.canvas
    pixels, valid = torch.rand(1, 3, height, width) * 255, torch.ones(1, 1, height, width)
    index = torch.zeros(1, dtype=torch.long)
    inference = torch.inference_mode()
    text = inference(model.encode_text)(PROMPTS[:1])
    return {
        "image encoder": lambda: inference(model.encode_image)(pixels, valid),
        "text encoder": lambda: inference(model.encode_text)(PROMPTS[:1]),
        "decoder": lambda: inference(model)(embedding.levels, text, index),
    }


def in_process(data: bytes) -> dict[str, float]:
    predictor = Predictor.load()
    embedding = predictor.embed(read_image(data))
    numbers = iter(range(100_000))

    def first() -> None:
        # A sentence that was never said before: nothing of it is kept from the last repeat.
        (prediction,) = predictor.segment(predictor.embed(read_image(data)), [f"{PROMPTS[0]} {next(numbers)}"])
        encode(prediction.mask)

    def further() -> None:
        (prediction,) = predictor.segment(embedding, [f"{PROMPTS[0]} {next(numbers)}"])
        encode(prediction.mask)

    def click() -> None:
        (prediction,) = predictor.segment(embedding, [Prompt(points=CLICKS)])
        encode(prediction.mask)

    def mending() -> None:
        (prediction,) = predictor.segment(embedding, [Prompt(PROMPTS[0], CLICKS)])
        encode(prediction.mask)

    bare = forward(predictor, embedding)
    asked = {"first prompt": first, "further prompt": further, "click": click, "click after words": mending}
    for action in (*asked.values(), *bare.values()):
        action()
    # One after the other, again and again: what slows the machine for a while slows all of them alike.
    rounds = [[seconds(action) for action in (*asked.values(), *bare.values())] for _ in range(REPEATS)]
    columns = [1000 * statistics.median(column) for column in zip(*rounds, strict=True)]
    names = [*asked, *(f"forward: {name}" for name in bare)]
    outside = 1000 * statistics.median(times[0] - sum(times[len(asked) :]) for times in rounds)
    figures = dict(zip(names, columns, strict=True)) | {"first prompt, outside forward passes": outside}
    return {name: round(value, 2) for name, value in figures.items()}


def over_http(data: bytes) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(
            home=Path(home),
            label_studio_token="unused",
            redis_url="redis://127.0.0.1:1/0",
            password="benchmark",
            webhook_secret="benchmark",
            # No Valkey runs that could keep it.
            prelabel_remember=False,
        )
        client = create_app(settings, ml_backend.build(settings)).test_client()
        setup = {"project": "1.1", "schema": LABEL_CONFIG, "hostname": "", "access_token": "", "extra_params": None}
        figures = {
            "/health": median_ms(lambda: ok(client.get("/health"))),
            "/setup": median_ms(lambda: ok(client.post("/setup", json=setup, auth=("ris", "benchmark")))),
        }
        figures["/predict, a new prompt on a known photo"] = _predict(client, data, _typed)
        figures["/predict, a click on a known photo"] = _predict(client, data, _clicked)
    return figures


def _typed(number: int) -> dict[str, Any]:
    text = {"text": [f"{PROMPTS[0]} {number}"]}
    return {"from_name": "prompt", "to_name": "image", "type": "textarea", "value": text}


def _clicked(number: int) -> dict[str, Any]:
    place = {"x": 20 + number % 60, "y": 50, "width": 0.3, "labels": []}
    return {"id": f"k{number}", "from_name": "point", "to_name": "image", "type": "keypoint", "value": place}


def _predict(client: FlaskClient, data: bytes, drawn: Callable[[int], dict[str, Any]]) -> float:
    image = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    numbers = iter(range(100_000))

    def ask() -> None:
        number = next(numbers)
        body = {
            # A task of its own: clicks on one would mend the same mask, and add up.
            "tasks": [{"id": number, "data": {"image": image}}],
            "project": "1.1",
            "label_config": LABEL_CONFIG,
            "params": {"context": {"result": [drawn(number)]}},
        }
        ok(client.post("/predict", json=body, auth=("ris", "benchmark")))

    return median_ms(ask)


def ok(response: Any) -> None:
    assert response.status_code == 200, response.get_data(as_text=True)


def main() -> None:
    torch.set_num_threads(2)
    data = photo()
    figures = in_process(data) | over_http(data)
    figures["peak memory, MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    record("predict", figures, repeats=REPEATS, version=Predictor.load().version)


if __name__ == "__main__":
    main()
