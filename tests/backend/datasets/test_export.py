"""Exports: copies that stand alone, replace only each other, and are never half-written."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import annotation, drawn, task
from labelstudio.site import serve
from pycocotools.coco import COCO
from small_project import PHOTOS, TASKS, blob, build, contents, export_snapshot, photo
from studio import PROJECT, Studio, running

from backend.datasets.export import ExportSpec, export_project
from backend.datasets.formats import options
from backend.datasets.snapshots import read_manifest, verify
from backend.errors import BadRequest, DiskFull, LabelStudioError
from backend.labelstudio.label_config import Defaults
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

    with monkeypatch.context() as patch, pytest.raises(DiskFull, match="The disk is full"):
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
    assert len(read_manifest(out)) == 118 + 4
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


def exported(tmp_path: Path, studio: Studio, **spec: Any) -> tuple[dict[str, Any], Path]:
    with running(studio, tmp_path / "cache") as (client, images, _):
        report = export_project(
            client, images, PROJECT, tmp_path / "out", home=tmp_path / "home", spec=ExportSpec(**spec)
        )
    return report, tmp_path / "out"


def one_of_each_problem() -> Studio:
    """A task each: a region that can't be read; a mask of another size; a label that is gone; a missing picture; a
    task without a picture; and two whose regions are all bad, which mustn't look as if nothing were there."""
    broken, other = drawn("broken", blob(2)), drawn("other", np.ones((9, 9), bool))
    broken["value"]["rle"] = [1, 2, 3]
    tasks = [
        task(1, annotation(11, drawn("good", blob(1), prompt="it"), broken)),
        task(2, annotation(12, drawn("good", blob(1), prompt="it"), other)),
        task(3, annotation(13, drawn("good", blob(1), "unicorn"))),
        task(4, annotation(14, drawn("good", blob(1)))),
        task(5, annotation(15, drawn("good", blob(1))), image=""),
        task(6, annotation(16, broken)),
        task(7, annotation(17, drawn("gone", blob(1), from_name="gone"))),
        task(8, annotation(18)),
    ]
    uploads = {entry["data"]["image"]: PHOTOS[1] for entry in tasks if entry["id"] != 4}
    return Studio(tasks, uploads)


def test_what_is_bad_costs_itself_and_is_told(tmp_path: Path) -> None:
    report, out = exported(tmp_path, one_of_each_problem())
    told = [(problem["task"], problem["kind"], problem["region"]) for problem in report["listed"]]
    assert told == [
        (1, "region", "broken"),
        (2, "region", "other"),
        (3, "unknown label", "good"),
        (4, "image", ""),
        (5, "task", ""),
        (6, "region", "broken"),
        (7, "unknown tag", "gone"),
    ]
    assert report["problems"] == {"region": 3, "unknown label": 1, "image": 1, "task": 1, "unknown tag": 1}
    dataset = COCO(out / "instances.json")
    assert sorted(dataset.imgs) == [1, 2, 3, 8]
    assert [row["ls"]["region"] for row in dataset.anns.values()] == ["good"] * 3
    assert {row["name"] for row in dataset.dataset["categories"]} >= {"cat", "unicorn"}


def test_a_strict_export_ends_at_a_problem(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"7 problems, and the export is to be strict\. The first, in task"):
        exported(tmp_path, one_of_each_problem(), strict=True)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_nothing_but_problems_is_no_export(tmp_path: Path) -> None:
    studio = Studio([task(1, annotation(11, drawn("a", blob(1), original_width=3)))], {})
    with pytest.raises(DatasetError, match=r"Project 3 has none that can be exported\. Task 1: Region a can't"):
        exported(tmp_path, studio)


@pytest.mark.parametrize("images", ["copy", "link", "leave"])
def test_pictures_are_copied_linked_or_left(tmp_path: Path, images: str) -> None:
    _, out = exported(
        tmp_path, Studio(TASKS, {entry["data"]["image"]: PHOTOS[entry["id"]] for entry in TASKS}), images=images
    )
    rows = COCO(out / "instances.json").dataset["images"]
    sources = [row.get("source") for row in rows]
    assert sources == ([entry["data"]["image"] for entry in TASKS[:5]] if images == "leave" else [None] * 5)
    names = [row["file_name"] for row in rows]
    assert len(names) == 5
    for name in names:
        path = out / "images" / name
        assert path.exists() is (images != "leave")
        if images != "leave":
            assert (path.stat().st_nlink > 1) is (images == "link")
    verify(out)


def test_polygons_say_what_they_cost(tmp_path: Path) -> None:
    studio = Studio(TASKS, {entry["data"]["image"]: PHOTOS[entry["id"]] for entry in TASKS})
    for tolerance in (0.0, 1.5):
        _, out = exported(tmp_path, studio, format="coco-polygons", tolerance=tolerance)
        dataset = COCO(out / "instances.json")
        truths = {(1, "a"): blob(1), (1, "b"): blob(2), (2, "a"): blob(3), (2, "c"): blob(4), (4, "a"): blob(5)}
        assert len(dataset.anns) == len(truths)
        for row in dataset.anns.values():
            truth = truths[row["image_id"], row["ls"]["region"]]
            mask = dataset.annToMask(row).astype(bool)
            assert row["polygon"]["changed_pixels"] == (mask != truth).sum()
            assert row["polygon"]["iou"] == pytest.approx((mask & truth).sum() / (mask | truth).sum(), abs=1e-6)
            assert (row["area"], row["iscrowd"]) == (truth.sum(), 0)
            assert tolerance or np.array_equal(mask, truth)


def test_a_group_is_in_one_split_however_many_tasks_come(tmp_path: Path) -> None:
    def splits(count: int) -> dict[str, set[str]]:
        tasks = [task(n, annotation(n, drawn("a", blob(n)))) for n in range(1, count)]
        for entry in tasks:
            entry["data"]["about"] = {"patient": f"p{entry['id'] % 30}"} if entry["id"] % 10 else {}
        studio = Studio(tasks, {entry["data"]["image"]: photo(entry["id"]) for entry in tasks})
        with running(studio, tmp_path / "cache") as (client, images, _):
            defaults = Defaults(split_by="about.patient")
            export_project(client, images, PROJECT, tmp_path / "out", home=tmp_path / "home", defaults=defaults)
        rows = json.loads((tmp_path / "out" / "instances.json").read_text())["images"]
        of_groups: dict[str, set[str]] = {}
        for row, entry in zip(rows, tasks, strict=True):
            of_groups.setdefault(entry["data"]["about"].get("patient", f"alone {row['id']}"), set()).add(row["split"])
        return of_groups

    few, many = splits(30), splits(80)
    assert all(len(split) == 1 for split in many.values())
    assert {group: many[group] for group in few} == few
    assert len(set.union(*many.values())) == 3


KILLED = """
import sys
from pathlib import Path
from studio import PROJECT, TOKEN
from backend.datasets.export import ExportSpec, export_project
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver
if __name__ == "__main__":
    url, folder, fmt = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    with LabelStudio(url, TOKEN) as client:
        images = ImageResolver(url, TOKEN, cache=folder / "cache")
        print("begun", flush=True)
        export_project(client, images, PROJECT, folder / "out", home=folder / "home", spec=ExportSpec(fmt))
"""


def test_kills_at_any_moment_leave_no_half_export(tmp_path: Path, studio: Studio) -> None:
    script, draw = tmp_path / "killed.py", random.Random(3)
    script.write_text(KILLED)
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    out, ends = tmp_path / "out", list[bool]()
    with serve(studio) as site:
        command = [sys.executable, str(script), site.url, str(tmp_path), "refcoco"]
        for _ in range(5):
            process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE)
            assert process.stdout and process.stdout.readline() == b"begun\n"
            time.sleep(draw.uniform(0, 0.8))
            process.send_signal(signal.SIGKILL)
            ends.append(process.wait() == 0)
            process.communicate()
            if out.exists():
                verify(out)
        subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=True, timeout=60)
    verify(out)
    assert len(read_manifest(out)) >= 118
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")], "what they left is swept up"
    assert not all(ends)
