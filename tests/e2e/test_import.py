"""What goes out comes in again: exports, foreign COCO and folders of pictures, into the real Label Studio."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from running import Studio

from backend.home import import_file
from backend.labelstudio import label_config
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver
from backend.labelstudio.regions import (
    absent_regions,
    erased_region,
    mask_regions,
    prompt_region,
    read_annotation,
)
from backend.projects.connect import LABEL_CONFIG
from ris_core.files import sha256

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

HEIGHT, WIDTH = 60, 80
_KILLS = 6
CONFIG = label_config.parse(LABEL_CONFIG)
Json = dict[str, Any]


@pytest.fixture
def client(studio: Studio) -> Iterator[LabelStudio]:
    with LabelStudio(studio.url, studio.token) as client:
        yield client


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def blob(seed: int) -> np.ndarray:
    """Specks, holes and parts."""
    draw = np.random.default_rng(seed)
    mask = draw.random((HEIGHT, WIDTH)) < 0.02
    top, left = draw.integers(0, 30, 2)
    mask[top : top + 25, left : left + 30] = True
    mask[top + 5 : top + 9, left + 5 : left + 12] = False
    return mask


def drawn(seed: int, label: str | None, prompt: str, origin: str = "manual") -> Json:
    named = next((known for known in CONFIG.labels if known.value == label), None)
    (region,) = mask_regions(CONFIG, named, blob(seed), 0.75, prompt)
    return {**region, "origin": origin, "meta": region["meta"] if prompt else {}}


def annotated(client: LabelStudio, project: int) -> None:
    """A picture for each way in which people say something."""
    size = (HEIGHT, WIDTH)
    answer = [drawn(20, "cup", "two cups", "prediction"), drawn(21, "cup", "two cups", "prediction")]
    for region in answer:
        region["meta"]["answer"] = "one-answer"
    results: list[tuple[list[Json], Json]] = [
        ([drawn(1, "cat", "The cat."), drawn(2, "person", "a person, left")], {"ground_truth": True}),
        (answer, {}),
        ([drawn(3, "cat", "", "manual")], {}),
        ([drawn(4, "cat", ""), *absent_regions(CONFIG, size, ["a unicorn", "the moon"])], {}),
        (absent_regions(CONFIG, size, ["a white horse"]), {}),
        ([drawn(5, "sky", "", "manual"), erased_region(CONFIG.controls[0], size, "a plane")], {}),
        ([drawn(6, None, ""), drawn(7, None, ""), drawn(8, "flower", "the flower", "prediction-changed")], {}),
        ([prompt_region(CONFIG, size, "a rocket"), drawn(9, "rocket", "")], {}),
        ([drawn(10, "cup", "cups"), drawn(11, "other", "cups"), drawn(12, "cup", "")], {}),
        ([], {}),
    ]
    for number, (result, fields) in enumerate(results):
        kind = ("PNG", "JPEG", "WEBP")[number % 3]
        (task,) = client.upload(project, f"photo {number}.{kind.lower()}", picture(number, kind))
        client.create_annotation(task, result, **fields)


def told(folder: Path) -> Json:
    """What an export says, without Label Studio's numbers: by the picture's digest its objects and its sentences."""
    instances, refs = (json.loads((folder / name).read_text()) for name in ("instances.json", "refs.json"))
    names = {row["id"]: row["name"] for row in instances["categories"]}
    rows = {row["id"]: row for row in instances["annotations"]}
    found: Json = {}
    for image in instances["images"]:
        content = (folder / "images" / image["file_name"]).read_bytes()
        assert sha256(content) == image["sha256"]
        found[image["sha256"]] = {
            "size": (image["height"], image["width"], image["split"]),
            "objects": sorted(
                (
                    names[row["category_id"]],
                    row["segmentation"]["counts"],
                    row["area"],
                    tuple(row["bbox"]),
                    *(row["ls"][key] for key in ("region", "origin", "ground_truth", "score")),
                    tuple(sorted(row["ls"]["prompts"])),
                )
                for row in instances["annotations"]
                if row["image_id"] == image["id"]
            ),
            "sentences": sorted(
                (
                    sentence["sent"],
                    sentence["raw"],
                    ref.get("origin"),
                    tuple(sorted(rows[number]["ls"]["region"] for number in ref["ann_id"] if number != -1)),
                    tuple(sorted(names.get(number, "") for number in ref["category_id"])),
                )
                for ref in refs
                if ref["image_id"] == image["id"]
                for sentence in ref["sentences"]
            ),
        }
    return {"pictures": found, "categories": [(row["id"], row["name"]) for row in instances["categories"]]}


def exported(studio: Studio, project: int, name: str) -> Path:
    done = studio.ris("export", "--project", str(project), "--name", name, "--json")
    assert done.returncode == 0, done.stderr
    return studio.home / "exports" / name


def imported(studio: Studio, folder: Path, *arguments: str) -> Json:
    done = studio.ris("import", str(folder), "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def export(studio: Studio) -> Path:
    with LabelStudio(studio.url, studio.token) as client:
        project = int(client.create_project("To be exported", LABEL_CONFIG)["id"])
        annotated(client, project)
    return exported(studio, project, "first")


def test_an_export_comes_in_and_goes_out_the_same(studio: Studio, client: LabelStudio, export: Path) -> None:
    report = imported(studio, export, "--create", "Imported again", "--strict")
    assert (report["tasks"], report["present"], report["findings"]) == (10, 0, [])
    first, second = told(export), told(exported(studio, report["project"], "second"))
    assert second == first
    sentences = [sentence for row in first["pictures"].values() for sentence in row["sentences"]]
    assert {sentence[2] for sentence in sentences} == {"manual", "accepted", "corrected", "absent", "rejected"}
    # A third time: neither names nor anything else grows.
    again = imported(studio, studio.home / "exports" / "second", "--create", "Imported a third time")
    third = exported(studio, again["project"], "third")
    assert told(third) == first
    lengths = [max(len(path.name) for path in (folder / "images").iterdir()) for folder in (third, export)]
    assert lengths[0] <= lengths[1] + 2
    # The same once more does nothing.
    report = imported(studio, export, "--project", str(report["project"]))
    assert (report["tasks"], report["present"]) == (0, 10)


def test_an_export_comes_as_predictions(studio: Studio, client: LabelStudio, export: Path) -> None:
    report = imported(
        studio, export, "--create", "As predictions", "--as", "predictions", "--model-version", "their-model-2"
    )
    assert report["tasks"] == 10 and report["findings"] == []
    masks, sentences = Counter[bytes](), set()
    for task in client.tasks(report["project"]):
        assert task["annotations"] == []
        for prediction in task["predictions"]:
            assert prediction["model_version"] == "their-model-2"
            read = read_annotation(prediction["result"], CONFIG)
            masks.update(mask.mask.tobytes() for mask in read.masks)
            sentences |= {*read.prompts}
    rows = json.loads((export / "instances.json").read_text())["annotations"]
    assert masks == Counter(coco_mask.decode(row["segmentation"]).astype(bool).tobytes() for row in rows)
    assert {"The cat.", "two cups", "a unicorn", "a plane"} <= sentences


def foreign(folder: Path, count: int) -> Path:
    """COCO as others write it: polygons, both kinds of run lengths, a crowd, a box alone."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "train2017").mkdir()
    images, annotations = [], []
    for number in range(1, count + 1):
        name = f"{number:012}.jpg"
        (folder / "train2017" / name).write_bytes(picture(1000 + number, "JPEG"))
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        polygon = [10, 10, 40.5, 10, 40.5, 30.25, 10, 30.25]
        compressed = coco_mask.encode(np.asfortranarray(blob(number).astype(np.uint8)))
        compressed = {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode()}
        flat = blob(number + 500).ravel(order="F").astype(int)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
        runs = np.diff(np.concatenate([[0], edges])).tolist()
        shapes = [[polygon, [50, 40, 70, 40, 60, 55]], compressed, {"size": [HEIGHT, WIDTH], "counts": runs}, []]
        for position, shape in enumerate(shapes):
            row = {"id": 10 * number + position, "image_id": number, "category_id": (18, 44)[position % 2]}
            crowd = int(position == 2)
            annotations.append({**row, "segmentation": shape, "bbox": [3, 4, 20, 10], "iscrowd": crowd})
    categories = [{"id": 18, "name": "dog"}, {"id": 44, "name": "bottle & glass"}, {"id": 90, "name": "unused"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(document))
    return folder


def test_foreign_coco_comes_in_with_its_labels(studio: Studio, client: LabelStudio, tmp_path: Path) -> None:
    folder = foreign(tmp_path / "coco", 3)
    project = int(client.create_project("Foreign", LABEL_CONFIG)["id"])
    refused = studio.ris("import", str(folder), "--project", str(project))
    assert refused.returncode == 2 and '<Label value="dog" category="18"/>' in refused.stderr
    assert list(client.task_data(project)) == []
    report = imported(studio, folder, "--project", str(project), "--add-labels")
    assert report["tasks"] == 3 and report["findings"] == []
    assert report["counts"] == {"boxes as masks": 3, "crowds": 3, "masks": 12}
    export = told(exported(studio, project, "foreign"))
    assert {(18, "dog"), (44, "bottle & glass"), (90, "unused")} < set(export["categories"])
    rows = json.loads((folder / "annotations" / "instances_train2017.json").read_text())["annotations"]
    expected: Counter[str] = Counter()
    for row in rows:
        shape = row["segmentation"] or [[3, 4, 23, 4, 23, 14, 3, 14]]
        runs = shape if isinstance(shape, dict) and isinstance(shape["counts"], str) else None
        runs = runs or coco_mask.frPyObjects(shape, HEIGHT, WIDTH)
        runs = coco_mask.merge(runs) if isinstance(runs, list) else runs
        counts = coco_mask.encode(np.asfortranarray(coco_mask.decode(runs)))["counts"]
        expected[counts.decode()] += 1
    assert Counter(row[1] for image in export["pictures"].values() for row in image["objects"]) == expected
    assert set(export["pictures"]) == {sha256(path) for path in (folder / "train2017").iterdir()}


def test_a_folder_of_pictures_comes_as_tasks(studio: Studio, client: LabelStudio, tmp_path: Path) -> None:
    kinds = enumerate(("PNG", "JPEG", "BMP", "GIF", "WEBP"))
    contents = {f"day {number}/IMG {number}.{kind.lower()}": (number, kind) for number, kind in kinds}
    for name, (number, kind) in contents.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(picture(number, kind))
    (tmp_path / "photos" / "slide.tif").write_bytes(picture(7, "TIFF"))
    (tmp_path / "photos" / "broken.png").write_bytes(picture(8)[:200])
    done = studio.ris("import", str(tmp_path / "photos"), "--create", "Photos")
    assert done.returncode == 0 and "6 tasks were made of 7 pictures" in done.stdout
    assert "broken.png" in done.stderr and "damaged" in done.stderr
    project = next(row["id"] for row in client.projects() if row["title"] == "Photos")
    images = ImageResolver(studio.url, studio.token, cache=tmp_path / "cache")
    fetched = [images.fetch(task["data"]["image"], task["id"]) for task in client.tasks(project)]
    originals = {picture(number, kind) for number, kind in contents.values()}
    assert originals < set(fetched)
    (slide,) = set(fetched) - originals
    assert (np.asarray(Image.open(io.BytesIO(slide))) == np.asarray(Image.open(io.BytesIO(picture(7, "TIFF"))))).all()


def at_random(journal: Path, draw: random.Random) -> Iterator[bool]:
    """Whether it is time to kill: at any moment."""
    deadline = time.monotonic() + draw.uniform(2, 8)
    while True:
        yield time.monotonic() > deadline


def while_sending(journal: Path, draw: random.Random) -> Iterator[bool]:
    """While tasks are on their way, of which nobody can say whether they will be stored."""
    while not journal.exists():
        yield False
    deadline = time.monotonic() + draw.uniform(0, 0.3)
    while time.monotonic() < deadline:
        yield False
    while True:
        yield True


@pytest.mark.slow
@pytest.mark.parametrize("moment", [at_random, while_sending])
def test_killed_anywhere_it_goes_on_and_makes_nothing_twice(
    studio: Studio, client: LabelStudio, tmp_path: Path, moment: Callable[..., Iterator[bool]]
) -> None:
    folder, draw, log = foreign(tmp_path / "coco", 90), random.Random(5), tmp_path / "log"
    project = int(client.create_project(f"Killed {moment.__name__}", LABEL_CONFIG)["id"])
    program = str(Path(sys.executable).with_name("ris"))
    command = [program, "import", str(folder), "--project", str(project), "--add-labels"]
    there = []
    for kills in count():
        there.append(len(list(client.task_data(project))))
        with log.open("w") as output:
            environment = {**os.environ, "RIS_HOME": str(studio.home)}
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        is_time = moment(import_file(studio.home, project), draw) if kills < _KILLS else repeat(False)
        while process.poll() is None and not next(is_time):
            time.sleep(0.01)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, log.read_text()
    assert len(there) > 2 and there == sorted(there) and there[-1] > 0
    keys = Counter(task["data"]["ris_import"] for task in client.task_data(project))
    assert len(keys) == 90 and set(keys.values()) == {1}
    masks = [len(task["annotations"][0]["result"]) for task in client.annotated_tasks(project)]
    assert masks == [4] * 90
