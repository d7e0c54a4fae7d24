"""`ris import`: what it prints, and one sentence for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotated import XML
from importing_studio import PROJECT, Studio
from labelstudio.site import Answer, Asked, Site
from small_project import build, export_snapshot, photo

Run = Callable[..., tuple[int, str, str]]


class Projects(Studio):
    """With a project, which can be changed, and to which others can be added."""

    def __init__(self) -> None:
        super().__init__()
        self.projects: list[dict[str, Any]] = [{"id": PROJECT, "title": "There", "label_config": XML}]

    def answer(self, asked: Asked) -> Answer:
        body = json.loads(asked.body) if asked.headers.get("Content-Type") == "application/json" else {}
        if (asked.method, asked.path) == ("GET", "/api/projects/"):
            return self.json({"results": self.projects, "next": None})
        if (asked.method, asked.path) == ("POST", "/api/projects/"):
            self.projects.append({"id": PROJECT, **body})
            return self.json(self.projects[-1])
        if asked.path == f"/api/projects/{PROJECT}/":
            self.projects[-1] |= body
            return self.json(self.projects[-1])
        if asked.path.startswith("/api/projects/9"):
            return self.json({"detail": "Not found."}, 404)
        return super().answer(asked)


@pytest.fixture
def studio() -> Projects:
    return Projects()


@pytest.fixture
def ris(site: Site, tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch, run_ris: Run) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".ris").mkdir()
    (tmp_path / ".ris" / "ris.env").write_text(
        f"RIS_LABEL_STUDIO_URL={site.url}\nRIS_LABEL_STUDIO_TOKEN=token\nRIS_PASSWORD=pass\nRIS_WEBHOOK_SECRET=hook\n"
    )
    return run_ris


@pytest.fixture
def export(tmp_path: Path) -> Path:
    export_snapshot(build(tmp_path / "home"), tmp_path / "out")
    return tmp_path / "out"


def test_it_says_what_came(ris: Run, site: Site, export: Path) -> None:
    code, out, err = ris("import", "out", "--project", "3")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "5 tasks were made of 5 pictures. With them came 1 absent sentences, 5 masks, 4 sentences.",
        f"Open {site.url}/projects/3/data",
    ]
    _, out, _ = ris("import", "out", "--project", "3")
    assert out.startswith("0 tasks were made of 5 pictures; 5 pictures were there already. With them came nothing.")


def test_json_has_all_that_is_wrong(ris: Run, studio: Projects, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "good.png").write_bytes(photo(1))
    for number in range(12):
        (tmp_path / "photos" / f"{number}.png").write_bytes(b"no picture")
    code, out, err = ris("import", "photos", "--project", "3", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["tasks"], len(report["findings"])) == (1, 12)
    code, out, err = ris("import", "photos", "--project", "3", "--strict")
    assert (code, out) == (1, "") and "2 more of this kind (picture)" in err and "Nothing was imported: 12" in err
    assert len(studio.tasks) == 1


def test_labels_are_added_once(ris: Run, studio: Projects, export: Path) -> None:
    studio.projects[0]["label_config"] = XML.replace('<Label value="cup"/>', "")
    code, _, err = ris("import", "out", "--project", "3")
    assert code == 2 and '<Label value="cup" category="3"/>' in err and studio.tasks == []
    assert ris("import", "out", "--project", "3", "--add-labels")[0] == 0
    changed = studio.projects[0]["label_config"]
    assert 'category="3"' in changed and len(studio.tasks) == 5
    assert ris("import", "out", "--project", "3", "--add-labels")[0] == 0
    assert (studio.projects[0]["label_config"], len(studio.tasks)) == (changed, 5)


def test_a_project_is_made_once(ris: Run, studio: Projects, export: Path) -> None:
    for tasks in (5, 0):
        code, out, _ = ris("import", "out", "--create", "Fresh", "--as", "predictions", "--model-version", "theirs")
        assert code == 0 and out.startswith(f"{tasks} tasks") and "ris connect --project 3" in out
    assert [project["title"] for project in studio.projects] == ["There", "Fresh"]
    assert {row["model_version"] for task in studio.tasks for row in task.get("predictions", ())} == {"theirs"}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("out",), 2, "Name one project"),
        (("out", "--project", "3", "--create", "X"), 2, "Name one project"),
        (("out", "--project", "9"), 2, "There is no project 9"),
        (("out", "--project", "3", "--as", "drafts"), 2, "isn't known"),
        (("out", "--project", "3", "--model-version", "x"), 2, "is for --as predictions"),
        (("none", "--project", "3"), 2, "isn't a folder"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    ris: Run, export: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    ended, out, err = ris("import", *arguments)
    assert (ended, out) == (code, "")
    assert err.startswith("ris: ") and sentence in err
