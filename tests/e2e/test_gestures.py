"""What each gesture means, made in the real editor: deleted, erased, refused, asked again, and annotated by two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from editor import open_task, regions, shoot, submit, submitted, switch_on, type_prompt
from playwright.sync_api import Page, expect
from running import Studio

from backend.labelstudio.client import LabelStudio
from backend.projects import samples
from backend.projects.connect import LABEL_CONFIG, connect_titled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PHOTO = "chelsea.png"
PREDICTED = ("deleted.png", "erased.png", "disagree.png", "twice.png", "offered.png")
OTHERS = ("refused.png", "absent.png", "again.png")


@dataclass(frozen=True)
class Gestures:
    """A project of one photo many times; the first of them have a prediction of each label's name."""

    studio: Studio
    client: LabelStudio
    project: int

    def task(self, photo: str) -> int:
        rows = self.client.tasks(self.project)
        return next(int(row["id"]) for row in rows if row["data"]["image"].endswith(f"-{photo}"))

    def offered(self, photo: str) -> dict[str, Any]:
        return max(self.client.predictions(self.task(photo)), key=lambda row: row["id"])

    def said(self, photo: str) -> dict[str, str]:
        """Sentence -> origin of what an export says of a photo."""
        return {ref["sentences"][0]["sent"]: ref["origin"] for ref in self.exported()[0] if self.is_about(ref, photo)}

    def is_about(self, row: dict[str, Any], photo: str) -> bool:
        return bool(row["image_id"] == self.task(photo))

    def exported(self) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
        done = self.studio.ris("export", "--project", str(self.project), "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        folder = Path(report["out"])
        return (
            json.loads((folder / "refs.json").read_text()),
            json.loads((folder / "instances.json").read_text()),
            report,
        )


@pytest.fixture(scope="module")
def gestures(studio: Studio) -> Iterator[Gestures]:
    photo = dict(samples.photos())[PHOTO]
    with LabelStudio(studio.url, studio.token) as client:
        project = connect_titled(client, "Gestures", LABEL_CONFIG, studio.settings).project
        for name in PREDICTED:
            client.upload(project, name, photo)
        done = studio.ris("prelabel", "--project", str(project))
        assert done.returncode == 0, done.stderr
        for name in OTHERS:
            client.upload(project, name, photo)
        yield Gestures(studio, client, project)


def opened(page: Page, gestures: Gestures, photo: str) -> int:
    task = open_task(page, gestures.studio, photo, gestures.project)
    page.wait_for_timeout(1500)
    return task


def delete_all(page: Page) -> None:
    for left in reversed(range(regions(page).count())):
        regions(page).first.click()
        page.keyboard.press("Backspace")
        expect(regions(page)).to_have_count(left)


def test_offered_masks_are_deleted(page: Page, gestures: Gestures) -> None:
    names = {region["meta"]["text"][0].removeprefix("prompt: ") for region in gestures.offered("deleted.png")["result"]}
    task = opened(page, gestures, "deleted.png")
    expect(regions(page)).to_have_count(len(names))
    delete_all(page)
    shoot(page, "gestures.1-deleted")
    submit(page)
    assert submitted(gestures.studio, task)["result"] == []
    assert gestures.said("deleted.png") == dict.fromkeys(names, "rejected")


def test_an_offered_mask_is_erased(page: Page, gestures: Gestures) -> None:
    opened(page, gestures, "erased.png")
    regions(page).first.click()
    page.get_by_label("eraser").click()
    for _ in range(30):
        page.keyboard.press("]")
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    for share in range(4, 100, 4):
        y = box["y"] + box["height"] * share / 100
        page.mouse.move(box["x"] + 20, y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 20, y, steps=8)
        page.mouse.up()
    shoot(page, "gestures.2-erased")
    submit(page)
    origins = gestures.said("erased.png")
    assert sorted(origins.values()).count("accepted") == len(origins) - 1
    assert set(origins.values()) <= {"accepted", "corrected", "rejected"}


def test_a_prompt_is_refused_and_nothing_is_said(page: Page, gestures: Gestures) -> None:
    task = opened(page, gestures, "refused.png")
    switch_on(page, accepting=True)
    type_prompt(page, "the bicycle")
    submit(page)
    typed, told = submitted(gestures.studio, task)["result"]
    assert (typed["from_name"], typed["value"]["text"]) == ("prompt", ["the bicycle"])
    assert told["from_name"] == "ris_answer"
    assert gestures.said("refused.png") == {}


def test_one_click_says_that_it_isnt_there(page: Page, gestures: Gestures) -> None:
    opened(page, gestures, "absent.png")
    switch_on(page, accepting=True)
    type_prompt(page, "the bicycle")
    page.get_by_text("Not in this picture").click()
    shoot(page, "gestures.3-absent")
    submit(page)
    assert gestures.said("absent.png") == {"the bicycle": "absent"}


def test_the_same_prompt_again_is_one_mask(page: Page, gestures: Gestures) -> None:
    opened(page, gestures, "again.png")
    switch_on(page, accepting=True)
    for spelling in ("the cat", "The cat!", "the cat"):
        type_prompt(page, spelling)
        expect(regions(page)).to_have_count(1, timeout=20_000)
    shoot(page, "gestures.4-again")
    submit(page)
    assert gestures.said("again.png") == {"the cat": "accepted"}
    _, instances, _ = gestures.exported()
    assert sum(gestures.is_about(row, "again.png") for row in instances["annotations"]) == 1


def test_the_sentence_of_an_offered_mask_is_one_mask(page: Page, gestures: Gestures) -> None:
    """The answer takes the place of the prediction that the picture was opened with."""
    names = [region["meta"]["text"][0].removeprefix("prompt: ") for region in gestures.offered("offered.png")["result"]]
    opened(page, gestures, "offered.png")
    expect(regions(page)).to_have_count(len(names))
    switch_on(page, accepting=True)
    type_prompt(page, names[0])
    page.wait_for_timeout(3000)
    expect(regions(page)).to_have_count(len(names))
    shoot(page, "gestures.5-offered")
    submit(page)
    assert gestures.said("offered.png") == dict.fromkeys(names, "accepted")


def test_a_second_person_who_submits_nothing_disagrees(page: Page, second_page: Page, gestures: Gestures) -> None:
    task = opened(page, gestures, "disagree.png")
    submit(page)
    opened(second_page, gestures, "disagree.png")
    second_page.get_by_label("Create an annotation").click()
    expect(regions(second_page)).to_have_count(0)
    shoot(second_page, "gestures.5-second-person")
    submit(second_page)
    first, later = sorted(gestures.client.task(task)["annotations"], key=lambda row: int(row["id"]))
    assert first["completed_by"]["id"] != later["completed_by"]["id"]
    assert (len(first["result"]), later["result"]) == (len(gestures.offered("disagree.png")["result"]), [])
    assert set(gestures.said("disagree.png").values()) == {"accepted"}
    [told] = [row for row in gestures.exported()[2]["listed"] if row["task"] == task]
    assert f"annotation {later['id']} came later and has nothing drawn" in told["message"]


def test_of_two_annotations_by_one_person_the_later_counts(page: Page, gestures: Gestures) -> None:
    task = opened(page, gestures, "twice.png")
    submit(page)
    assert set(gestures.said("twice.png").values()) == {"accepted"}
    opened(page, gestures, "twice.png")
    page.get_by_label("Create an annotation").click()
    expect(regions(page)).to_have_count(0)
    switch_on(page, accepting=True)
    type_prompt(page, "the cat")
    expect(regions(page)).to_have_count(1, timeout=20_000)
    shoot(page, "gestures.6-twice")
    submit(page)
    assert len(gestures.client.task(task)["annotations"]) == 2
    assert gestures.said("twice.png") == {"the cat": "accepted"}
    assert all(row["task"] != task for row in gestures.exported()[2]["listed"])
