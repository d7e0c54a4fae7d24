"""What is in a folder: layouts, names that lead astray, and rows that make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_project import build, export_snapshot, photo

from backend.datasets.imports.folders import Finding, FoundFolder, FoundPicture, read_import_folder
from ris_core.errors import DatasetError, InputError


def pictures(found: FoundFolder) -> list[FoundPicture]:
    return [row for row in found.rows() if isinstance(row, FoundPicture)]


def reasons(found: FoundFolder) -> list[str]:
    return [f"{row.place}: {row.reason}" for row in found.rows() if isinstance(row, Finding)]


def coco(folder: Path, *names: Any, file: str = "some.json", annotations: Any = (), **more: Any) -> FoundFolder:
    images = [{"id": n, "file_name": name, "width": 32, "height": 24} for n, name in enumerate(names, 1)]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "cat"}], **more}
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(document))
    return read_import_folder(folder)


def test_an_export_is_read_with_its_sentences(tmp_path: Path) -> None:
    export_snapshot(build(tmp_path / "home"), tmp_path / "out")
    found = read_import_folder(tmp_path / "out")
    assert (found.kind, found.total, reasons(found)) == ("export", 5, [])
    assert found.categories == {"cat": 1, "big dog": 2, "cup": 3}
    first, second, third, *_ = pictures(found)
    assert [(sentence.text, len(sentence.objects)) for sentence in first.sentences] == [("The cat", 1), ("a dog", 1)]
    assert [(sentence.text, len(sentence.objects)) for sentence in second.sentences] == [("cats", 2)]
    assert [(sentence.text, sentence.origin) for sentence in third.sentences] == [("a unicorn", "")]
    # Without the task's number and the upload's digits; two of one name are told apart.
    assert [picture.name for picture in pictures(found)] == ["photo.png", *(f"photo.png#{n}" for n in range(2, 6))]
    assert all(picture.is_annotated for picture in pictures(found))


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("some.json", "a.png"),
        ("some.json", "images/a.png"),
        ("annotations/instances_val2017.json", "val2017/a.png"),
        ("annotations/instances_val2017.json", "images/val2017/a.png"),
        ("_annotations.coco.json", "a.png"),
    ],
)
def test_pictures_are_found_where_tools_put_them(tmp_path: Path, file: str, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(photo(1))
    (picture,) = pictures(coco(tmp_path, "a.png", file=file))
    assert picture.path == tmp_path / place and picture.size == (24, 32) and not picture.is_annotated


def test_of_several_files_those_of_instances_are_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).write_bytes(photo(1))
    coco(tmp_path, "a.png", file="annotations/captions_train.json")
    coco(tmp_path, "a.png", file="annotations/instances_train.json")
    found = coco(tmp_path, "b.png", file="annotations/instances_val.json")
    assert [picture.name for picture in pictures(found)] == ["a.png", "b.png"] and found.total == 2


@pytest.mark.parametrize("name", ["../out.png", "/etc/hostname", "images/../../out.png", "link.png", "linked/out.png"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "out.png").write_bytes(photo(1))
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    (folder / "linked").symlink_to(tmp_path)
    found = coco(folder, name)
    assert pictures(found) == [] and "outside the folder" in reasons(found)[0]


@settings(max_examples=200, deadline=None)
@given(name=st.one_of(st.text(max_size=40), st.sampled_from(["..", ".", "a" * 5000, "/", "a\0b", "", None, 7])))
def test_no_name_at_all_leads_out(tmp_path_factory: pytest.TempPathFactory, name: Any) -> None:
    folder = tmp_path_factory.mktemp("folder")
    found = coco(folder, name)
    for row in found.rows():
        assert isinstance(row, Finding) or row.path.resolve().is_relative_to(folder.resolve())


def test_rows_that_make_no_sense_cost_themselves(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo(1))
    rows = [
        {"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 1, "category_id": 6, "bbox": [1, 2, 3, 4]},
        {"id": 3, "image_id": 99, "category_id": 5},
        {"id": 4, "image_id": [1], "category_id": {}},
        "nonsense",
        {},
    ]
    found = coco(tmp_path, "a.png", "missing.png", annotations=rows)
    (picture,) = pictures(found)
    assert [thing.number for thing in picture.objects] == [1]
    told = " ".join(reasons(found))
    for part in ("of category 6", "about image 99", "missing.png: is missing", "about image nonsense"):
        assert part in told
    assert found.total == 2


def test_refs_of_what_is_not_there_are_told(tmp_path: Path) -> None:
    export_snapshot(build(tmp_path / "home"), tmp_path / "out")
    refs = json.loads((tmp_path / "out" / "refs.json").read_text())
    refs[0]["ann_id"] = [12345]
    del refs[1]["sentences"]
    (tmp_path / "out" / "refs.json").write_text(json.dumps([*refs, {"image_id": 77}, 3]))
    told = " ".join(reasons(read_import_folder(tmp_path / "out")))
    for part in ("means an annotation that the picture hasn't", "can't be read", "about image 77"):
        assert part in told


def test_pictures_alone(tmp_path: Path) -> None:
    for name in ("b.PNG", "deep/er/a.jpg", ".hidden.png", ".cache/c.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photo(1))
    (tmp_path / "meta.json").write_text('{"made": "by a camera"}')
    (tmp_path / "around").symlink_to(tmp_path)
    (tmp_path / "hostname.png").symlink_to("/etc/hostname")
    found = read_import_folder(tmp_path)
    assert (found.kind, found.total, found.categories) == ("pictures", 2, {})
    assert [picture.name for picture in pictures(found)] == ["b.PNG", "deep/er/a.jpg"]
    assert sorted(row.place for row in found.rows() if isinstance(row, Finding)) == ["hostname.png", "meta.json"]


def test_what_is_no_such_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="isn't a folder"):
        read_import_folder(tmp_path / "none")
    with pytest.raises(InputError, match="neither a COCO dataset nor a picture"):
        read_import_folder(tmp_path)
    (tmp_path / "instances.json").write_text("[]")
    with pytest.raises(DatasetError, match='no list of "images"'):
        read_import_folder(tmp_path)
    (tmp_path / "instances.json").write_text("{")
    with pytest.raises(DatasetError, match="isn't JSON"):
        read_import_folder(tmp_path)
