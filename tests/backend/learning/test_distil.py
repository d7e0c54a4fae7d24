"""A teacher in production: what it says of other tasks is learnt from, and the student is held to people's word."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from annotated import absent, annotation, drawn, task, typed
from bright import BrightNetwork, install
from squares import SENTENCE, annotated_studio, correction, picture, pictures
from studio import PROJECT, Studio, running

from backend.errors import BadRequest
from backend.home import taught_folder
from backend.learning import candidate
from backend.learning.distil import NoTeacher
from backend.learning.finetune import STAGES, LearningServices, learn
from backend.learning.teaching import TeachingSpec, teaching_spec
from backend.registry import Registry
from backend.settings import Settings
from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint, version
from ris_core.data import read_folder, split_of
from ris_core.encoders import image_encoder, text_encoder
from ris_core.errors import DatasetError
from ris_core.files import sha256
from ris_core.models.lda import LDA, LDAOptions
from ris_core.training.balance import balance

SPEC = TeachingSpec(above=0.8, tasks=20)


class Killed(BaseException):
    """What ends a process without asking it."""


def more_pictures() -> dict[int, tuple[bytes, np.ndarray]]:
    """Tasks that nobody annotated, some of them of held-out photos."""
    seen = {data for data, _ in pictures()}
    found = [pair for pair in map(picture, range(60, 80)) if pair[0] not in seen]
    return dict(enumerate(found[:8], 101))


def to_train_on() -> list[int]:
    """Those of the tasks whose photo isn't held out."""
    return [number for number, (data, _) in more_pictures().items() if split_of(sha256(data)) == "train"]


@pytest.fixture
def studio() -> Studio:
    studio = annotated_studio()
    for number, (data, _) in more_pictures().items():
        studio.tasks.append(task(number))
        studio.uploads[studio.tasks[-1]["data"]["image"]] = data
    return studio


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained small model in the shipped one's place."""
    torch.manual_seed(0)
    model = LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"), LDAOptions(rates=(1,), width=32))
    checkpoint.save(model, OperatingPoint(side=96, mask=0.4), tmp_path / "small", "card")
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture
def services(
    studio: Studio, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., LearningServices]]:
    monkeypatch.setattr(candidate, "MAX_PASSES", 4)
    with running(studio, tmp_path / "images") as (client, images, _):

        def make(teacher: bool = True, **knobs: Any) -> LearningServices:
            limits = {"finetune_min_new": 10, "finetune_min_validation": 4, "finetune_seconds": 600}
            settings = Settings(home=tmp_path / "home", **limits | knobs)
            base = install(monkeypatch, tmp_path / "cache") if teacher else small
            return LearningServices(client, images, Registry(tmp_path / "home" / "models", base), settings)

        yield make


def test_the_student_starts_at_the_small_model_and_is_held_to_the_teacher(
    services: Callable[..., LearningServices], small: Path
) -> None:
    parts = services()
    heard: list[str] = []
    outcome = learn(PROJECT, parts, min_new=0, teaching=SPEC, on_progress=lambda stage, share: heard.append(stage))
    assert (outcome.base, outcome.start) == (parts.registry.base.name, version(small))
    assert outcome.base.startswith("grounding-dino+sam2-")
    assert str(outcome.version).startswith("lda-")
    assert [stage for stage in STAGES if stage in heard] == list(STAGES[1:])
    taught = outcome.teaching
    assert taught is not None
    count = len(to_train_on())
    assert (taught["tasks"], taught["found"], taught["refused"], taught["unsure"]) == (count, count, 0, 0)
    [row] = taught["by_label"]
    assert (row["label"], row["count"]) == ("cat", 4)
    assert row["teacher"] == pytest.approx(np.mean([one.before for one in outcome.expressions]))
    assert row["teacher"] > 0.95
    assert row["student"] == pytest.approx(np.mean([one.after for one in outcome.expressions]))
    assert taught["seconds"]["teacher"] > 0 < taught["seconds"]["student"]
    # An untrained model of four passes is worse than the teacher, and the gate says so.
    assert outcome.decision == "kept"
    card = parts.registry.version(PROJECT, str(outcome.version)).card
    assert (card["start"], card["base"], card["teaching"]["teacher"]) == (outcome.start, outcome.base, outcome.base)
    json.dumps(asdict(outcome))


def test_what_was_taught_is_apart_from_what_people_said(services: Callable[..., LearningServices]) -> None:
    parts = services()
    outcome = learn(PROJECT, parts, min_new=0, teaching=SPEC)
    home = parts.settings.home
    [snapshot] = (home / "snapshots" / str(PROJECT)).glob("[!.]*")
    assert snapshot.name == outcome.snapshot
    assert {sample.image_id for sample in read_folder(snapshot)} == set(range(1, 13))
    assert outcome.teaching is not None
    samples = read_folder(taught_folder(home, PROJECT) / outcome.teaching["taught"])
    assert {sample.origin for sample in samples} == {"taught"}
    assert {sample.sentence for sample in samples} == {SENTENCE}
    truth = more_pictures()
    for sample in samples:
        assert sample.split == "train" == split_of(sha256(truth[sample.image_id][0]))
        assert (sample.mask() == truth[sample.image_id][1]).mean() > 0.99


def test_what_the_teacher_refuses_is_its_word_too(services: Callable[..., LearningServices], studio: Studio) -> None:
    """People said of one photo that something isn't there, and the teacher says so of all others."""
    (_, mask), ring = pictures()[0], "the dark ring"
    studio.tasks[0] = task(1, annotation(1, drawn("a", mask, "cat", SENTENCE), typed(ring), absent()))
    parts = services()
    outcome = learn(PROJECT, parts, min_new=0, teaching=TeachingSpec(above=0.6, tasks=20))
    assert outcome.teaching is not None
    count = len(to_train_on())
    assert (outcome.teaching["found"], outcome.teaching["refused"]) == (count, count)
    home = parts.settings.home
    taught = read_folder(taught_folder(home, PROJECT) / outcome.teaching["taught"], "train")
    assert {(sample.sentence, sample.has_target) for sample in taught} == {(SENTENCE, True), (ring, False)}
    assert {sample.origin for sample in taught} == {"taught"}
    people = read_folder(home / "snapshots" / str(PROJECT) / str(outcome.snapshot), "train")
    weights = balance([*people, *taught * 50])
    assert sum(weights[len(people) :]) / sum(weights) <= 0.5 + 1e-9


def test_what_people_ask_since_then_is_asked_anew(services: Callable[..., LearningServices], studio: Studio) -> None:
    parts = services()
    first = learn(PROJECT, parts, min_new=0, teaching=SPEC)
    BrightNetwork.encoded = 0
    again = learn(PROJECT, parts, min_new=0, teaching=TeachingSpec(above=0.5, tasks=20))
    assert first.teaching is not None
    assert again.teaching is not None
    # Another threshold asks nothing anew: the held-out photos alone.
    assert BrightNetwork.encoded == 4
    (_, mask), other = pictures()[1], "the light square"
    studio.tasks[1] = task(2, annotation(2, drawn("a", mask, "cat", other)))
    BrightNetwork.encoded = 0
    more = learn(PROJECT, parts, min_new=0, teaching=SPEC)
    assert more.teaching is not None
    assert more.teaching["found"] == 2 * len(to_train_on())
    assert BrightNetwork.encoded == 4 + len(to_train_on())


def test_people_count_at_least_as_much_as_the_teacher(services: Callable[..., LearningServices]) -> None:
    parts = services()
    outcome = learn(PROJECT, parts, min_new=0, teaching=SPEC)
    assert outcome.teaching is not None
    home = parts.settings.home
    people = read_folder(home / "snapshots" / str(PROJECT) / str(outcome.snapshot), "train")
    taught = read_folder(taught_folder(home, PROJECT) / outcome.teaching["taught"], "train")
    samples = [*people, *taught * 50]
    weights = balance(samples)
    share = sum(weights[len(people) :]) / sum(weights)
    assert share == pytest.approx(0.5)


def test_a_student_as_good_as_its_teacher_is_promoted(
    services: Callable[..., LearningServices], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a teacher that finds nothing on the photos that people hold out."""
    monkeypatch.setattr(BrightNetwork, "find", lambda self, image, sentences, least: _nothing(image, sentences))
    parts = services()
    outcome = learn(PROJECT, parts, min_new=0, teaching=SPEC)
    assert outcome.before is not None
    assert outcome.before["mIoU"] == 0.0
    assert outcome.decision == "promoted", outcome.reason
    assert parts.registry.current(PROJECT).name == outcome.version
    # From here on the student is what is trained further, and nobody teaches.
    assert parts.registry.read(PROJECT).start.name == outcome.version
    with pytest.raises(NoTeacher, match="it would learn from itself"):
        learn(PROJECT, parts, min_new=0, teaching=SPEC)
    parts.registry.rollback(PROJECT)
    versions = parts.registry.read(PROJECT)
    assert versions.production == parts.registry.base.name
    # What was taken back is no start.
    assert versions.start.name == versions.shipped.name == outcome.start


def _nothing(image: Any, sentences: Any) -> list[Any]:
    from ris_core.zero_shot.network import Found

    logits = image.levels[0][0][0]
    return [Found(logits[:0], torch.zeros(0), torch.zeros(0), 0.02) for _ in sentences]


def test_corrections_alone_train_the_small_model_below_a_teacher(
    services: Callable[..., LearningServices], small: Path
) -> None:
    outcome = learn(PROJECT, services())
    assert (outcome.start, outcome.teaching) == (version(small), None)
    assert outcome.base.startswith("grounding-dino+sam2-")


def test_a_run_that_was_killed_asks_only_what_it_had_not_asked(
    services: Callable[..., LearningServices], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.learning.teaching._TOGETHER", 2)
    parts = services()

    def die(stage: str, share: float) -> None:
        if stage == "teaching" and share >= 0.5:
            raise Killed

    with pytest.raises(Killed):
        learn(PROJECT, parts, min_new=0, teaching=SPEC, on_progress=die)
    [notes] = taught_folder(parts.settings.home, PROJECT).glob("*.jsonl")
    written = notes.read_bytes()
    assert written.count(b"\n") == 4
    # A line that a kill cut in half doesn't count.
    notes.write_bytes(written + b'{"task": 105, "said": [{"pro')
    BrightNetwork.encoded = 0
    outcome = learn(PROJECT, parts, min_new=0, teaching=SPEC)
    assert outcome.teaching is not None
    numbers = [json.loads(line)["task"] for line in notes.read_bytes().splitlines()]
    assert sorted(numbers) == list(more_pictures())
    left = [number for number in to_train_on() if number not in numbers[:4]]
    # The four held-out photos once, to be believed and to be compared; and the tasks that were left.
    assert BrightNetwork.encoded == 4 + len(left)


def test_without_enough_held_out_corrections_nobody_knows_how_sure_is_sure(
    services: Callable[..., LearningServices], studio: Studio
) -> None:
    studio.tasks[:12] = [correction(number, mask) for number, (_, mask) in list(enumerate(pictures(), 1))[:10]]
    with pytest.raises(DatasetError, match=r"of 2 corrections that are held out it takes 4\. Correct some more"):
        learn(PROJECT, services(), min_new=0, teaching=SPEC)


def test_a_picture_that_is_gone_costs_its_task_alone(services: Callable[..., LearningServices], studio: Studio) -> None:
    in_training = to_train_on()
    gone = next(task for task in studio.tasks if task["id"] == in_training[0])
    del studio.uploads[gone["data"]["image"]]
    outcome = learn(PROJECT, services(), min_new=0, teaching=SPEC)
    assert outcome.teaching is not None
    assert [one["task"] for one in outcome.teaching["skipped"]] == [in_training[0]]
    assert outcome.teaching["found"] == len(in_training) - 1


def test_unsure_answers_are_counted_and_not_learnt_from(services: Callable[..., LearningServices]) -> None:
    outcome = learn(PROJECT, services(), min_new=0, teaching=TeachingSpec(above=0.9999, tasks=20))
    assert outcome.teaching is not None
    assert outcome.teaching["found"] == 0 < outcome.teaching["unsure"]
    assert outcome.teaching["taught"] is None


@pytest.mark.parametrize(("above", "tasks"), [(0, 1), (1.0, 1), (0.5, 0), ("0.9", 5), (0.5, 1.5), (float("nan"), 2)])
def test_a_job_that_carries_no_such_spec_is_refused(above: object, tasks: object) -> None:
    with pytest.raises(BadRequest, match="give a confidence between 0 and 1"):
        teaching_spec(above, tasks)
