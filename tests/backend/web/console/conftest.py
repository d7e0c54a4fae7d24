"""The console over a project that has learnt, and a small Label Studio with its tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from annotated import XML
from checkpoints import random_checkpoint
from flask.testing import FlaskClient
from labelstudio.site import Answer, Asked, serve
from recorded import BASIC
from squares import annotated_studio
from studio import PROJECT, TOKEN
from werkzeug.test import TestResponse

from backend.datasets.project import read_project, snapshot_project
from backend.labelstudio.client import LabelStudio
from backend.registry import Registry, Version
from backend.settings import Settings
from backend.web import ml_backend
from backend.web.app import create_app
from ris_core import checkpoint_files

TITLE = "Squares <script>alert(1)</script>"
HERE = {"Sec-Fetch-Site": "same-origin"}


class Page(HTMLParser):
    """What a page says, as tests look at it: its text, its links, its forms, and which ids and labels there are."""

    def __init__(self, answer: TestResponse) -> None:
        super().__init__()
        self.answer = answer
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(answer.text if answer.mimetype == "text/html" else "")
        answer.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def field(self, name: str) -> str:
        return next(str(one["value"]) for one in self.all("input") if one.get("name") == name)


@dataclass
class Browser:
    """A person who is logged in, and whose browser says where requests come from."""

    client: FlaskClient
    headers: dict[str, str] = field(default_factory=lambda: dict(BASIC))

    def open(self, path: str) -> Page:
        return Page(self.client.get(f"/console/{path}", headers=self.headers))

    def submit(self, path: str, form: dict[str, Any] | None = None, page: str | None = None) -> TestResponse:
        """Open a page, fill in its form and press its button."""
        shown = self.open(path if page is None else page)
        hidden = {str(one["name"]): one["value"] for one in shown.all("input") if one.get("type") == "hidden"}
        return self.client.post(f"/console/{path}", data={**hidden, **(form or {})}, headers={**self.headers, **HERE})


@pytest.fixture
def label_studio() -> Iterator[LabelStudio]:
    studio = annotated_studio()
    row = {"id": PROJECT, "title": TITLE, "task_number": 13, "num_tasks_with_annotations": 12}
    described = {**row, "label_config": XML, "task_data_login": None}

    def answer(asked: Asked) -> Answer:
        body = {"/api/projects/": {"results": [row], "next": None}, f"/api/projects/{PROJECT}/": described}
        if asked.path in body:
            return Answer(200, json.dumps(body[asked.path]).encode(), {"Content-Type": "application/json"})
        return studio(asked)

    with serve(answer) as site, LabelStudio(site.url, TOKEN) as client:
        yield client


@pytest.fixture
def console_settings(make_settings: Callable[..., Settings], redis_url: str, label_studio: LabelStudio) -> Settings:
    return make_settings(redis_url=redis_url, label_studio_url=label_studio.url, label_studio_token=TOKEN)


@pytest.fixture
def learnt(console_settings: Settings, label_studio: LabelStudio, weights: Path, tmp_path: Path) -> list[Version]:
    """The base version and two of the project's own, and a snapshot of the project."""
    from backend import services

    home = console_settings.home
    annotated = read_project(label_studio, PROJECT, home)
    snapshot = snapshot_project(annotated, services.image_resolver(console_settings), home)
    registry = Registry(home / "models", weights)
    for seed, decision in ((1, "passed"), (2, "not yet")):
        card = {
            "origin": "fine-tuned",
            "base": registry.base.name,
            "decision": "kept",
            "reason": f"Reason number {seed}.",
            "snapshot": snapshot.id,
            "before": {"mIoU": 0.5, "expressions": 4},
            "after": {"mIoU": 0.5 + seed / 10, "expressions": 4, "N-acc": 1.0},
            "gate": {"decision": decision, "numbers": {"before": 0.5, "after": 0.5 + seed / 10, "expressions": 4}},
            "expressions": [{"task": 9, "prompt": "<b>the square</b>", "before": 0.5, "after": 0.75}],
        }
        registry.add(PROJECT, random_checkpoint(tmp_path / f"version-{seed}", seed=seed), card)
    return registry.versions(PROJECT)


@pytest.fixture
def console(
    console_settings: Settings, weights: Path, monkeypatch: pytest.MonkeyPatch, learnt: list[Version]
) -> Browser:
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: weights)
    return Browser(create_app(console_settings, ml_backend.build(console_settings)).test_client())
