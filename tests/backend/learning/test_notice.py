"""What people see of learning: a line of the project's instructions, beside what they wrote, on a real Valkey."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import random_checkpoint
from labelstudio.site import Answer, Asked, Site, serve
from redis import Redis

from backend.home import project_env_file
from backend.labelstudio.webhooks import CREATED, START_TRAINING, Event
from backend.learning.events import Changes, EventLog, ProjectCounts
from backend.learning.notice import sentence, tick, with_line
from backend.registry import ProjectVersions, Registry, Version
from backend.settings import Settings

PROJECT = 3


class Projects:
    """A Label Studio that keeps the instructions of one project, and counts what it is asked."""

    def __init__(self, instructions: str) -> None:
        self.instructions, self.reads, self.writes, self.fails = instructions, 0, 0, False

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/api/token/refresh/":
            return Answer(200, b'{"access": "x"}')
        if asked.path != f"/api/projects/{PROJECT}/":
            return Answer(404, b"{}")
        if self.fails:
            return Answer(500, b"{}")
        self.reads += asked.method == "GET"
        if asked.method == "PATCH":
            self.writes += 1
            self.instructions = json.loads(asked.body)["expert_instruction"]
        return Answer(200, json.dumps({"id": PROJECT, "expert_instruction": self.instructions}).encode())


@pytest.fixture
def projects() -> Projects:
    return Projects("<h1>Cups</h1>\nMark the handle, too.")


@pytest.fixture
def site(projects: Projects) -> Iterator[Site]:
    with serve(projects) as site:
        yield site


@pytest.fixture
def settings(make_settings: Callable[..., Settings], site: Site) -> Settings:
    return make_settings(label_studio_url=site.url, finetune_min_new=5)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models", random_checkpoint(tmp_path / "base"))


def submit(redis: Redis, settings: Settings, *tasks: int) -> None:
    for number in tasks:
        stamp = f"2026-11-21T02:00:{number:02}Z"
        assert EventLog(redis, settings.home).append(PROJECT, Event(CREATED, number, number, stamp)) == "new"


def test_the_line_follows_what_people_submit_and_leaves_their_words(
    redis: Redis, settings: Settings, registry: Registry, projects: Projects
) -> None:
    submit(redis, settings, 1, 2)
    tick(redis, settings, registry)
    theirs = "<h1>Cups</h1>\nMark the handle, too."
    assert projects.instructions == f"{theirs}\n<p>RIS: 2 of 5 changed tasks until it learns.</p>"
    # As long as there is nothing to say, Label Studio isn't even asked.
    tick(redis, settings, registry)
    assert (projects.reads, projects.writes) == (1, 1)
    projects.instructions = projects.instructions.replace("too.", "too!")
    submit(redis, settings, 3)
    tick(redis, settings, registry)
    assert projects.instructions == (f"{theirs[:-1]}!\n<p>RIS: 3 of 5 changed tasks until it learns.</p>")


def test_of_a_few_photos_the_line_names_what_suffices_for_them(
    redis: Redis, settings: Settings, registry: Registry, projects: Projects
) -> None:
    submit(redis, settings, 1)
    EventLog(redis, settings.home).note_probe(PROJECT, ProjectCounts(tasks=7, annotations=1))
    tick(redis, settings, registry)
    assert projects.instructions.endswith("<p>RIS: 1 of 3 changed tasks until it learns.</p>")


def test_who_does_not_want_it_is_not_shown_it(
    redis: Redis, settings: Settings, registry: Registry, projects: Projects
) -> None:
    submit(redis, settings, 1)
    file = project_env_file(settings.home, PROJECT)
    file.parent.mkdir(parents=True)
    file.write_text("RIS_FINETUNE_NOTICE=false")
    tick(redis, settings, registry)
    assert (projects.reads, projects.writes) == (0, 0)


def test_a_label_studio_that_fails_is_tried_again(
    redis: Redis, settings: Settings, registry: Registry, projects: Projects
) -> None:
    submit(redis, settings, 1)
    projects.fails = True
    tick(redis, settings, registry)
    projects.fails = False
    tick(redis, settings, registry)
    assert "1 of 5 changed tasks" in projects.instructions


def changes(fresh: int = 0, **fields: Any) -> Changes:
    defaults = {"pending": 0, "since": None, "job": "", "queued": 0.0, "forced": False, "unknown": False, "mark": "0"}
    return Changes(now=0.0, fresh=fresh, first=None, **{**defaults, **fields})


def versions(*cards: dict[str, Any]) -> ProjectVersions:
    own = tuple(Version(f"lda-{number}", Path(), card) for number, card in enumerate(cards))
    return ProjectVersions(PROJECT, "lda-0", None, (), (Version("lda-base", Path(), {}), *own))


NUMBERS = {"gate": {"numbers": {"before": 0.611, "after": 0.652}}, "added": "2026-11-27T21:40:05+00:00"}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (changes(2, pending=1), "RIS: 3 of 5 changed tasks until it learns."),
        (changes(5), "RIS: 5 changed tasks: it learns as soon as a worker is free."),
        (changes(1, forced=True), "RIS: 1 changed tasks: it learns as soon as a worker is free."),
        (changes(1, pending=5, job="x"), "RIS: It is learning from 5 changed tasks."),
    ],
)
def test_how_far_it_is(state: Changes, said: str) -> None:
    assert sentence(state, versions(), 5) == said


def test_what_came_of_the_last_one() -> None:
    promoted = {"decision": "promoted", "reason": "It is better.", **NUMBERS}
    kept = {
        "decision": "kept",
        "reason": "12 held-out expressions; it takes 20.",
        "added": NUMBERS["added"],
        "gate": None,
    }
    start = "RIS: 0 of 5 changed tasks until it learns. Last: "
    assert sentence(changes(), versions(kept, promoted), 5) == (
        f"{start}promoted 2026-11-27 21:40 UTC, held-out score 0.61 to 0.65."
    )
    assert sentence(changes(), versions(promoted, kept), 5) == (
        f"{start}held back 2026-11-27 21:40 UTC. 12 held-out expressions; it takes 20."
    )
    trial = kept | {"reason": "Not yet.", "gate": {"decision": "not yet"}}
    assert sentence(changes(), versions(trial), 5) == f"{start}kept as a trial 2026-11-27 21:40 UTC. Not yet."


def test_a_line_is_one_paragraph_at_the_end() -> None:
    assert with_line("", "RIS: a < b & c") == "<p>RIS: a &lt; b &amp; c</p>"
    twice = with_line(with_line("Theirs.", "RIS: one\ntwo"), "RIS: three")
    assert twice == "Theirs.\n<p>RIS: three</p>"


def test_start_training_counts(redis: Redis, settings: Settings, registry: Registry, projects: Projects) -> None:
    EventLog(redis, settings.home).append(PROJECT, Event(START_TRAINING))
    tick(redis, settings, registry)
    assert "as soon as a worker is free" in projects.instructions
