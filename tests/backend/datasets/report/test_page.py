"""A report as a person opens it: Chromium without a network, hostile labels, both colour schemes, a phone's width."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, sync_playwright

from backend.datasets.dataset import Category, Dataset, DatasetImage, Instance, Ref
from backend.datasets.near_duplicates import NearDuplicate, NearDuplicates
from backend.datasets.problems import Problem
from backend.datasets.report import write_report
from backend.datasets.report.page import agreement_tables
from backend.datasets.report.selection import MOST_SHOWN, Selection
from backend.projects import samples
from ris_core.images import Pixels, read_image
from ris_core.masks import Mask, encode_rle

EVIL = "<script>alert('label')</script>"
IMAGE = '"><img src=https://example.com/x.png onerror=alert(1)>'
STYLE = "</style><style>body{background:url(https://example.com/y)}"
TURNED = "\u202egnp.exe \ud83d {{ 7 * 7 }} & ' \" `"
AGREEMENT = {
    "by_label": {EVIL: {"tasks": 3, "mean_iou": 0.8125, "mean_dice": 0.9}},
    "by_pair": [{"annotators": [1, 2], "mean_iou": 0.7, IMAGE: STYLE}],
    "tasks": 2,
    "worst": [{"task": 6, "mean_iou": 0.25}, {"task": 5, "mean_iou": 0.9}],
}


def photos(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    paths = {name: folder / name for name, _ in samples.photos()}
    for name, data in samples.photos():
        paths[name].write_bytes(data)
    return paths


def speck(height: int, width: int) -> Mask:
    mask = np.zeros((height, width), np.bool_)
    mask[20:23, 300:304] = True
    return mask


def a_dataset(folder: Path, label: str = "cat", prompt: str = "the cat") -> Dataset:
    """Sample photos with their own masks, a speck, a mask drawn twice, and sentences with and without a target."""
    paths, corrections = photos(folder), samples.corrections()
    names = [label, *sorted({row.label for row in corrections} - {"cat"}), "unused"]
    numbers = {name: number for number, name in enumerate(names, start=1)} | {"cat": 1}
    images = []
    for task, (name, path) in enumerate(paths.items(), start=1):
        own = [row for row in corrections if row.photo == name]
        height, width = own[0].mask().shape
        provenance = {"annotation": task, "origin": prompt, "completed_by": 1 + task % 2}
        drawn = [(numbers[row.label], row.mask()) for row in own]
        drawn += [(numbers["cup"], speck(height, width)), drawn[0]] if task == 3 else []
        instances = tuple(
            Instance(100 * task + place, number, encode_rle(mask), provenance)
            for place, (number, mask) in enumerate(drawn)
        )
        told = {"origin": "corrected", "iou": 0.1 * task}
        refs = (
            Ref(2 * task, prompt, prompt, (instances[0].number,), told),
            Ref(2 * task + 1, "nothing", "Nothing", (), {}),
        )
        split = ("train", "val", "test")[task % 3]
        images.append(DatasetImage(task, path.name, path, width, height, "", split, instances, refs))
    categories = tuple(Category(number, name, "brush") for name, number in sorted(numbers.items()) if name in names)
    return Dataset(f"Project {prompt}", categories, lambda: iter(images))


def hostile_report(folder: Path, out: Path) -> dict[str, Any]:
    out.mkdir()
    pair = NearDuplicate((1, 2), ("train", "val"), 4)
    return write_report(
        a_dataset(folder, EVIL, IMAGE),
        out,
        problems=[Problem(STYLE, 2, TURNED, 7, EVIL), Problem("image", 900, IMAGE)],
        agreement=AGREEMENT,
        duplicates=NearDuplicates(300, 1, (pair,) * 20),
        left_out={f"things {EVIL}": 2},
        format_name=STYLE,
        polygon_tolerance=1.0,
    )


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    hostile_report(folder / "photos", folder / "out")
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("Chromium isn't installed: on Debian, apt install chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(params=[(1440, "light"), (390, "dark"), (390, "light")], ids=str)
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    yield context.new_page()
    context.close()


def test_it_opens_without_a_network_and_nothing_in_it_runs(page: Page, hostile: Path) -> None:
    asked: list[str] = []
    told: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        if route.request.url == hostile.as_uri():
            route.continue_()
        else:
            route.abort()

    page.route(lambda address: not address.startswith("data:"), answer)
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: told.append(dialog.message))
    page.goto(hostile.as_uri())
    page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth)")
    assert (asked, told) == ([hostile.as_uri()], [])
    assert page.evaluate("document.scripts.length") == 0
    assert page.evaluate("document.images.length") == 7
    # What was typed is read as it was typed.
    assert page.locator("#labels ~ div tbody th", has_text=EVIL).count() == 1
    assert IMAGE in page.inner_text("h1")
    assert "{{ 7 * 7 }}" in page.inner_text("section[aria-labelledby=problems]")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


CONTRASTS = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => { const [r, g, b] = rgb.slice(0, 3).map(c => (c /= 255) <= 0.04045 ? c / 12.92
    : ((c + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = element => { for (let e = element; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor); if (colour.length < 4 || colour[3]) return colour; } };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), poor = [];
  while (walker.nextNode()) { const text = walker.currentNode, e = text.parentElement;
    if (!text.data.trim() || e.closest('style, .unseen')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push([text.data.trim(), (a + 0.05) / (b + 0.05)]); }
  return poor; }"""


def test_people_who_see_little_or_nothing_can_read_it(page: Page, hostile: Path) -> None:
    page.goto(hostile.as_uri())
    assert page.evaluate(CONTRASTS) == []
    assert page.locator("table").count() == page.locator("table > caption").count() > 10
    assert page.locator("table thead th:not([scope]):not(:empty)").count() == 0
    assert page.evaluate("[...document.images].every(image => image.alt.startsWith('Picture of task'))")
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(heading => +heading.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    links = page.locator("nav a").evaluate_all("links => links.map(link => link.hash.slice(1))")
    assert [page.locator(f"h2[id='{name}']").count() for name in links] == [1] * 8
    assert page.evaluate("document.documentElement.lang") == "en"
    identifiers = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(identifiers) == len(set(identifiers))


class Markup(HTMLParser):
    """Every tag with its attributes, and the policy that a page gives itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attributes}))


def test_nothing_points_outside_by_another_reader_too(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    tags = Markup(text).tags
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in tags}
    assert [tag for tag, _ in tags].count("style") == 1
    for _, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("srcset", "action", "xlink:href")]
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
        assert "url(" not in attributes.get("style", "")
    policy = next(row["content"] for tag, row in tags if tag == "meta" and "http-equiv" in row)
    assert "default-src 'none'" in policy
    styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert not re.search(r"url\(|@import", styles[0])


def test_the_figures_are_returned_written_and_shown(tmp_path: Path, page: Page) -> None:
    out = tmp_path / "out"
    out.mkdir()
    report = write_report(a_dataset(tmp_path / "photos"), out, problems=[Problem("image", 900, "Gone.")])
    assert json.loads((out / "report.json").read_text()) == report
    assert {path.name for path in out.iterdir()} == {"report.html", "report.json"}
    page.goto((out / "report.html").as_uri())
    tiles = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
    assert tiles == {
        "pictures": "7",
        "objects": str(len(samples.corrections()) + 2),
        "prompts": "14",
        "labels": str(len(report["labels"])),
        "pictures without an object": "0",
        "annotators": "2",
    }
    checks = {check["name"]: check for check in report["checks"]}
    statuses = {name: check["status"] for name, check in checks.items()}
    assert statuses["Photos in two splits"] == "unknown"
    assert statuses["Empty masks"] == statuses["Left out by the format"] == "ok"
    assert checks["Tiny masks"]["result"] == "masks of fewer than 16 pixels: 1"
    assert "unused" in checks["Labels in use"]["result"]
    assert checks["Problems of annotations"]["result"] == "1 in all: 1 image"
    looks = Counter(statuses.values())["look"]
    assert page.locator("tr.look").count() == looks
    assert f"{looks} checks ask for a look" in page.inner_text("header")
    assert "task 900" in page.inner_text("section[aria-labelledby=problems]")


def test_a_dataset_of_nothing_has_a_report_too(tmp_path: Path) -> None:
    report = write_report(Dataset("", (), lambda: iter(())), tmp_path)
    assert report["counts"] == {"images": 0, "negatives": 0, "instances": 0, "refs": 0}
    assert report["checks"][0] == {"name": "Splits", "status": "look", "result": "nothing in train, val, test"}


def test_the_same_dataset_gives_the_same_bytes_wherever_its_pictures_lie(tmp_path: Path) -> None:
    hostile_report(tmp_path / "photos", tmp_path / "first")
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_page;"
        "test_page.hostile_report(Path(sys.argv[2]) / 'elsewhere', Path(sys.argv[2]) / 'second')"
    )
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), *sys.path]))}
    environment = {**os.environ, **paths, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)]
    subprocess.run(command, check=True, timeout=60, env=environment, cwd=tmp_path)
    for name in ("report.html", "report.json"):
        written = (tmp_path / "first" / name).read_bytes()
        assert (tmp_path / "second" / name).read_bytes() == written
        assert str(tmp_path).encode() not in written


def cards(page: str) -> dict[int, str]:
    """The gallery's entries by task."""
    entries = page.partition('<ul class="gallery">')[2].split("<li>\n<img")[1:]
    return {int(re.findall(r"<p>task (\d+),", entry)[0]): entry for entry in entries}


def thumbnail(entry: str) -> Pixels:
    (data,) = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", entry)
    return read_image(base64.b64decode(data))


def test_thumbnails_show_the_masks_and_ring_what_is_too_small(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "photos")
    write_report(dataset, tmp_path)
    entry = cards((tmp_path / "report.html").read_text())[3]
    shown = thumbnail(entry).astype(int)
    image = next(image for image in dataset.images() if image.number == 3)
    height, width = shown.shape[:2]
    assert max(height, width) == 288
    assert abs(width / height - image.width / image.height) < 0.02
    with Image.open(image.path) as photo:
        plain = np.asarray(photo.convert("RGB").resize((width, height), Image.Resampling.BOX)).astype(int)
    changed = np.abs(shown - plain).max(axis=2) > 25
    union = np.any([instance.mask() for instance in image.instances], axis=0)
    small = np.asarray(Image.fromarray(union).resize((width, height), Image.Resampling.NEAREST))
    assert changed[small].mean() > 0.6
    # The speck's place: in the photo it covers 3 x 4 pixels.
    row, column = round(21 * height / image.height), round(302 * width / image.width)
    ring = [shown[row, column + side] for side in (-9, 9)] + [shown[row + side, column] for side in (-9, 9)]
    (colour,) = re.findall(r"rgb\((\d+), (\d+), (\d+)\)[^>]*></span><bdi>cup", entry)
    assert np.abs(np.array(ring) - np.array(colour, int)).max() < 60
    assert np.abs(plain[row, column] - np.array(colour, int)).max() > 60
    assert "duplicate, tiny" in entry


def test_a_picture_of_any_shape_has_a_thumbnail(tmp_path: Path) -> None:
    sizes, images = [(1, 1), (2000, 1), (1, 700), (300, 200)], []
    for task, (width, height) in enumerate(sizes, start=1):
        path = tmp_path / f"{task}.png"
        Image.new("L", (width, height), 99).save(path)
        whole = Instance(task, 1, encode_rle(np.ones((height, width), np.bool_)), {})
        images.append(DatasetImage(task, path.name, path, width, height, "", "train", (whole,), ()))
    write_report(Dataset("", (Category(1, "all", ""),), lambda: iter(images)), tmp_path)
    shown = cards((tmp_path / "report.html").read_text())
    shapes = {task: thumbnail(entry).shape for task, entry in shown.items()}
    assert shapes == {1: (288, 288, 3), 2: (1, 288, 3), 3: (288, 1, 3), 4: (192, 288, 3)}


def pictures(count: int) -> Iterator[DatasetImage]:
    """Of ten labels, the last of which is rare."""
    for task in range(1, count + 1):
        label = 10 if task == count // 2 else 1 + task % 9
        instance = Instance(task, label, {}, {})
        split = "test" if task % 10 == 0 else "val" if task % 10 == 1 else "train"
        yield DatasetImage(task, "", Path("no"), 9, 9, "", split, (instance,), ())


def test_pictures_with_problems_leave_room_for_a_sample_of_all_labels_and_splits() -> None:
    selection = Selection(set(range(1, 900)), {5, 6})
    for image in pictures(900):
        selection.add(image, [])
    chosen = selection.chosen()
    assert len(chosen) == MOST_SHOWN
    assert list(chosen)[:4] == [1, 5, 2, 6]
    assert (chosen[1], chosen[5]) == (["problem"], ["in two splits", "problem"])
    assert Counter(bool(reasons) for reasons in chosen.values()) == {True: 40, False: 20}
    again = Selection(set(range(1, 900)), {5, 6})
    for image in pictures(900):
        again.add(image, [])
    assert again.chosen() == chosen


def test_a_sample_has_every_label_and_split() -> None:
    selection = Selection(set(), set())
    images = {image.number: image for image in pictures(900)}
    for image in images.values():
        selection.add(image, [])
    chosen = [images[task] for task in selection.chosen()]
    assert len(chosen) == MOST_SHOWN
    strata = {(image.split, image.instances[0].category) for image in images.values()}
    assert {(image.split, image.instances[0].category) for image in chosen} == strata
    assert 450 in {image.number for image in chosen}


def test_agreements_of_several_forms_are_tables() -> None:
    tables = agreement_tables(AGREEMENT)
    assert list(tables) == ["By label", "By pair of people", "Tasks that agree least"]
    assert tables["By label"].columns == ["", "tasks", "mean IoU", "mean Dice"]
    assert tables["By label"].rows == [[EVIL, "3", "0.812", "0.900"]]
    assert tables["By pair of people"].rows[0][0] == "1 and 2"
    assert [row[0] for row in tables["Tasks that agree least"].rows] == ["6", "5"]
    assert agreement_tables({}) == {}
    assert agreement_tables({"by_label": {}, "worst": []}) == {}
    by_name = agreement_tables({"by_label": {"cat": 0.5}, "worst": [{"task": 7, "iou": 0.1}, {"task": 8, "iou": None}]})
    assert by_name["By label"].rows == [["cat", "0.500"]]
    assert by_name["Tasks that agree least"].rows == [["7", "0.100"], ["8", ""]]
