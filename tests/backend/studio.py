"""A small Label Studio over HTTP, holding one project: what reading its corrections needs, and nothing more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from annotated import XML
from labelstudio.site import Answer, Asked, Site, serve

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver

PROJECT = 3
TOKEN = "personal-access-token"


@dataclass
class Studio:
    """`uploads` by path. `failing` are paths that answer 500."""

    tasks: list[dict[str, Any]]
    uploads: dict[str, bytes] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)

    def __call__(self, asked: Asked) -> Answer:
        if asked.path in self.failing:
            return _json({"detail": "A server error occurred."}, 500)
        if asked.path == "/api/token/refresh/":
            return _json({"access": "access-token"})
        if asked.path == f"/api/projects/{PROJECT}/":
            return _json({"id": PROJECT, "label_config": XML, "task_data_login": None})
        if asked.path == "/api/tasks/":
            return self.page({key: value[0] for key, value in parse_qs(urlsplit(asked.target).query).items()})
        if asked.path in self.uploads:
            return Answer(200, self.uploads[asked.path])
        return _json({"detail": "Not found."}, 404)

    def page(self, query: dict[str, str]) -> Answer:
        assert query["project"] == str(PROJECT)
        size, page = int(query["page_size"]), int(query.get("page", 1))
        found = chosen(self.tasks, json.loads(query.get("query", "{}")))
        annotations = [each for task in found for each in task["annotations"] if not each["was_cancelled"]]
        counts = {"total": len(found), "total_annotations": len(annotations)}
        return _json({"tasks": found[(page - 1) * size : page * size], **counts})


def chosen(tasks: list[dict[str, Any]], query: dict[str, Any]) -> list[dict[str, Any]]:
    """The tasks that the Data Manager's query asks for, in its order. A task changes with its annotations alone."""
    found = [{"updated_at": _changed(task), **task} for task in tasks]
    for item in query.get("filters", {}).get("items", ()):
        column, value = item["filter"].rpartition(":")[2], item["value"]
        if column == "id":
            found = [task for task in found if task["id"] > value]
        elif column == "updated_at":
            found = [task for task in found if task["updated_at"] >= value]
        else:
            assert (column, item["operator"], value) == ("total_annotations", "greater", 0)
            found = [task for task in found if any(not each["was_cancelled"] for each in task["annotations"])]
    if "selectedItems" in query:
        found = [task for task in found if task["id"] in query["selectedItems"]["included"]]
    if "ordering" in query:
        assert query["ordering"] == ["-tasks:updated_at"]
        found.sort(key=lambda task: str(task["updated_at"]), reverse=True)
    return found


def _changed(task: dict[str, Any]) -> str:
    return max((str(each["updated_at"]) for each in task["annotations"]), default="2026-11-21T00:00:00Z")


@contextmanager
def running(studio: Studio, cache: Path) -> Iterator[tuple[LabelStudio, ImageResolver, Site]]:
    """The server, a client of it, and a resolver of its pictures that keeps copies in `cache`."""
    with serve(studio) as site, LabelStudio(site.url, TOKEN) as client:
        yield client, ImageResolver(site.url, TOKEN, cache=cache), site


def _json(body: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})
