"""`ris doctor` beside the real Label Studio: nothing is found in what `ris up` makes, and each planted fault is."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from running import Studio

from backend import doctor
from backend.doctor.checks import CheckContext, Finding, examine
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.webhooks import SECRET_HEADER
from backend.projects.connect import BACKEND, connect_backend, project_url

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def diagnose(project: int) -> dict[str, Finding]:
    """The findings by link, in this process and without loading the model, which would cost seconds each time."""
    chain = [check for check in doctor.CHAIN if check.link != "weights"]
    with CheckContext(project) as context:
        return {finding.link: finding for finding in examine(chain, context)}


def expect(project: int, link: str, what: str, remedy: str) -> None:
    findings = diagnose(project)
    assert [name for name, each in findings.items() if each.state == "broken"] == [link], findings
    assert what in findings[link].what
    assert remedy in findings[link].remedy


@pytest.fixture
def client(studio: Studio) -> Iterator[LabelStudio]:
    """Puts the project's connection right again afterwards."""
    with LabelStudio(studio.url, studio.token) as client:
        yield client
        connect_backend(client, studio.project, studio.settings)


def test_nothing_is_broken(studio: Studio) -> None:
    done = studio.ris("doctor", "--json", "--project", str(studio.project))
    assert done.returncode == 0, done.stdout + done.stderr
    states = {each["link"]: each["state"] for each in json.loads(done.stdout)["findings"]}
    assert {link for link, state in states.items() if state != "ok"} <= {"predictions"}, done.stdout
    assert states["predictions"] in ("ok", "warning")


def test_what_the_project_shows(studio: Studio, client: LabelStudio) -> None:
    client.update_project(studio.project, model_version=BACKEND)
    finding = diagnose(studio.project)["predictions"]
    assert finding.state == "warning"
    assert "can't order tasks" in finding.what
    (row,) = client.ml_backends(studio.project)
    task = next(client.tasks(studio.project))["id"]
    prediction = {"task": task, "result": [], "score": 0.5, "model_version": row["model_version"]}
    client.import_predictions(studio.project, [json.dumps(prediction).encode()])
    client.update_project(studio.project, model_version=row["model_version"])
    assert diagnose(studio.project)["predictions"].state == "ok"
    client.update_project(studio.project, model_version=BACKEND)
    client.delete_predictions(studio.project, row["model_version"])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("access", "is an access token"),
        ("cut", "third part"),
        ("prefixed", "without Bearer"),
        ("legacy", "legacy token"),
        ("foreign", "401: Token is invalid"),
    ],
)
def test_a_token_that_is_none(studio: Studio, monkeypatch: pytest.MonkeyPatch, kind: str, words: str) -> None:
    answer = httpx.post(f"{studio.url}/api/token/refresh/", json={"refresh": studio.token})
    access = answer.json()["access"]
    legacy = httpx.get(f"{studio.url}/api/current-user/token", headers={"Authorization": f"Bearer {access}"})
    tokens = {
        "access": access,
        "cut": studio.token.rpartition(".")[0],
        "prefixed": f"Bearer {studio.token}",
        "legacy": legacy.json()["token"],
        "foreign": studio.token[:-4] + "AAAA",
    }
    monkeypatch.setenv("RIS_LABEL_STUDIO_TOKEN", tokens[kind])
    expect(studio.project, "token", words, "personal access token")


def test_another_server_at_the_address_of_label_studio(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_LABEL_STUDIO_URL", f"http://127.0.0.1:{studio.settings.port}")
    expect(studio.project, "label-studio", "isn't Label Studio", "RIS_LABEL_STUDIO_URL")


def test_a_project_that_is_not_there(studio: Studio) -> None:
    expect(4711, "project", "no project 4711", "RIS_LABEL_STUDIO_TOKEN")


def test_an_interface_without_masks(studio: Studio, client: LabelStudio) -> None:
    interface = (
        '<View><Image name="i" value="$image"/><Choices name="c" toName="i"><Choice value="x"/></Choices></View>'
    )
    project = client.create_project("No masks", interface)["id"]
    expect(project, "project", "BrushLabels", "Add <BrushLabels")


def test_a_project_that_is_not_connected(studio: Studio, client: LabelStudio) -> None:
    interface = client.project(studio.project)["label_config"]
    project = client.create_project("Not connected", interface)["id"]
    findings = diagnose(project)
    for link in ("registration", "webhook"):
        assert findings[link].state == "broken"
        assert f"ris connect --project {project}" in findings[link].remedy
    assert findings["image"].what == "The project has no task yet."


def test_another_password(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_PASSWORD", "another")
    expect(studio.project, "backend", "another user name or password", "Start it again")


def test_no_webhook(studio: Studio, client: LabelStudio) -> None:
    for row in client.webhooks(studio.project):
        client.delete_webhook(row["id"])
    expect(studio.project, "webhook", "No webhook goes to", "ris connect")


@pytest.mark.parametrize("headers", [{}, {SECRET_HEADER: "wrong"}])
def test_a_webhook_that_is_turned_away(studio: Studio, client: LabelStudio, headers: dict[str, str]) -> None:
    for row in client.webhooks(studio.project):
        client.update_webhook(row["id"], headers)
    expect(studio.project, "webhook", "turns Label Studio's events away", "ris connect")


def test_a_webhook_that_is_switched_off(studio: Studio, client: LabelStudio) -> None:
    change(studio, "UPDATE webhook SET is_active = 0 WHERE project_id = ?", studio.project)
    expect(studio.project, "webhook", "switched off", "Settings, Webhooks")
    change(studio, "UPDATE webhook SET is_active = 1 WHERE project_id = ?", studio.project)


def test_label_studio_has_another_password(studio: Studio, client: LabelStudio) -> None:
    change(studio, "UPDATE ml_mlbackend SET basic_auth_pass = 'x' WHERE project_id = ?", studio.project)
    expect(studio.project, "registration", "another password", "ris connect")


def test_an_address_that_label_studio_does_not_call(
    studio: Studio, client: LabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.2 is as private as 127.0.0.1, and isn't the one that `ris up` lets Label Studio call."""
    with forwarding("127.0.0.2", f"http://127.0.0.1:{studio.settings.port}") as url:
        monkeypatch.setenv("RIS_BACKEND_URL", url)
        banned = f"{url}/projects/{studio.project}"
        change(studio, "UPDATE ml_mlbackend SET url = ? WHERE project_id = ?", banned, studio.project)
        change(studio, "UPDATE webhook SET url = ? WHERE project_id = ?", f"{banned}/webhook", studio.project)
        expect(studio.project, "registration", "private address", "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS=false")
    right = project_url(studio.settings, studio.project)
    monkeypatch.delenv("RIS_BACKEND_URL")
    change(studio, "UPDATE ml_mlbackend SET url = ? WHERE project_id = ?", right, studio.project)
    change(studio, "UPDATE webhook SET url = ? WHERE project_id = ?", f"{right}/webhook", studio.project)


def change(studio: Studio, statement: str, *values: Any) -> None:
    """Change Label Studio's database past Label Studio, which would not let such a fault in."""
    file = studio.home / "label-studio" / "label_studio.sqlite3"
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        assert database.execute(statement, values).rowcount >= 1


@contextmanager
def forwarding(address: str, target: str) -> Iterator[str]:
    """The backend at another address of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name != "Host"}
            answer = httpx.request(self.command, target + self.path, content=body, headers=headers)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = forward

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://{address}:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
