"""A whole chain to plant faults in: settings in a file, a real Valkey and backend, and a small Label Studio."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

from labelstudio.site import Answer, Asked

from backend.doctor import CHAIN
from backend.doctor.checks import CheckContext, CheckState, Finding, examine
from backend.labelstudio.webhooks import SECRET_HEADER
from backend.projects.connect import BACKEND, LABEL_CONFIG

PROJECT = 3
PHOTO = "/data/upload/3/cat.png"


@dataclass
class LabelStudio:
    """One project with a backend and a webhook, as Label Studio 1.23.2 shows them. It accepts `token` alone.

    clock: seconds that its clock is ahead. reason: what it says of the backend, asked to save it once more.
    """

    backend: str
    token: str
    photo: bytes
    version: str = "lda-00000000"
    clock: float = 0.0
    reason: tuple[int, str] | None = None
    legacy_refused: bool = True
    project: dict[str, Any] = field(default_factory=dict)
    registrations: list[dict[str, Any]] = field(default_factory=list)
    webhooks: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    saved: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.project = {
            "id": PROJECT,
            "title": "Cats",
            "label_config": LABEL_CONFIG,
            "model_version": self.version,
            "show_collab_predictions": True,
        }
        self.registrations = [self.registration()]
        self.webhooks = [self.webhook()]
        self.tasks = [{"id": 7, "data": {"image": PHOTO}, "annotations": [], "predictions": []}]

    @property
    def address(self) -> str:
        return f"{self.backend}/projects/{PROJECT}"

    def registration(self, **fields: Any) -> dict[str, Any]:
        return {
            "id": 5,
            "project": PROJECT,
            "url": self.address,
            "title": BACKEND,
            "state": "CO",
            "error_message": None,
            "is_interactive": True,
            "basic_auth_user": "ris",
            "model_version": self.version,
        } | fields

    def webhook(self, **fields: Any) -> dict[str, Any]:
        return {
            "id": 6,
            "url": f"{self.address}/webhook",
            "headers": {SECRET_HEADER: "hook-secret"},
            "is_active": True,
            "send_payload": True,
            "send_for_all_actions": True,
            "actions": [],
        } | fields

    def __call__(self, asked: Asked) -> Answer:
        answer = self.answer(asked)
        # The stand-in's own date would come first.
        answer.headers["Date"] = formatdate(time.time() + self.clock, usegmt=True)
        return answer

    def answer(self, asked: Asked) -> Answer:
        match asked.method, asked.path:
            case "GET", "/api/version/":
                return as_json({"release": "1.23.2", "label-studio-os-package": {"version": "1.23.2"}})
            case "GET", "/health/":
                return as_json({"status": "UP"})
            case "POST", "/api/token/refresh/":
                right = json.loads(asked.body) == {"refresh": self.token}
                return as_json({"access": "access"}) if right else as_json({"detail": "Token is blacklisted"}, 401)
        if asked.headers.get("Authorization") != "Bearer access" and not self.admits_legacy(asked):
            return as_json({"detail": "legacy token authentication has been disabled for this organization"}, 401)
        return self.signed(asked)

    def admits_legacy(self, asked: Asked) -> bool:
        return not self.legacy_refused and asked.headers.get("Authorization") == f"Token {self.token}"

    def signed(self, asked: Asked) -> Answer:
        match asked.method, asked.path:
            case "GET", "/api/current-user/whoami":
                return as_json({"id": 1, "email": "a@example.com"})
            case "GET", path if path == f"/api/projects/{PROJECT}/":
                return as_json(self.project)
            case "GET", "/api/ml/":
                return as_json(self.registrations)
            case "GET", "/api/ml/5":
                return as_json(self.registrations[0])
            case "PATCH", "/api/ml/5":
                return self.save(json.loads(asked.body))
            case "GET", "/api/webhooks/":
                return as_json(self.webhooks)
            case "GET", "/api/tasks/":
                return as_json({"tasks": self.tasks, "total": len(self.tasks)})
            case "GET", path if path == PHOTO:
                return Answer(200, self.photo)
        return as_json({"detail": "Not found."}, 404)

    def save(self, fields: dict[str, Any]) -> Answer:
        self.saved.append(fields)
        return as_json({"detail": self.reason[1]}, self.reason[0]) if self.reason else as_json(self.registrations[0])


def as_json(body: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


@dataclass
class Chain:
    """The links that a test may break. `knobs` are the lines of ris.env, without RIS_."""

    home: Path
    knobs: dict[str, str]
    label_studio: LabelStudio
    stop_backend: Callable[[], None]

    def expect(
        self, link: str, state: CheckState, what: str = "", remedy: str = "", project: int | None = PROJECT
    ) -> Finding:
        """Probe a link, after those that it needs: it is in this state, and says this in its sentences."""
        finding = self.probe(link, project)
        assert finding.state == state, finding
        assert what in finding.what, finding
        assert remedy in finding.remedy, finding
        return finding

    def probe(self, link: str, project: int | None = PROJECT) -> Finding:
        """The finding on one link, after those that it needs."""
        self.write()
        wanted = _needs(link)
        with CheckContext(project) as context:
            return list(examine([check for check in CHAIN if check.link in wanted], context))[-1]

    def write(self) -> None:
        if self.home.is_dir():
            lines = [f"RIS_{name.upper()}={value}" for name, value in self.knobs.items()]
            file = self.home / "ris.env"
            file.write_text("\n".join([*lines, ""]))
            file.chmod(0o600)


def _needs(link: str) -> set[str]:
    (check,) = (check for check in CHAIN if check.link == link)
    return {link}.union(*map(_needs, check.needs))
