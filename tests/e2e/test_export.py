"""Exports of a real project: every region pixel for pixel, while people work, and whatever is killed."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import random
import re
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import sdk
from editor import call
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from running import Studio

from backend.datasets.snapshots import verify
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import mask_regions, prompt_region
from ris_core.images import read_image

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

HEIGHT, WIDTH = 60, 80
ANNOTATED = 60
XML = (
    '<View><Image name="image" value="$image"/><TextArea name="prompt" toName="image" smart="true"/>'
    '<BrushLabels name="brush" toName="image"><Label value="cat"/><Label value="cup" category="40"/></BrushLabels>'
    '<PolygonLabels name="polygon" toName="image" tolerance="0"><Label value="cat"/></PolygonLabels>'
    '<RectangleLabels name="box" toName="image"><Label value="cat"/></RectangleLabels>'
    '<EllipseLabels name="oval" toName="image"><Label value="sun"/></EllipseLabels></View>'
)
CONFIG = parse(XML)
BRUSH, POLYGON = (
    parse(re.sub(rf"<({other}|Rectangle)Labels.*?</\1Labels>", "", XML)) for other in ("Polygon", "Brush")
)
Json = dict[str, Any]
Truth = dict[tuple[int, str], np.ndarray]


def photo(number: int, orientation: int = 1) -> bytes:
    """A picture that is WIDTH x HEIGHT when it is shown; its camera was held in that orientation."""
    pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    back = {2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: lambda p: p.transpose(1, 0, 2)}
    back |= {6: np.rot90, 7: lambda p: np.rot90(p, 2).transpose(1, 0, 2), 8: lambda p: np.rot90(p, -1)}
    stored = Image.fromarray(np.ascontiguousarray(back.get(orientation, lambda p: p)(pixels)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "JPEG", quality=95, **({"exif": exif} if orientation > 1 else {}))
    return file.getvalue()


def ring(number: int) -> np.ndarray:
    """A ring with a hole, several parts, and a speck; some of it at the border."""
    draw = random.Random(number)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(3):
        top, left = draw.randrange(HEIGHT - 20), draw.randrange(WIDTH - 24)
        mask[top : top + 20, left : left + 24] = True
        mask[top + 5 : top + 12, left + 6 : left + 15] = False
    mask[draw.randrange(HEIGHT), draw.randrange(WIDTH)] ^= True
    return mask


def shape(name: str, kind: str, label: str, **value: float) -> tuple[Json, np.ndarray]:
    """A rectangle or an ellipse, and its pixels one by one."""
    region = {
        **{"id": secrets.token_hex(5), "from_name": name, "to_name": "image", "type": kind, "origin": "manual"},
        **{"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0},
        "value": {**value, kind: [label]},
    }
    turn, mask = math.radians(value["rotation"]), np.zeros((HEIGHT, WIDTH), bool)
    for row, column in np.ndindex(HEIGHT, WIDTH):
        x, y = column + 0.5 - value["x"] * WIDTH / 100, row + 0.5 - value["y"] * HEIGHT / 100
        along, aside = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
        if kind == "rectanglelabels":
            across, down = value["width"] * WIDTH / 100, value["height"] * HEIGHT / 100
            mask[row, column] = 0 <= along < across and 0 <= aside < down
        else:
            across, down = value["radiusX"] * WIDTH / 100, value["radiusY"] * HEIGHT / 100
            mask[row, column] = (along / across) ** 2 + (aside / down) ** 2 <= 1
    return region, mask


@dataclass
class Labelled:
    """A project, and what was drawn in it: by annotation and region."""

    project: int
    client: LabelStudio
    tasks: list[int]
    truth: Truth = field(default_factory=dict)

    def annotate(self, task: int, *drawn: tuple[Json, np.ndarray], **more: Any) -> int:
        number = int(self.client.create_annotation(task, [region for region, _ in drawn], **more)["id"])
        self.truth |= {(number, region["id"]): mask for region, mask in drawn}
        return number


def painted(mask: np.ndarray, config: Any = BRUSH, prompt: str = "the cat", label: int = 0) -> tuple[Json, np.ndarray]:
    (region,) = mask_regions(config, config.labels[label], mask, 1.0, prompt)
    return {**region, "origin": "manual"}, mask


def part(number: int) -> np.ndarray:
    """One part with a hole, for a polygon."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10 : 40 + number, 12 : 50 + number] = True
    mask[15:25, 20:30] = False
    return mask


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[LabelStudio]:
    with LabelStudio(studio.url, studio.token) as client:
        yield client


@pytest.fixture(scope="module")
def second_person(client: LabelStudio) -> int:
    """Another annotator, who followed the link of invitation."""
    link = client.url + call(client, "GET", "/api/invite")["invite_url"]
    with httpx.Client(trust_env=False) as browser:
        token = re.search(r'csrfmiddlewaretoken" value="([^"]+)', browser.get(link).text)
        assert token
        email = f"{secrets.token_hex(4)}@example.com"
        form = {"email": email, "password": "of-no-use-1", "csrfmiddlewaretoken": token[1]}
        assert browser.post(link, data=form, headers={"Referer": link}).status_code == 302
    people = call(client, "GET", "/api/users/")
    return int(next(person["id"] for person in people if person["email"] == email))


@pytest.fixture(scope="module")
def labelled(client: LabelStudio, second_person: int) -> Labelled:
    project = int(client.create_project("Everything that can be drawn", XML)["id"])
    tasks = [
        number
        for orientation in range(1, 9)
        for number in client.upload(project, f"phone.{orientation}.jpg", photo(orientation, orientation))
    ]
    tasks += [number for name in "abcd" for number in client.upload(project, f"{name}.jpg", photo(ord(name)))]
    work = Labelled(project, client, tasks)
    for number, task in enumerate(tasks[:8]):
        work.annotate(task, painted(ring(number)), painted(ring(50 + number), prompt="a cup", label=1))
    straight = shape("box", "rectanglelabels", "cat", x=10.1, y=20.1, width=30.1, height=40.1, rotation=0)
    turned = shape("box", "rectanglelabels", "cat", x=40.1, y=20.1, width=30.1, height=20.1, rotation=30.5)
    oval = shape("oval", "ellipselabels", "sun", x=50.1, y=50.1, radiusX=20.1, radiusY=30.1, rotation=0)
    leaning = shape("oval", "ellipselabels", "sun", x=30.1, y=50.1, radiusX=10.1, radiusY=30.1, rotation=20.5)
    work.annotate(tasks[8], painted(part(0), POLYGON), straight, turned, oval, leaning)
    work.annotate(tasks[9], painted(part(3), POLYGON, "the one with a hole"))
    work.annotate(tasks[9], painted(ring(99)), completed_by=second_person)
    # Looked at, and nothing of it there; the last task stays without an annotation.
    work.annotate(tasks[10], (prompt_region(CONFIG, (HEIGHT, WIDTH), "a unicorn"), np.zeros((0, 0), bool)))
    del work.truth[next(reversed(work.truth))]
    return work


def export(studio: Studio, project: int, *options: str) -> Json:
    done = studio.ris("export", "--project", str(project), "--json", *options)
    assert done.returncode == 0, done.stderr
    report: Json = json.loads(done.stdout)
    verify(Path(report["out"]))
    return report


def masks_of(folder: Path) -> Truth:
    dataset = COCO(folder / "instances.json")
    return {(row["ls"]["annotation"], row["ls"]["region"]): dataset.annToMask(row) for row in dataset.anns.values()}


def same(found: Truth, truth: Truth) -> bool:
    return found.keys() == truth.keys() and all(np.array_equal(found[key], mask) for key, mask in truth.items())


def test_every_region_is_there_pixel_for_pixel(studio: Studio, labelled: Labelled, second_person: int) -> None:
    report = export(studio, labelled.project, "--annotations", "all")
    folder = Path(report["out"])
    assert same(masks_of(folder), labelled.truth)
    dataset = COCO(folder / "instances.json")
    people = {row["ls"]["annotation"]: row["ls"]["completed_by"] for row in dataset.anns.values()}
    assert len(set(people.values())) == 2 and second_person in people.values()
    assert [image["id"] for image in dataset.dataset["images"]] == labelled.tasks[:11]
    assert {row["name"]: row["id"] for row in dataset.dataset["categories"]}["cup"] == 40
    kinds = {problem["kind"] for problem in report["listed"]}
    assert kinds == {"rotated"} and report["problems"] == {"rotated": 2}


def test_pictures_lie_as_their_masks_do(studio: Studio, labelled: Labelled) -> None:
    folder = Path(export(studio, labelled.project)["out"])
    for image in COCO(folder / "instances.json").dataset["images"]:
        with Image.open(folder / "images" / image["file_name"]) as file:
            assert file.size == (image["width"], image["height"]) == (WIDTH, HEIGHT)
            assert 0x0112 not in file.getexif() or file.getexif()[0x0112] == 1
        data = photo(labelled.tasks.index(image["id"]) + 1) if image["id"] in labelled.tasks[:8] else None
        if data:
            shown = read_image(folder / "images" / image["file_name"]).astype(int)
            assert np.abs(shown - read_image(data)).mean() < 12, "turned as it was shown"


def test_coco_evaluates_the_export_against_itself_as_perfect(studio: Studio, labelled: Labelled) -> None:
    truth = COCO(Path(export(studio, labelled.project, "--annotations", "all")["out"]) / "instances.json")
    answers = [{**row, "score": 1.0} for row in truth.dataset["annotations"]]
    evaluation = COCOeval(truth, truth.loadRes(answers), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_label_studios_own_codec_sees_the_same_brush_masks(labelled: Labelled) -> None:
    with sdk.running() as codec:
        for annotated in labelled.client.annotated_tasks(labelled.project):
            for annotation in annotated["annotations"]:
                for region in annotation["result"]:
                    if region["type"] == "brushlabels":
                        values = np.array(codec.ask("decode", region["value"]["rle"])).reshape(HEIGHT, WIDTH, 4)
                        assert np.array_equal(values[..., 3] > 0, labelled.truth[annotation["id"], region["id"]])


def test_the_second_export_reads_only_what_changed(studio: Studio, labelled: Labelled) -> None:
    first = export(studio, labelled.project)
    assert export(studio, labelled.project) == {**first, "read": 0}
    before = (Path(first["out"]) / "manifest.json").read_bytes()
    number = labelled.annotate(labelled.tasks[0], painted(ring(7)))
    again = export(studio, labelled.project)
    assert again["read"] == 1
    assert (Path(again["out"]) / "manifest.json").read_bytes() != before
    call(labelled.client, "DELETE", f"/api/annotations/{number}/")
    labelled.truth = {key: mask for key, mask in labelled.truth.items() if key[0] != number}
    assert export(studio, labelled.project) == {**first, "read": 1}
    assert (Path(again["out"]) / "manifest.json").read_bytes() == before


def at_work(labelled: Labelled, over: threading.Event, made: dict[int, list[Truth]], gone: set[int]) -> None:
    """Annotate, change and delete until it is over; the two masks of an annotation are always of one version."""
    draw, own = random.Random(4), list[int]()
    free, number = labelled.tasks[ANNOTATED:], 1000
    while not over.is_set():
        number += 1
        drawn = [painted(ring(number)), painted(~ring(number), prompt="the rest")]
        result = [region for region, _ in drawn]
        version = {region["id"]: mask for region, mask in drawn}
        if own and draw.random() < 0.3:
            annotation = own.pop(draw.randrange(len(own)))
            gone.add(annotation)
            call(labelled.client, "DELETE", f"/api/annotations/{annotation}/")
        elif own and draw.random() < 0.5:
            annotation = draw.choice(own)
            # Before it is sent: an export may see it earlier than the answer comes.
            made[annotation].append({(annotation, region): mask for region, mask in version.items()})
            call(labelled.client, "PATCH", f"/api/annotations/{annotation}/", json={"result": result})
        else:
            annotation = int(labelled.client.create_annotation(free.pop(), result)["id"])
            made[annotation] = [{(annotation, region): mask for region, mask in version.items()}]
            own.append(annotation)


def test_an_export_while_people_work_misses_and_tears_nothing(studio: Studio, client: LabelStudio) -> None:
    project = int(client.create_project("At work", XML)["id"])
    inline = base64.b64encode(photo(1)).decode()
    tasks = client.import_tasks(project, [{"image": f"data:image/jpeg;base64,{inline}"}] * 2000)
    work, over = Labelled(project, client, tasks), threading.Event()
    made: dict[int, list[Truth]] = {}
    gone: set[int] = set()
    for task in tasks[:ANNOTATED]:
        number = work.annotate(task, painted(ring(task)), painted(~ring(task), prompt="the rest"))
        made[number] = [{key: mask for key, mask in work.truth.items() if key[0] == number}]
    person = threading.Thread(target=at_work, args=(work, over, made, gone))
    person.start()
    try:
        for _ in range(6):
            there = set(made) - gone
            found = masks_of(Path(export(studio, project, "--annotations", "all", "--name", "at-work")["out"]))
            of_annotations: dict[int, Truth] = {}
            for key, mask in found.items():
                of_annotations.setdefault(key[0], {})[key] = mask
            for annotation, masks in of_annotations.items():
                wait_for(lambda number=annotation: number in made)
                assert any(same(masks, version) for version in made[annotation]), "torn"
            assert not there - gone - of_annotations.keys(), "missed"
    finally:
        over.set()
        person.join()
    assert len(gone) > 3 and len(made) > 40


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_export_whose_worker_is_killed_is_done_again(studio: Studio, labelled: Labelled) -> None:
    done: list[Json] = []
    thread = threading.Thread(
        target=lambda: done.append(export(studio, labelled.project, "--annotations", "all", "--name", "killed"))
    )
    thread.start()
    exports, killed = studio.home / "exports", 0
    deadline = time.monotonic() + 60
    while not killed and time.monotonic() < deadline and thread.is_alive():
        if list(exports.glob(".killed.*")):
            for process in psutil.process_iter(["cmdline", "environ"]):
                is_ours = (process.info["environ"] or {}).get("RIS_HOME") == str(studio.home)
                if is_ours and "worker" in (process.info["cmdline"] or []):
                    os.kill(process.pid, signal.SIGKILL)
                    killed += 1
        time.sleep(0.005)
    thread.join(240)
    assert killed and done
    assert same(masks_of(Path(done[0]["out"])), labelled.truth)
    assert not list(exports.glob(".killed.*"))
