"""What the pages show is what the commands say, and nothing in them is taken for markup."""

from __future__ import annotations

import io
import json
import re
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image
from ports import free_port
from recorded import BASIC
from redis import Redis
from squares import SENTENCE
from studio import PROJECT

from backend import services
from backend.batches.store import BatchSpec
from backend.datasets.snapshots import newest_snapshot
from backend.queue.queue import JobQueue
from backend.registry import Version
from backend.settings import Settings
from backend.web import ml_backend
from backend.web.app import create_app

from .conftest import TITLE, Browser, Page

PAGES = [
    "",
    "jobs",
    "doctor",
    *(f"projects/{PROJECT}{rest}" for rest in ("", "/acceptance", "/corrections", "/roll-back", "/fine-tune")),
    *(f"projects/{PROJECT}{rest}" for rest in ("/pre-label", "/export")),
]


def links(page: Page, path: str) -> set[str]:
    """Where a page's links, pictures, scripts and forms lead."""
    here = f"http://localhost/console/{path}"
    named = [("a", "href"), ("img", "src"), ("link", "href"), ("script", "src"), ("form", "action")]
    return {urljoin(here, str(one[name])) for tag, name in named for one in page.all(tag) if one.get(name)}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_can_be_used_by_everybody(console: Browser, path: str) -> None:
    page = console.open(path)
    assert page.answer.status_code == 200
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("main")) == len(page.all("header")) == len(page.all("h1")) == 1
    ids = [one["id"] for _, one in page.tags if one.get("id")]
    assert len(ids) == len(set(ids))
    described = {one["for"] for one in page.all("label") if one.get("for")}
    wrapped = re.findall(r"<label><input[^>]*>", page.answer.text)
    inputs = [one for tag in ("input", "select", "textarea") for one in page.all(tag) if one.get("type") != "hidden"]
    assert len(inputs) == len(wrapped) + sum(one.get("id") in described for one in inputs)
    assert all(one.get("alt") is not None for one in page.all("img"))
    named = {str(one["aria-labelledby"]) for _, one in page.tags if one.get("aria-labelledby")}
    assert named <= set(ids)
    # Neither scripts nor styles inside, which the policy would refuse.
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script>", page.answer.text)


def test_every_link_leads_somewhere_and_none_elsewhere(console: Browser, console_settings: Settings) -> None:
    seen, waiting = set(), [""]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        page = console.open(path)
        assert page.answer.status_code == 200, path
        if page.answer.mimetype != "text/html":
            continue
        for target in links(page, path):
            if target.startswith(f"{console_settings.label_studio_url}/"):
                continue
            assert target.startswith("http://localhost/console/"), target
            waiting.append(target.removeprefix("http://localhost/console/"))
    assert len(seen) > 25


def test_all_of_it_works_on_a_path_of_a_proxy(console: Browser) -> None:
    answer = console.client.get(f"/console/projects/{PROJECT}", headers=BASIC)
    here = "https://proxy.example/tools/ris/console/projects/3"
    for target in re.findall(r'(?:href|src|action)="([^"#]+)"', answer.text):
        if not target.startswith("http:"):
            assert urljoin(here, target).startswith("https://proxy.example/tools/ris/console/"), target


def test_the_list_shows_what_label_studio_and_the_registry_say(console: Browser, learnt: list[Version]) -> None:
    page = console.open("")
    assert TITLE in page.text
    assert "<script>alert" not in page.answer.text
    assert f"#{PROJECT} 13 12 (92%) {learnt[0].name}" in page.text
    assert "0 workers for training" in page.text


def test_what_is_under_way_is_counted(console: Browser, redis: Redis) -> None:
    JobQueue(redis).learn(PROJECT)
    assert "1 job" in console.open("").text
    page = console.open(f"projects/{PROJECT}")
    assert f"Learns from the corrections of project {PROJECT}" in page.text
    assert any("data-live" in one for one in page.all("div"))
    assert "http-equiv" in page.answer.text


def test_where_label_studio_is_away_the_rest_is_shown(
    console: Browser, console_settings: Settings, learnt: list[Version]
) -> None:
    away = console_settings.model_copy(update={"label_studio_url": f"http://127.0.0.1:{free_port()}"})
    there = Browser(create_app(away, ml_backend.build(away)).test_client())
    for path in ("", f"projects/{PROJECT}", f"projects/{PROJECT}/acceptance", "jobs", "doctor"):
        page = there.open(path)
        assert page.answer.status_code == 200, path
    assert f"Project {PROJECT} #{PROJECT} {learnt[0].name}" in there.open("").text
    assert "can't be reached" in there.open("").text
    # Without what was predicted, and only for now.
    gallery = there.open(f"projects/{PROJECT}/corrections")
    source = next(str(one["src"]) for one in gallery.all("img") if "corrections" in str(one["src"]))
    path = urljoin("http://localhost/console/projects/3/corrections", source).removeprefix("http://localhost")
    picture = there.client.get(path, headers=BASIC)
    assert (picture.status_code, picture.headers["Cache-Control"]) == (200, "no-store")


def test_a_project_shows_its_versions_and_what_the_gate_said(console: Browser, learnt: list[Version]) -> None:
    page = console.open(f"projects/{PROJECT}")
    base, first, second = learnt
    listed = page.text.partition("Versions")[2]
    assert listed.index(second.name) < listed.index(first.name) < listed.index(base.name)
    assert "0.500 → 0.700 (4)" in page.text
    for badge in ("passed", "trial", "in production"):
        assert badge in page.text
    assert f"{PROJECT}/versions/{first.name}/promote" in page.answer.text
    assert f"versions/{base.name}/promote" not in page.answer.text
    # Two versions were compared: their scores make a line.
    assert len(page.all("circle")) == 2


def test_a_version_shows_all_that_its_card_holds(console: Browser, learnt: list[Version]) -> None:
    page = console.open(f"projects/{PROJECT}/versions/{learnt[2].name}")
    assert "mIoU 0.500 0.700" in page.text
    assert "N-acc 1.000" in page.text
    assert "Reason number 2." in page.text
    assert "<b>the square</b> 9 0.500 0.750 +0.250" in page.text
    assert "<b>the square" not in page.answer.text


def test_acceptance_is_that_of_the_snapshot(console: Browser) -> None:
    page = console.open(f"projects/{PROJECT}/acceptance")
    assert f"{SENTENCE} 12" in page.text
    assert "12 manual" in page.text


def test_pictures_show_the_corrections(console: Browser, console_settings: Settings) -> None:
    page = console.open(f"projects/{PROJECT}/corrections")
    pictures = [str(one["src"]) for one in page.all("img") if "corrections" in str(one["src"])]
    assert len(pictures) == 12
    path = urljoin("http://localhost/console/projects/3/corrections", pictures[0]).removeprefix("http://localhost")
    first = console.client.get(path, headers=BASIC)
    assert (first.status_code, first.mimetype) == (200, "image/jpeg")
    with Image.open(io.BytesIO(first.data)) as picture:
        assert picture.size == (64, 48)
        assert np.asarray(picture).std() > 0
    assert "immutable" in first.headers["Cache-Control"]
    assert console.client.get(path, headers=BASIC).data == first.data
    folder = newest_snapshot(console_settings.home, PROJECT).name
    for wrong in (f"{folder}/1.jpg", f"{'0' * 64}/1.jpg", "../../x/1.jpg"):
        answer = console.client.get(f"/console/projects/{PROJECT}/corrections/{wrong}", headers=BASIC)
        assert answer.status_code == 404, wrong


@pytest.mark.parametrize("query", ["origin=manual", "origin=nonsense", "page=0", "page=-3", "page=999", "page=x"])
def test_the_gallery_takes_whatever_its_address_says(console: Browser, query: str) -> None:
    assert console.open(f"projects/{PROJECT}/corrections?{query}").answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nowhere", 404),
        ("projects/99", 404),
        ("projects/99/export", 404),
        (f"projects/{PROJECT}/versions/none", 404),
        ("projects/x", 404),
        ("projects/99999999999999", 404),
        ("jobs/none", 404),
        ("batches/none", 404),
        ("batches/none/cancel", 404),
    ],
)
def test_what_is_not_there_is_said_on_a_page(console: Browser, path: str, status: int) -> None:
    page = console.open(path)
    assert page.answer.status_code == status
    assert page.answer.mimetype == "text/html"
    assert page.answer.headers["X-Request-ID"] in page.text
    assert page.all("h1")


def test_no_page_loads_a_model(console: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    from ris_core import segmenters

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(segmenters, "load", refuse)
    for path in PAGES:
        assert console.open(path).answer.status_code == 200


def test_a_training_under_way_is_drawn(console: Browser, console_settings: Settings, redis: Redis) -> None:
    JobQueue(redis).learn(PROJECT)
    run = console_settings.home / "learning" / str(PROJECT) / "run"
    run.mkdir(parents=True)
    lines = [json.dumps({"step": step, "loss": 2 / step}) for step in range(1, 31)]
    (run / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 31, "lo']))
    page = console.open(f"projects/{PROJECT}")
    assert "Training loss, step 30: 0.067" in page.text
    # Beside the two versions.
    assert len(page.all("circle")) == 30 + 2


def test_jobs_and_batches_are_listed_as_the_command_lists_them(
    console: Browser, console_settings: Settings, redis: Redis
) -> None:
    batches = services.batch_service(console_settings)
    batch = batches.submit(BatchSpec(PROJECT, "lda-1", "lda-1.2", (("a <b>cat</b>", None),)), range(1, 40))
    job = JobQueue(redis).export(PROJECT, "out", {}).job
    page = console.open("jobs")
    assert f"Exports project {PROJECT} to out" in page.text
    assert "0 of 39 done" in page.text
    shown = console.open(f"batches/{batch.id}")
    assert "a <b>cat</b>" in shown.text
    assert "<b>cat" not in shown.answer.text
    assert "queued" in console.open(f"jobs/{job}").text
