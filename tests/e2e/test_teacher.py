"""A published model in production, from the typed prompt to the student in its place; its weights are tiny ones.

What such weights find means nothing: the loop around them does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from editor import click_on, open_task, regions, shoot, submit, switch_on, take, type_prompt
from playwright.sync_api import Page, expect
from running import Studio
from squares import SENTENCE, picture, pictures
from zero_shot import tiny

from backend.home import project_env_file
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import mask_regions, prompt_region
from backend.projects.connect import LABEL_CONFIG, connect_titled
from ris_core.checkpoint_files import OperatingPoint

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAME = "owlv2+sam2"
CONFIG = parse(LABEL_CONFIG)
# Random weights are sure of nothing; whatever they find is to be shown.
ANYTHING = OperatingPoint(presence=0.0, instance=0.0)
KNOBS = "RIS_FINETUNE_MIN_VALIDATION=4\nRIS_FINETUNE_SECONDS=60\nRIS_FINETUNE_MIN_NEW=1000\nRIS_PRELABEL_MIN_SCORE=0\n"


@pytest.fixture(scope="module")
def project(studio: Studio) -> Iterator[int]:
    tiny.pointer(NAME, Path(os.environ["RIS_CACHE"]), ANYTHING)
    with LabelStudio(studio.url, studio.token) as client:
        number = connect_titled(client, "Teacher", LABEL_CONFIG, studio.settings).project
        project_env_file(studio.home, number).write_text(KNOBS)
        # More than twice as many as will be corrected: from half of a project on it learns by itself.
        photos = [*(data for data, _ in pictures()), *(picture(seed)[0] for seed in range(200, 216))]
        for place, data in enumerate(photos):
            client.upload(number, f"square-{place}.png", data)
    yield number


@pytest.mark.slow
def test_words_and_clicks_a_batch_and_a_student_that_takes_over(page: Page, studio: Studio, project: int) -> None:
    promoted = json.loads(done(studio, "promote", NAME, "--project", str(project), "--json"))
    assert promoted["version"].startswith(f"{NAME}-")
    words_then_a_click(page, studio, project)
    a_batch(studio, project, promoted["version"])
    correct(studio, project)
    outcome = json.loads(done(studio, "distil", "--project", str(project), "--above", "0.05", "--json"))
    assert outcome["decision"] == "promoted", outcome["reason"]
    assert outcome["base"] == promoted["version"]
    assert outcome["start"].startswith("lda-")
    assert outcome["teaching"]["tasks"] > 0
    [row] = [row for row in outcome["teaching"]["by_label"] if row["label"] == "other"]
    assert row["student"] > row["teacher"]
    versions = json.loads(done(studio, "versions", "--project", str(project), "--json"))
    assert versions["production"] == outcome["version"]
    assert outcome["version"].startswith("lda-")
    the_student_answers(page, studio, project)
    back = json.loads(done(studio, "rollback", "--project", str(project), "--json"))
    assert back["version"] == promoted["version"]


def words_then_a_click(page: Page, studio: Studio, project: int) -> None:
    open_task(page, studio, "square-12.png", project)
    switch_on(page, accepting=True)
    type_prompt(page, SENTENCE)
    expect(regions(page)).to_have_count(1)
    shoot(page, "teacher.1-words")
    take(page, "key-point-tool")
    answer = click_on(page, 0.5, 0.5, "Control")
    assert answer
    expect(regions(page)).to_have_count(1)
    shoot(page, "teacher.2-click")
    submit(page)


def a_batch(studio: Studio, project: int, version: str) -> None:
    batch = json.loads(done(studio, "prelabel", "--project", str(project), "--prompt", SENTENCE, "--json"))
    assert (batch["state"], batch["failed"]) == ("done", 0)
    with LabelStudio(studio.url, studio.token) as client:
        for task in client.tasks(project):
            named = [row["model_version"].partition(".")[0] for row in task["predictions"]]
            assert version in named, task["id"]


def correct(studio: Studio, project: int) -> None:
    """As somebody would who draws each square anew."""
    with LabelStudio(studio.url, studio.token) as client:
        tasks = {str(task["data"]["image"]).rpartition("-")[2]: task["id"] for task in client.tasks(project)}
        for place, (_, mask) in enumerate(pictures()):
            label = CONFIG.controls[0].label("other")
            drawn = mask_regions(CONFIG, label, np.asarray(mask), 1.0, SENTENCE)
            result = [{**region, "origin": "manual"} for region in drawn]
            result.append(prompt_region(CONFIG, mask.shape, SENTENCE))
            client.create_annotation(tasks[f"{place}.png"], result)


def the_student_answers(page: Page, studio: Studio, project: int) -> None:
    open_task(page, studio, "square-13.png", project)
    # Auto-Annotation is on already: the browser remembers.
    # By then the task may have been predicted anew, too.
    type_prompt(page, SENTENCE)
    expect(page.get_by_text(f"{SENTENCE}: found").first).to_be_visible()
    expect(regions(page)).not_to_have_count(0)
    shoot(page, "teacher.3-student")


def done(studio: Studio, *arguments: str) -> str:
    ran = studio.ris(*arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_the_demo_teaches_with_a_stand_in_where_nothing_was_fetched(studio: Studio) -> None:
    result = json.loads(done(studio, "demo", "--teacher", "sam3", "--json"))
    assert result["before"].startswith("clipseg-")
    assert result["teaching"]["teacher"] == result["before"].partition(".")[0]
    assert result["teaching"]["tasks"] > 0
    assert result["masks"] == 25
    assert result["decision"] == "promoted", result["reason"]
    assert result["after"].startswith("lda-")
