"""Exports: copies that stand alone, replace only each other, and are never half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import annotation, drawn, task
from pycocotools.coco import COCO
from small_project import PHOTOS, TASKS, blob, build, contents, export_snapshot
from studio import PROJECT, Studio, running

from backend.datasets.export import ExportSpec, export_project
from backend.datasets.formats import options
from backend.datasets.snapshots import read_manifest, verify
from backend.errors import BadRequest, LabelStudioError
from ris_core.errors import DatasetError


def test_an_export_is_a_copy_that_stands_alone(tmp_path: Path) -> None:
    snapshot = build(tmp_path / "home")
    out = tmp_path / "deep" / "out"
    export_snapshot(snapshot, out)
    assert contents(out) == contents(snapshot.folder)
    for path in out.rglob("*.*"):
        assert path.stat().st_nlink == 1
        path.write_bytes(b"edited")
    verify(snapshot.folder)


def test_an_export_replaces_an_export(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    first, second = build(tmp_path / "home", TASKS[:2]), build(tmp_path / "home")
    for snapshot in (first, second, second):
        export_snapshot(snapshot, out)
        assert contents(out) == contents(snapshot.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]


@pytest.mark.parametrize("foreign", ["notes.txt", "images/mine.png", ".hidden", "images/deep/er.txt"])
def test_an_export_never_removes_what_it_didnt_write(tmp_path: Path, foreign: str) -> None:
    out = tmp_path / "out"
    snapshot = build(tmp_path / "home")
    export_snapshot(snapshot, out)
    (out / foreign).parent.mkdir(exist_ok=True)
    (out / foreign).write_text("mine")
    before = contents(out)
    with pytest.raises(DatasetError, match="which no export wrote"):
        export_snapshot(snapshot, out)
    assert contents(out) == before


@pytest.mark.parametrize("manifest", [None, "", "[]", "{}", '{"format": "another", "files": {}}', '{"files": 3}'])
def test_an_export_refuses_a_folder_of_somebody_else(tmp_path: Path, manifest: str | None) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    if manifest is not None:
        (out / "manifest.json").write_text(manifest)
    snapshot = build(tmp_path / "home")
    with pytest.raises(DatasetError, match="isn't an export"):
        export_snapshot(snapshot, out)
    assert (out / "thesis.txt").read_text() == "years of work"
    with pytest.raises(DatasetError, match="is a file"):
        export_snapshot(snapshot, out / "thesis.txt")


def test_an_interrupted_export_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, out = build(tmp_path / "home"), tmp_path / "out"
    export_snapshot(build(tmp_path / "home", TASKS[:1]), out)
    before = contents(out)

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DatasetError, match="The disk is full"):
        patch.setattr(options.shutil, "copyfile", full)
        export_snapshot(snapshot, out)
    assert contents(out) == before
    export_snapshot(snapshot, out)
    assert contents(out) == contents(snapshot.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]


@pytest.fixture
def studio() -> Studio:
    """More tasks than a page holds; all but three have the same picture; the last one's is missing."""
    tasks = [*TASKS, *(task(n, annotation(n, drawn("a", blob(n), prompt="it"))) for n in range(7, 121))]
    uploads = {entry["data"]["image"]: PHOTOS.get(entry["id"], PHOTOS[4]) for entry in tasks}
    del uploads[tasks[-1]["data"]["image"]]
    return Studio(tasks, uploads)


def test_a_project_is_exported_whole(tmp_path: Path, studio: Studio) -> None:
    out = tmp_path / "out"
    with running(studio, tmp_path / "cache") as (client, images, _):
        report = export_project(client, images, PROJECT, out, home=tmp_path / "home")
    assert (report["images"], report["annotations"], report["refs"]) == (118, 118, 117)
    assert [problem["task"] for problem in report["listed"]] == [120]
    assert json.loads(json.dumps(report))["out"] == str(out)
    verify(out)
    dataset = COCO(out / "instances.json")
    assert len(dataset.imgs) == 118
    truth = {n: blob(n) for n in range(7, 120)}
    masks = {e["image_id"]: dataset.annToMask(e) for e in dataset.anns.values() if e["image_id"] in truth}
    assert masks.keys() == truth.keys()
    assert all(np.array_equal(masks[n], truth[n]) for n in truth)
    assert len(read_manifest(out)) == 118 + 2
    # Nothing in an export tells where the pictures came from.
    assert b"127.0.0.1" not in b"".join(path.read_bytes() for path in out.glob("*.json"))


def test_an_export_that_fails_leaves_the_last_one(tmp_path: Path, studio: Studio) -> None:
    out, home = tmp_path / "out", tmp_path / "home"
    with running(studio, tmp_path / "cache") as (client, images, site):
        with pytest.raises(BadRequest, match="Choose from coco, coco-polygons, refcoco"):
            export_project(client, images, PROJECT, out, home=home, spec=ExportSpec(format="yodel"))
        assert not site.asked
        export_project(client, images, PROJECT, out, home=home)
        before = contents(out)
        studio.failing.add("/api/tasks/")
        with pytest.raises(LabelStudioError):
            export_project(client, images, PROJECT, out, home=home)
        studio.failing.clear()
        studio.tasks.clear()
        with pytest.raises(DatasetError, match="Project 3 has no submitted annotation"):
            export_project(client, images, PROJECT, out, home=home)
    assert contents(out) == before
