"""A person at work: types what is there into the real Label Studio, accepts the mask, paints on it and submits."""

from __future__ import annotations

import pytest
from editor import open_task, regions, shoot, submit, submitted, switch_on, type_prompt
from playwright.sync_api import Page, expect
from running import Studio

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import read_annotation
from backend.projects import samples
from backend.projects.connect import LABEL_CONFIG, connect_titled
from ris_core.checkpoint_files import shipped, version
from ris_core.images import read_image
from ris_core.inference.predictor import Predictor
from ris_core.masks import iou

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CONFIG = parse(LABEL_CONFIG)
# photo -> what is typed, and the label that the mask gets. It has to agree with ours by an IoU of at least 0.5.
TYPED = {
    "chelsea.png": ("the cat", "cat"),
    "flower.jpg": ("the flower", "flower"),
    "camera.png": ("person", "person"),
}


@pytest.mark.parametrize("photo", TYPED)
def test_a_typed_prompt_becomes_a_submitted_mask(page: Page, studio: Studio, photo: str) -> None:
    prompt, label = TYPED[photo]
    task = open_task(page, studio, photo)
    switch_on(page, accepting=True)
    type_prompt(page, prompt)
    expect(regions(page)).to_have_count(1)
    shoot(page, f"{photo}.1-masked")
    submit(page)
    shoot(page, f"{photo}.2-submitted")
    (region,) = read_annotation(submitted(studio, task)["result"], CONFIG).masks
    drawn = next(mask for mask in samples.corrections() if mask.photo == photo and prompt in mask.prompts)
    assert (region.label, region.prompt) == (label, prompt)
    assert iou(region.mask, drawn.mask()) >= 0.5


def test_a_mask_can_be_accepted_erased_and_submitted(page: Page, studio: Studio) -> None:
    task = open_task(page, studio, "astronaut.png")
    switch_on(page, accepting=False)
    type_prompt(page, "person")
    page.get_by_test_id("bottombar-accept-suggestions-button").click(timeout=30_000)
    regions(page).first.click()
    page.get_by_label("eraser").click()
    erase_across(page, down=0.6)
    shoot(page, "astronaut.png.1-erased")
    submit(page)
    (region,) = read_annotation(submitted(studio, task)["result"], CONFIG).masks
    predictor = Predictor.load()
    photo = read_image(dict(samples.photos())["astronaut.png"])
    (answer,) = predictor.segment(predictor.embed(photo), ["person"])
    erased = answer.mask & ~region.mask
    assert not (region.mask & ~answer.mask).any()
    assert 500 < erased.sum() < 0.5 * answer.mask.sum()


def test_a_polygon_can_be_accepted_moved_and_submitted(page: Page, studio: Studio) -> None:
    xml = LABEL_CONFIG.replace("BrushLabels", "PolygonLabels").replace('name="brush"', 'name="polygon" tolerance="2"')
    with LabelStudio(studio.url, studio.token) as client:
        project = connect_titled(client, "Polygons", xml, studio.settings).project
        client.upload(project, "chelsea.png", dict(samples.photos())["chelsea.png"])
    task = open_task(page, studio, "chelsea.png", project)
    switch_on(page, accepting=False)
    type_prompt(page, "the cat")
    shoot(page, "polygon.1-suggested")
    page.get_by_test_id("bottombar-accept-suggestions-button").click(timeout=30_000)
    regions(page).first.click()
    shoot(page, "polygon.2-accepted")
    drag(page, start=(0.5, 0.5), by=(30, 20))
    shoot(page, "polygon.3-moved")
    submit(page)
    annotation = submitted(studio, task)
    (region,) = [each for each in annotation["result"] if each["type"] == "polygonlabels"]
    assert region["value"]["polygonlabels"] == ["cat"]
    # Its origin still says "prediction": Label Studio 1.23.2 notes the change of a brush region alone.
    (moved,) = read_annotation(annotation["result"], parse(xml)).masks
    predictor = Predictor.load()
    (answer,) = predictor.segment(predictor.embed(read_image(dict(samples.photos())["chelsea.png"])), ["the cat"])
    assert 0.5 < iou(moved.mask, answer.mask) < 0.97


def drag(page: Page, start: tuple[float, float], by: tuple[float, float]) -> None:
    """Drag what lies at `start`, in shares of the photo's place on the page, by so many pixels."""
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] * start[0], box["y"] + box["height"] * start[1]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by[0], y + by[1], steps=10)
    page.mouse.up()


def erase_across(page: Page, down: float) -> None:
    """A stroke from left to right over the photo, at the share `down` of its height."""
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] * down
    page.mouse.move(box["x"] + box["width"] * 0.3, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, y, steps=10)
    page.mouse.up()


def test_something_absent_gets_no_mask(page: Page, studio: Studio) -> None:
    open_task(page, studio, "coffee.png")
    switch_on(page, accepting=True)
    type_prompt(page, "the bicycle")
    expect(page.get_by_text("the bicycle: not found")).to_be_visible()
    expect(regions(page)).to_have_count(0)
    shoot(page, "coffee.png.1-absent")


def test_a_guess_is_told_of_and_shown_on_request(page: Page, studio: Studio) -> None:
    with LabelStudio(studio.url, studio.token) as client:
        project = connect_titled(client, "Guesses", LABEL_CONFIG, studio.settings).project
        client.upload(project, "coffee.png", dict(samples.photos())["coffee.png"])
    open_task(page, studio, "coffee.png", project)
    switch_on(page, accepting=True)
    type_prompt(page, "the laptop")
    expect(page.get_by_text("the laptop: not found; nearest guess")).to_be_visible()
    expect(regions(page)).to_have_count(0)
    type_prompt(page, "the laptop?")
    expect(page.get_by_text("the laptop: only a guess")).to_be_visible()
    expect(regions(page)).to_have_count(1)
    shoot(page, "guess")


def test_a_prompt_that_is_asked_again_replaces_its_answer_unless_that_was_changed(page: Page, studio: Studio) -> None:
    with LabelStudio(studio.url, studio.token) as client:
        project = connect_titled(client, "Asked again", LABEL_CONFIG, studio.settings).project
        client.upload(project, "chelsea.png", dict(samples.photos())["chelsea.png"])
    open_task(page, studio, "chelsea.png", project)
    switch_on(page, accepting=True)
    for _ in range(2):
        type_prompt(page, "the cat")
        expect(regions(page)).to_have_count(1)
    regions(page).first.click()
    page.get_by_label("eraser").click()
    with page.expect_response(lambda response: "drafts" in response.url, timeout=60_000):
        erase_across(page, down=0.5)
    for _ in range(2):
        type_prompt(page, "the cat")
        expect(regions(page)).to_have_count(2)
    shoot(page, "asked-again")


def test_what_was_typed_leaves_the_photo_in_sight(page: Page, studio: Studio) -> None:
    xml = LABEL_CONFIG.replace('<Label value="other" background="#a9a9a9"/>', "")
    with LabelStudio(studio.url, studio.token) as client:
        project = connect_titled(client, "Six prompts", xml, studio.settings).project
        client.upload(project, "coffee.png", dict(samples.photos())["coffee.png"])
    page.set_viewport_size({"width": 1440, "height": 900})
    task = open_task(page, studio, "coffee.png", project)
    switch_on(page, accepting=True)
    before = page.locator("canvas").first.bounding_box()
    for prompt in ("the bicycle", "the cup", "the saucer", "the spoon on the right", "the plate", "the table"):
        type_prompt(page, prompt)
    expect(page.get_by_text("so it has none yet: choose one").first).to_be_visible()
    after = page.locator("canvas").first.bounding_box()
    shoot(page, "six-prompts")
    assert before is not None
    assert after is not None
    assert after["y"] - before["y"] < 100
    # A mask whose label people didn't choose is kept as it is, and what the answer said is no prompt.
    submit(page)
    annotation = read_annotation(submitted(studio, task)["result"], parse(xml))
    assert annotation.masks[-1].label is None
    assert annotation.prompts[-1] == "the table"


def test_predictions_name_the_version(studio: Studio) -> None:
    with LabelStudio(studio.url, studio.token) as client:
        (backend,) = client.ml_backends(studio.project)
    assert backend["model_version"].rpartition(".")[0] == version(shipped())
