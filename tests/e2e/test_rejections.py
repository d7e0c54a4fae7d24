"""Masks that a batch offers and that are wrong are deleted: `ris corrections` reports that, expression by expression.

TASKS=64 makes it a project of 64 tasks.
"""

from __future__ import annotations

import io
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from editor import open_task, regions, shoot, submit, submitted
from PIL import Image
from playwright.sync_api import Page, expect
from running import Studio

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import read_annotation
from backend.projects import samples
from backend.projects.connect import LABEL_CONFIG, connect_titled
from ris_core.images import read_image
from ris_core.masks import Mask, iou

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

TASKS = int(os.environ.get("TASKS", "8"))
CONFIG = parse(LABEL_CONFIG)
# A mask that agrees less with what people drew is of another thing.
WRONG = 0.1
Json = dict[str, Any]


@dataclass
class Review:
    """A project of crops, predicted, and what a person does to each mask: (task, label) -> accepted or rejected."""

    studio: Studio
    client: LabelStudio
    project: int
    drawn: dict[int, dict[str, Mask]]
    done: dict[tuple[int, str], str] = field(default_factory=dict)

    def offered(self, task: int) -> Json:
        [prediction] = self.client.predictions(task)
        return prediction

    def wrong(self, task: int) -> set[str]:
        """Regions of the prediction that somebody deletes; what is done is noted."""
        deleted = set()
        for shown in read_annotation(self.offered(task)["result"], CONFIG).masks:
            assert shown.label is not None
            there = self.drawn[task].get(shown.label)
            is_wrong = there is None or iou(shown.mask, there) < WRONG
            self.done[task, shown.label] = "rejected" if is_wrong else "accepted"
            deleted |= {shown.region_id} if is_wrong else set()
        return deleted

    def reported(self) -> Json:
        done = self.studio.ris("corrections", "--project", str(self.project), "--json")
        assert done.returncode == 0, done.stderr
        report: Json = json.loads(done.stdout)
        return report


@pytest.fixture(scope="module")
def review(studio: Studio) -> Iterator[Review]:
    drawn: dict[str, dict[str, list[Mask]]] = defaultdict(lambda: defaultdict(list))
    for mask in samples.corrections():
        drawn[mask.photo][mask.label].append(mask.mask())
    photos, draw = list(samples.photos()), random.Random(0)
    with LabelStudio(studio.url, studio.token) as client:
        project = connect_titled(client, "Rejections", LABEL_CONFIG, studio.settings).project
        # Learning is another test's.
        with (studio.home / "projects" / f"{project}.env").open("a") as knobs:
            knobs.write("\nRIS_FINETUNE_MIN_NEW=100000\nRIS_FINETUNE_LEAST_NEW=100000\n")
        truth: dict[int, dict[str, Mask]] = {}
        for number in range(TASKS):
            name, data = photos[number % len(photos)]
            image = read_image(data)
            window = crop(image.shape[0], draw), crop(image.shape[1], draw)
            file = io.BytesIO()
            Image.fromarray(image[window]).save(file, "PNG")
            [task] = client.upload(project, f"crop{number}.png", file.getvalue())
            truth[task] = {label: np.logical_or.reduce(masks)[window] for label, masks in drawn[name].items()}
        done = studio.ris("prelabel", "--project", str(project))
        assert done.returncode == 0, done.stderr
        yield Review(studio, client, project, truth)


def crop(length: int, draw: random.Random) -> slice:
    extent = round(length * draw.uniform(0.6, 1.0))
    start = draw.randint(0, length - extent)
    return slice(start, start + extent)


def as_submitted(prediction: Json, deleted: set[str]) -> list[Json]:
    """What the editor submits of a prediction whose regions were deleted."""
    kept = [region for region in prediction["result"] if region["id"] not in deleted]
    return [{name: value for name, value in region.items() if name != "readonly"} for region in kept]


def test_deleting_in_the_editor_and_everywhere_is_reported(page: Page, review: Review) -> None:
    edited = next(number for number, task in enumerate(review.drawn) if review.wrong(task))
    for number, task in enumerate(review.drawn):
        prediction, deleted = review.offered(task), review.wrong(task)
        if number != edited:
            result = as_submitted(prediction, deleted)
            review.client.create_annotation(task, result, parent_prediction=prediction["id"])
            continue
        delete_in_editor(page, review, f"crop{number}.png", prediction, deleted)
        annotation = submitted(review.studio, task)
        assert by_id(annotation["result"]) == by_id(as_submitted(prediction, deleted))
        assert annotation["parent_prediction"] == prediction["id"]
    report, done = review.reported(), review.done
    assert {(row["task"], row["label"]): row["origin"] for row in report["items"]} == done
    assert len(report["items"]) == len(done) == report["expressions"]
    assert report["skipped"] == []
    counts = Counter(done.values())
    assert {"accepted", "rejected"} == set(counts)
    assert {origin: report[origin] for origin in counts} == counts
    assert report["accepted_share"] == pytest.approx(counts["accepted"] / len(done))
    for label in {label for _, label in done}:
        of_label = Counter(origin for (_, name), origin in done.items() if name == label)
        assert {origin: report["by_label"][label][origin] for origin in counts} == {n: of_label[n] for n in counts}
    print(f"{len(review.drawn)} tasks, {len(done)} masks offered: {dict(counts)}")


def delete_in_editor(page: Page, review: Review, photo: str, prediction: Json, deleted: set[str]) -> None:
    open_task(page, review.studio, photo, review.project)
    expect(regions(page)).to_have_count(len(prediction["result"]), timeout=20_000)
    for number in reversed(range(len(prediction["result"]))):
        if prediction["result"][number]["id"] in deleted:
            regions(page).nth(number).click()
            page.keyboard.press("Backspace")
            page.wait_for_timeout(300)
    expect(regions(page)).to_have_count(len(prediction["result"]) - len(deleted))
    shoot(page, "rejections.1-deleted")
    submit(page)


def by_id(result: list[Json]) -> dict[str, Json]:
    return {region["id"]: region for region in result}
