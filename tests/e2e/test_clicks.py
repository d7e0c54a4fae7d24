"""A person who points: clicks and boxes in the real editor are answered by masks, and mend them in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from editor import click_on, draw_box, open_task, regions, shoot, submit, submitted, switch_on, take, type_prompt
from playwright.sync_api import Page, expect
from running import Studio

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import AnnotatedMask, read_annotation
from backend.projects import samples
from backend.projects.connect import LABEL_CONFIG, connect_titled
from ris_core.masks import Mask, iou

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CONFIG = parse(LABEL_CONFIG)
PHOTO = "chelsea.png"
NAMES = ("click", "mend", "words", "held", "selected")


@pytest.fixture(scope="module")
def project(studio: Studio) -> Iterator[int]:
    with LabelStudio(studio.url, studio.token) as client:
        number = connect_titled(client, "Clicks", LABEL_CONFIG, studio.settings).project
        for name in NAMES:
            client.upload(number, f"{name}.png", dict(samples.photos())[PHOTO])
    yield number


def opened(page: Page, studio: Studio, project: int, name: str, tool: str, *, accepting: bool = True) -> int:
    task = open_task(page, studio, f"{name}.png", project)
    switch_on(page, accepting=accepting)
    take(page, tool)
    return task


def mask(answer: list[dict[str, Any]]) -> Mask:
    return only(answer).mask


def only(answer: list[dict[str, Any]]) -> AnnotatedMask:
    (found,) = read_annotation(answer, CONFIG).masks
    return found


def at(mask: Mask, x: float, y: float) -> bool:
    return bool(mask[int(y * mask.shape[0]), int(x * mask.shape[1])])


def cat() -> Mask:
    return next(drawn.mask() for drawn in samples.corrections() if drawn.photo == PHOTO and "the cat" in drawn.prompts)


def test_a_click_is_a_mask_and_a_click_on_what_it_isnt_takes_away(page: Page, studio: Studio, project: int) -> None:
    task = opened(page, studio, project, "click", "key-point-tool")
    first = click_on(page, 0.5, 0.5)
    expect(regions(page)).to_have_count(1)
    shoot(page, "clicks.1-clicked")
    assert at(mask(first), 0.5, 0.5)
    assert iou(mask(first), cat()) > 0.5
    # Without Ctrl, Label Studio takes a click in a mask for its selection.
    second = click_on(page, 0.36, 0.37, "Control", "Alt")
    expect(regions(page)).to_have_count(1)
    shoot(page, "clicks.2-taken-away")
    assert only(second).region_id == only(first).region_id
    assert at(mask(first), 0.36, 0.37)
    assert not at(mask(second), 0.36, 0.37)
    assert at(mask(second), 0.5, 0.5)
    submit(page)
    (kept,) = read_annotation(submitted(studio, task)["result"], CONFIG).masks
    assert np.array_equal(kept.mask, mask(second))
    assert (kept.label, kept.prompt) == ("other", None)


def test_a_second_thing_is_another_mask_and_mending_one_leaves_the_other_alone(
    page: Page, studio: Studio, project: int
) -> None:
    task = opened(page, studio, project, "mend", "rectangle-tool")
    eye = draw_box(page, 0.27, 0.25, 0.47, 0.5)
    expect(regions(page)).to_have_count(1)
    other = draw_box(page, 0.64, 0.33, 0.79, 0.57)
    expect(regions(page)).to_have_count(2)
    shoot(page, "clicks.3-boxes")
    take(page, "key-point-tool")
    mended = click_on(page, 0.36, 0.37, "Control")
    expect(regions(page)).to_have_count(2)
    assert only(mended).region_id == only(eye).region_id
    shoot(page, "clicks.4-mended")
    submit(page)
    kept = {one.region_id: one.mask for one in read_annotation(submitted(studio, task)["result"], CONFIG).masks}
    assert np.array_equal(kept[only(other).region_id], mask(other))
    assert np.array_equal(kept[only(eye).region_id], mask(mended))


def test_words_then_a_click_are_one_mask_of_that_sentence(page: Page, studio: Studio, project: int) -> None:
    task = open_task(page, studio, "words.png", project)
    switch_on(page, accepting=True)
    type_prompt(page, "the cat")
    expect(regions(page)).to_have_count(1)
    take(page, "key-point-tool")
    answer = click_on(page, 0.5, 0.5, "Control")
    expect(regions(page)).to_have_count(1)
    expect(page.get_by_text("the cat: found").first).to_be_visible()
    shoot(page, "clicks.5-words")
    submit(page)
    (kept,) = read_annotation(submitted(studio, task)["result"], CONFIG).masks
    assert (kept.label, kept.prompt, kept.origin) == ("cat", "the cat", "prediction-changed")
    assert np.array_equal(kept.mask, mask(answer))


def test_without_auto_accept_clicks_add_up_until_they_are_accepted(page: Page, studio: Studio, project: int) -> None:
    task = opened(page, studio, project, "held", "key-point-tool", accepting=False)
    first = click_on(page, 0.5, 0.5)
    second = click_on(page, 0.36, 0.37, "Alt")
    shoot(page, "clicks.6-suggested")
    assert only(second).region_id == only(first).region_id
    page.get_by_test_id("bottombar-accept-suggestions-button").click(timeout=30_000)
    expect(regions(page)).to_have_count(1)
    submit(page)
    (kept,) = read_annotation(submitted(studio, task)["result"], CONFIG).masks
    assert np.array_equal(kept.mask, mask(second))


def test_a_click_far_away_adds_to_the_mask_that_is_selected(page: Page, studio: Studio, project: int) -> None:
    opened(page, studio, project, "selected", "rectangle-tool")
    eye = draw_box(page, 0.27, 0.25, 0.47, 0.5)
    expect(regions(page)).to_have_count(1)
    # In this order: another tool lets go of what is selected.
    take(page, "key-point-tool")
    regions(page).first.click()
    added = click_on(page, 0.71, 0.43)
    expect(regions(page)).to_have_count(1)
    shoot(page, "clicks.7-selected")
    assert only(added).region_id == only(eye).region_id
    assert at(mask(added), 0.71, 0.43)
