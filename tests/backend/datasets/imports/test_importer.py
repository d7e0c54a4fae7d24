"""The whole import against a small Label Studio that takes files and tasks, refuses, and dies at any request."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import CONFIG
from hypothesis import given, settings
from hypothesis import strategies as st
from importing_studio import PROJECT, Studio
from labelstudio.site import serve
from PIL import Image
from small_project import build, export_snapshot, photo
from studio import TOKEN

from backend.datasets.annotations import read_corrections
from backend.datasets.imports import journal
from backend.datasets.imports.folders import read_import_folder
from backend.datasets.imports.importer import FolderImport, ImportOptions, ImportReport, check_folder
from backend.errors import LabelStudioError, LabelStudioRefused, Unavailable
from backend.home import import_file
from backend.labelstudio.client import LabelStudio
from backend.locks import exclusive


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(journal, "_POLL_SECONDS", 0.02)


@pytest.fixture
def studio() -> Studio:
    return Studio()


@pytest.fixture
def client(studio: Studio) -> Iterator[LabelStudio]:
    with serve(studio) as site, LabelStudio(site.url, TOKEN) as client:
        yield client


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export_snapshot(build(folder / "home"), folder / "out")
    return folder / "out"


def run(client: LabelStudio, folder: Path, home: Path, **options: Any) -> ImportReport:
    work = FolderImport(client, PROJECT, CONFIG, home, ImportOptions(**options))
    return work.run(read_import_folder(folder))


def test_an_export_says_the_same_afterwards(client: LabelStudio, studio: Studio, export: Path, tmp_path: Path) -> None:
    report = run(client, export, tmp_path)
    assert (report.tasks, report.present, report.findings) == (5, 0, [])
    assert report.as_json()["counts"] == {"absent sentences": 1, "masks": 5, "sentences": 4}
    instances, refs = (json.loads((export / name).read_text()) for name in ("instances.json", "refs.json"))
    read = read_corrections(studio.tasks, CONFIG)
    assert read.skipped == () and len(read.items) == 5
    rows = {row["id"]: row for row in instances["annotations"]}
    for image, item in zip(instances["images"], read.items, strict=True):
        own = [row for row in rows.values() if row["image_id"] == image["id"]]
        assert [dict(drawn.rle) for drawn in item.objects] == [row["segmentation"] for row in own]
        assert [drawn.region for drawn in item.objects] == [row["ls"]["region"] for row in own]
        said = {expression.prompt: set(expression.regions) for expression in item.expressions}
        assert said == {
            sentence["raw"]: {rows[number]["ls"]["region"] for number in ref["ann_id"] if number != -1}
            for ref in refs
            if ref["image_id"] == image["id"]
            for sentence in ref["sentences"]
        }
        assert studio.contents[item.image] == (export / "images" / image["file_name"]).read_bytes()
    assert (run(client, export, tmp_path).tasks, len(studio.tasks)) == (0, 5)


@pytest.mark.parametrize("stores", [False, True])
def test_whatever_request_fails_nothing_comes_twice_or_is_lost(
    tmp_path: Path, export: Path, stores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.datasets.imports.importer._BATCH_TASKS", 2)
    # 1: what is there. Then of 2, 2 and 1 pictures an upload and its address each, and their tasks.
    for request in range(1, 16):
        studio = Studio(breaks_at=request, stores=stores)
        home = tmp_path / str(request)
        with serve(studio) as site, LabelStudio(site.url, TOKEN) as client:
            if request <= 14:
                with pytest.raises(LabelStudioError):
                    run(client, export, home)
            run(client, export, home)
        keys = [task["data"]["ris_import"] for task in studio.tasks]
        assert len(keys) == len(set(keys)) == 5
        assert not import_file(home, PROJECT).exists()


def test_what_was_sent_before_a_death_is_waited_for(
    client: LabelStudio, studio: Studio, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label Studio still stores it while the next run begins."""
    monkeypatch.setattr(journal, "SETTLE_SECONDS", 5.0)
    run(client, export, tmp_path)
    late, studio.tasks = studio.tasks, []
    journal.ImportJournal(tmp_path, PROJECT).sending([task["data"]["ris_import"] for task in late])
    told: list[str] = []

    def on_progress(done: int, detail: str) -> None:
        told.append(detail)
        studio.tasks = late

    report = FolderImport(client, PROJECT, CONFIG, tmp_path, ImportOptions()).run(
        read_import_folder(export), on_progress
    )
    assert (report.tasks, report.present, len(studio.tasks)) == (0, 5, 5)
    assert told[0].startswith("waiting for tasks")


def test_what_never_arrived_is_sent_again(client: LabelStudio, export: Path, tmp_path: Path) -> None:
    journal.ImportJournal(tmp_path, PROJECT).sending(["a", "b"])
    started = time.monotonic()
    assert run(client, export, tmp_path).tasks == 5
    assert time.monotonic() - started >= 0.15


def test_two_imports_into_a_project_exclude_each_other(client: LabelStudio, export: Path, tmp_path: Path) -> None:
    lock = import_file(tmp_path, PROJECT).with_suffix(".lock")
    with exclusive(lock), pytest.raises(Unavailable, match="Another import"):
        run(client, export, tmp_path)


def test_a_task_that_is_refused_costs_itself(client: LabelStudio, studio: Studio, export: Path, tmp_path: Path) -> None:
    studio.refuses = b"a unicorn"
    report = run(client, export, tmp_path)
    (finding,) = report.findings
    assert (report.tasks, finding.kind) == (4, "refused") and "data: no" in finding.reason


def test_where_every_task_is_refused_it_ends(client: LabelStudio, studio: Studio, export: Path, tmp_path: Path) -> None:
    studio.refuses = b"ris_import"
    with pytest.raises(LabelStudioRefused, match="data: no"):
        run(client, export, tmp_path)
    assert studio.tasks == []


def test_damaged_pictures_cost_themselves(client: LabelStudio, studio: Studio, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(photo(1))
    (folder / "b.png").write_bytes(photo(2)[:99])
    (folder / "c.png").write_bytes(b"text")
    (folder / "d.png").write_bytes(photo(3, (200, 200)))
    found = read_import_folder(folder)
    options = ImportOptions(max_pixels=10_000, max_bytes=100_000)
    assert len(check_folder(found, CONFIG, options)) == 3 and studio.requests == 0
    report = FolderImport(client, PROJECT, CONFIG, tmp_path, options).run(found)
    assert (report.tasks, len(report.findings), len(studio.contents)) == (1, 3, 1)
    assert studio.tasks[0]["annotations"] == []
    assert run(client, folder, tmp_path, max_bytes=10).present == 0


def sideways(tag: int) -> bytes:
    """24 x 32 pixels that lie on their side; browsers show 32 x 24."""
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = tag
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(("size", "is_kept"), [((32, 24), True), ((24, 32), False), ((24, 33), None)])
def test_a_turned_picture_is_shown_as_its_masks_were_drawn(
    client: LabelStudio, studio: Studio, tmp_path: Path, size: tuple[int, int], is_kept: bool | None
) -> None:
    """As browsers turn it, it stays; as programs see it that heed no tag, it loses the tag."""
    folder = tmp_path / "coco"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(sideways(6))
    image = {"id": 1, "file_name": "a.jpg", "height": size[0], "width": size[1]}
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}
    document = {"images": [image], "annotations": [row], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "coco.json").write_text(json.dumps(document))
    report = run(client, folder, tmp_path)
    if is_kept is None:
        assert report.tasks == 0 and "drawn on 33 x 24" in report.findings[0].reason
        return
    (content,) = studio.contents.values()
    assert (content == sideways(6)) == is_kept and report.counts["pictures saved anew"] == (not is_kept)
    region = studio.tasks[0]["annotations"][0]["result"][0]
    assert (region["original_height"], region["original_width"]) == size
    with Image.open(io.BytesIO(content)) as shown:
        assert shown.getexif().get(0x0112, 1) == (6 if is_kept else 1)


@settings(max_examples=25, deadline=None)
@given(name=st.text(min_size=1, max_size=80).filter(lambda name: "/" not in name and "\0" not in name))
def test_any_file_name_is_uploaded(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    from backend.datasets.imports.folders import FoundPicture
    from backend.datasets.imports.pictures import prepare_picture

    path = tmp_path_factory.mktemp("one") / "file"
    path.write_bytes(photo(1))
    prepared = prepare_picture(FoundPicture(name, path), 1 << 20, 1 << 20)
    assert prepared.file_name.endswith(".png") or prepared.file_name.lower().endswith(".png")
    assert not set(prepared.file_name) & set('/\\"\r\n\t ') and len(prepared.file_name) < 80
