"""A small Label Studio over HTTP that keeps projects, their backends and webhooks, with answers shaped as 1.23.2's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from labelstudio.site import Answer, Asked


@dataclass
class Studio:
    """Projects, backends and webhooks as Label Studio keeps them. `breaks_after` uploads, it answers 500, and so it
    does to whoever deletes a webhook that it `keeps`.
    """

    projects: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    backends: list[dict[str, Any]] = field(default_factory=list)
    webhooks: list[dict[str, Any]] = field(default_factory=list)
    state: str = "CO"
    breaks_after: int = 99
    forgets_headers: bool = False
    keeps_webhooks: bool = False

    def __call__(self, asked: Asked) -> Answer:
        kind = asked.path.strip("/").split("/")
        body = json.loads(asked.body) if asked.headers.get("Content-Type") == "application/json" else {}
        match asked.method, kind:
            case "POST", ["api", "token", "refresh"]:
                return _json({"access": "access-token"})
            case "GET", ["api", "projects"]:
                return _json({"results": self.projects, "next": None})
            case "POST", ["api", "projects"]:
                return _json(self.add(self.projects, {"description": "", **body}))
            case "GET", ["api", "projects", number]:
                return _json(self.change(self.projects, number, {}))
            case "PATCH", ["api", "projects", number]:
                return _json(self.change(self.projects, number, body))
            case "POST", ["api", "projects", _, "import"]:
                return self.upload(asked)
            case "GET", ["api", "tasks"]:
                return _json({"tasks": self.tasks, "total": len(self.tasks)})
            case "GET", ["api", "ml"]:
                return _json(self.of_project(self.backends, asked))
            case "POST", ["api", "ml"]:
                row = self.backend(**body)
                self.webhook(row["project"], f"{row['url']}/webhook")
                return _json(row)
            case "GET", ["api", "ml", number]:
                return _json(self.change(self.backends, number, {}))
            case "PATCH", ["api", "ml", number]:
                return _json(self.change(self.backends, number, body))
            case "GET", ["api", "webhooks"]:
                return _json(self.of_project(self.webhooks, asked))
            case "POST", ["api", "webhooks"]:
                return _json(self.webhook(body["project"], body["url"]))
            case "PATCH", ["api", "webhooks", number]:
                return _json(self.change(self.webhooks, number, {} if self.forgets_headers else body))
            case "DELETE", ["api", "webhooks", number]:
                if self.keeps_webhooks:
                    return _json({"detail": "A server error occurred."}, 500)
                self.webhooks = [row for row in self.webhooks if row["id"] != int(number)]
                return Answer(204)
        raise AssertionError(f"{asked.method} {asked.path} is not expected")

    def upload(self, asked: Asked) -> Answer:
        if len(self.tasks) >= self.breaks_after:
            return _json({"detail": "A server error occurred."}, 500)
        name = asked.body.split(b'filename="')[1].split(b'"')[0].decode()
        task = self.add(self.tasks, {"data": {"image": f"/data/upload/1/0123abcd-{name}"}})
        return _json({"task_ids": [task["id"]]})

    def backend(self, **fields: Any) -> dict[str, Any]:
        row = {"state": self.state, "readable_state": "Error", "error_message": "refused", **fields}
        return self.add(self.backends, row)

    def webhook(self, project: int, url: str) -> dict[str, Any]:
        return self.add(self.webhooks, {"project": project, "url": url, "headers": {}})

    @staticmethod
    def add(rows: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
        row["id"] = 1 + max((each["id"] for each in rows), default=0)
        rows.append(row)
        return row

    @staticmethod
    def change(rows: list[dict[str, Any]], number: str, fields: dict[str, Any]) -> dict[str, Any]:
        row = next(row for row in rows if row["id"] == int(number))
        row.update(fields)
        return row

    @staticmethod
    def of_project(rows: list[dict[str, Any]], asked: Asked) -> list[dict[str, Any]]:
        project = int(parse_qs(urlsplit(asked.target).query)["project"][0])
        return [row for row in rows if row["project"] == project]


def _json(body: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})
