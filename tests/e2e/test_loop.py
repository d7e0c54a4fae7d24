"""The whole loop through the real Label Studio: pre-label, correct, learn by the webhook, promote, export."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from running import Studio

from backend.labelstudio.client import LabelStudio

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def demo(studio: Studio) -> str:
    done = studio.ris("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_model_gets_better_from_corrections(demo: str) -> None:
    assert "Promoted" in demo
    for title in ("learnt from", "held out"):
        before, after = _means(demo, title)
        assert after > before
    assert len(set(re.findall(r"lda-[0-9a-f]{8}", demo))) == 2


def test_every_exported_mask_is_the_annotations(demo: str) -> None:
    assert re.search(r"\b25 masks in .*each equal to its annotation's bit for bit", " ".join(demo.split()))


def test_the_demo_says_that_it_lowers_the_gate(demo: str) -> None:
    assert "a project needs 20" in demo


def test_the_export_is_what_coco_loads(demo: str, studio: Studio, tmp_path: Path) -> None:
    project = _demo_project(studio)
    done = studio.ris("export", "--project", str(project), "--format", "coco", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["images"], report["annotations"], report["skipped"]) == (7, 25, [])
    folder = Path(report["out"])
    dataset = COCO(str(folder / "instances.json"))
    assert len(dataset.anns) == 25
    for image in dataset.imgs.values():
        assert (folder / "images" / image["file_name"]).is_file()
    refs = json.loads((folder / "refs.json").read_text())
    assert {sentence["sent"] for ref in refs for sentence in ref["sentences"]} >= {"the cat", "the orange suit"}


def test_the_export_can_be_evaluated(demo: str, studio: Studio) -> None:
    folder = studio.home / "exports" / f"project-{_demo_project(studio)}-coco"
    done = studio.ris("evaluate", "--dataset", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["expressions"] == 25


def test_the_next_prediction_names_the_new_version(demo: str, studio: Studio) -> None:
    project = _demo_project(studio)
    with LabelStudio(studio.url, studio.token) as client:
        client.retrieve_predictions(project)
        task = next(iter(client.tasks(project)))
        newest = max(client.predictions(task["id"]), key=lambda row: row["id"])
        (backend,) = client.ml_backends(project)
    assert newest["model_version"] == backend["model_version"]
    assert newest["model_version"].rpartition(".")[0] in demo


def test_nothing_secret_is_in_a_log(demo: str, studio: Studio) -> None:
    for log in (studio.home / "logs").iterdir():
        text = log.read_text(errors="replace")
        for name in ("password", "webhook_secret", "label_studio_token"):
            assert studio.settings.secret(name) not in text, f"{name} is in {log.name}"


def _means(printed: str, title: str) -> tuple[float, float]:
    line = next(line for line in printed.splitlines() if f"mean, {title}" in line)
    before, after = re.findall(r"\d\.\d{3}", line)
    return float(before), float(after)


def _demo_project(studio: Studio) -> int:
    with LabelStudio(studio.url, studio.token) as client:
        return next(int(row["id"]) for row in client.projects() if row["title"] == "ris demo")
