"""Learning from corrections: when it starts, what is promoted, and what a crash leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from annotated import absent, annotation, drawn, task, typed
from pointers import fake_pointer
from squares import SENTENCE, annotated_studio, correction, pictures
from studio import PROJECT, Studio, running

from backend.errors import LabelStudioError
from backend.learning import candidate
from backend.learning.comparison import compare_versions
from backend.learning.finetune import STAGES, LearningServices, Outcome, finish_promotion, learn
from backend.registry import Registry
from backend.settings import Settings
from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.errors import DatasetError
from ris_core.files import sha256
from ris_core.images import read_image
from ris_core.inference.predictor import Predictor
from ris_core.models.lda import LDA, LDAOptions
from ris_core.training.loop import Interrupted
from ris_core.training.run_folder import CONFIG as RUN
from ris_core.training.state import STATE


class Killed(BaseException):
    """What ends a process without asking it."""


@pytest.fixture
def studio() -> Studio:
    return annotated_studio()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """An untrained base model whose masks are whole photos. It only just finds the square in all, or in none."""
    torch.manual_seed(0)
    model = LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"), LDAOptions(rates=(1,), width=32))
    point = OperatingPoint(side=96, mask=0.0)
    predictor = Predictor(model.eval(), point, "untrained")
    embeddings = [predictor.embed(read_image(data)) for data, _ in pictures()]
    presence = [
        found.presence for found in predictor.predict_raw([(embedding, [SENTENCE]) for embedding in embeddings])
    ]

    def make(finds: bool) -> Path:
        threshold = min(presence) - 1e-4 if finds else max(presence) + 1e-4
        folder = tmp_path_factory.mktemp("shipped") / "base"
        checkpoint.save(model, replace(point, presence=threshold), folder, "card")
        return folder

    return make


@pytest.fixture
def services(
    studio: Studio, shipped: Callable[[bool], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., LearningServices]]:
    # Few passes and time for all of them: the outcome must not depend on how busy the machine is.
    monkeypatch.setattr(candidate, "MAX_PASSES", 6)
    with running(studio, tmp_path / "cache") as (client, images, _):

        def make(finds: bool = False, **knobs: Any) -> LearningServices:
            limits = {"finetune_min_new": 10, "finetune_min_validation": 4, "finetune_seconds": 600}
            settings = Settings(home=tmp_path / "home", **limits | knobs)
            registry = Registry(tmp_path / "home" / "models", shipped(finds))
            return LearningServices(client, images, registry, settings)

        yield make


def names(registry: Registry) -> list[str]:
    return [version.name for version in registry.versions(PROJECT)]


def test_it_waits_for_enough_new_corrections(services: Callable[..., LearningServices], tmp_path: Path) -> None:
    outcome = learn(PROJECT, services(finetune_min_new=13))
    assert (outcome.decision, outcome.new, outcome.needed) == ("waiting", 12, 13)
    assert outcome.reason == "12 of 13 new corrections are there."
    # Not even a picture was fetched for that.
    assert not (tmp_path / "home" / "pictures").exists()
    assert json.loads(json.dumps(asdict(outcome)))["version"] is None


def test_what_the_registry_holds_is_read_once(
    services: Callable[..., LearningServices], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a promotion in between would have learning go by two truths."""
    readings: list[int] = []
    versions = Registry.versions
    monkeypatch.setattr(Registry, "versions", lambda self, project: readings.append(project) or versions(self, project))
    assert learn(PROJECT, services(finetune_min_new=13)).decision == "waiting"
    assert readings == [PROJECT]


def test_a_better_candidate_goes_into_production_once(
    services: Callable[..., LearningServices], studio: Studio
) -> None:
    """The base refuses everything; the corrections say that the square is there."""
    parts = services()
    heard: list[tuple[str, float]] = []
    outcome = learn(PROJECT, parts, on_progress=lambda stage, share: heard.append((stage, share)))
    assert outcome.decision == "promoted", outcome.reason
    assert outcome.before is not None
    assert outcome.after is not None
    assert outcome.before["mIoU"] == 0.0 < outcome.after["mIoU"]
    assert outcome.before["expressions"] == 4
    version = parts.registry.current(PROJECT)
    assert names(parts.registry) == [outcome.base, outcome.version]
    assert version.name == outcome.version
    assert version.card["snapshot"] == outcome.snapshot
    assert version.card["base"] == outcome.base
    assert version.card["expressions"] == json.loads(json.dumps(asdict(outcome)))["expressions"]
    # Thresholds are the base's, scores are corrected to what the four answers came to.
    points = [checkpoint_files.operating_point(each.folder) for each in parts.registry.versions(PROJECT)]
    assert points[0].presence == points[1].presence
    assert points[0].answer_shift == 0.0 != points[1].answer_shift
    assert [found.task for found in outcome.expressions] == [9, 10, 11, 12]
    for found in outcome.expressions:
        assert (found.prompt, found.has_target, found.before) == (SENTENCE, True, 0.0)
        assert found.photo == sha256(pictures()[found.task - 1][0])[:16]
    _check_the_card(outcome, version.card)
    assert np.mean([found.after for found in outcome.expressions]) == pytest.approx(outcome.after["mIoU"])
    _check_against_the_model(outcome, version.folder, studio)
    assert {stage for stage, _ in heard} == {"reading", "collecting", "training", "evaluating"}
    assert heard[-1] == ("evaluating", 1.0)
    assert not list((parts.settings.home / "learning" / str(PROJECT)).iterdir())

    again = learn(PROJECT, parts)
    assert (again.decision, again.new, again.base) == ("waiting", 0, outcome.version)


def _check_the_card(outcome: Outcome, card: Mapping[str, Any]) -> None:
    """The decision with all its numbers, and the first good scores that a next candidate is held to."""
    assert outcome.after is not None
    gate = card["gate"]
    assert (gate["decision"], gate["reason"]) == ("passed", outcome.reason) == ("passed", card["reason"])
    assert gate["numbers"]["after"] == gate["numbers"]["difference"] == pytest.approx(outcome.after["mIoU"])
    assert (gate["numbers"]["photos"], gate["numbers"]["needed"]) == (4, 4)
    good = sorted(found.after for found in outcome.expressions if found.after >= 0.5)
    assert sorted(card["worked"].values()) == good


def _check_against_the_model(outcome: Outcome, folder: Path, studio: Studio) -> None:
    """The figures by hand: photo and mask at full resolution, a refused target is 0."""
    predictor = Predictor.load(folder)
    truth = dict(enumerate(pictures(), 1))
    for found in outcome.expressions:
        data, mask = truth[found.task]
        (answer,) = predictor.segment(predictor.embed(read_image(data)), [SENTENCE])
        iou = (answer.mask & mask).sum() / (answer.mask | mask).sum() if answer.present else 0.0
        assert found.after == pytest.approx(iou)


def test_a_worse_candidate_is_kept_for_the_record(services: Callable[..., LearningServices], studio: Studio) -> None:
    """The base finds something everywhere; photos to train on say that it is never there, held-out ones that it is."""
    for number in range(1, 9):
        studio.tasks[number - 1] = correction(number, None)
    parts = services(finds=True)
    outcome = learn(PROJECT, parts)
    assert outcome.decision == "kept"
    assert "It fails on 4 held-out expressions about 4 photos: the mean score falls from 0." in outcome.reason
    assert parts.registry.current(PROJECT).name == outcome.base
    assert names(parts.registry) == [outcome.base, outcome.version]
    assert learn(PROJECT, parts).decision == "waiting", "the same corrections aren't tried again"


def test_too_few_held_out_photos_promote_nothing(services: Callable[..., LearningServices]) -> None:
    parts = services(finetune_min_validation=6)
    outcome = learn(PROJECT, parts)
    assert outcome.decision == "kept"
    assert outcome.reason.startswith("Not yet: to compare versions it takes 2 more held-out expressions.")
    assert f"kept as a trial: promote it yourself with `ris promote {outcome.version} --project" in outcome.reason
    assert parts.registry.version(PROJECT, str(outcome.version)).card["reason"] == outcome.reason
    assert outcome.gate is not None
    assert outcome.gate["decision"] == "not yet"
    assert parts.registry.current(PROJECT).name == outcome.base
    assert outcome.version in names(parts.registry)


def test_a_killed_training_goes_on(services: Callable[..., LearningServices]) -> None:
    parts = services()

    def die(stage: str, share: float) -> None:
        if stage == "training" and share > 0.6:
            raise Killed

    with pytest.raises(Killed):
        learn(PROJECT, parts, on_progress=die)
    assert names(parts.registry) == [parts.registry.base.name]
    (run,) = (parts.settings.home / "learning" / str(PROJECT)).iterdir()
    plan = (run / "plan.json").read_bytes()
    shares: list[float] = []

    def hear(stage: str, share: float) -> None:
        if stage == "training":
            shares.append(share)
        elif stage == "evaluating":
            assert (run / "plan.json").read_bytes() == plan

    outcome = learn(PROJECT, parts, on_progress=hear)
    assert outcome.decision == "promoted"
    assert shares[0] > 0.3, "what had been learnt was not learnt again"
    assert not run.exists()


def interrupt(parts: LearningServices, stage: str) -> list[str]:
    """Have learning asked to stop as soon as it reports a stage -> the stages that it reported."""
    stages: list[str] = []
    with pytest.raises(Interrupted):
        learn(PROJECT, parts, stop=lambda: stage in stages, on_progress=lambda stage, share: stages.append(stage))
    return stages


def test_asked_to_stop_it_ends_at_the_next_step_and_goes_on_from_there(
    services: Callable[..., LearningServices],
) -> None:
    """At every stage in turn; what was trained by then isn't trained again."""
    parts = services()
    for stage in [stage for stage in STAGES[1:] if stage != "teaching"]:
        stages = interrupt(parts, stage)
        assert stages[-1] == stage
        assert stages.count(stage) == 1
        assert names(parts.registry) == [parts.registry.base.name]
        runs = list((parts.settings.home / "learning" / str(PROJECT)).glob("*"))
        assert [(run / STATE).is_file() for run in runs] == [True] * (stage in ("training", "evaluating"))
    stages = []
    assert learn(PROJECT, parts, on_progress=lambda stage, share: stages.append(stage)).decision == "promoted"
    assert "training" not in stages


def test_fewer_photos_a_batch_begin_anew(services: Callable[..., LearningServices]) -> None:
    """As somebody changes it after a training that took too much memory: its state is of no use any more."""
    parts = services()
    interrupt(parts, "training")
    (before,) = (parts.settings.home / "learning" / str(PROJECT)).iterdir()
    parts = replace(parts, settings=parts.settings.model_copy(update={"finetune_photos": 3}))

    def hear(stage: str, share: float) -> None:
        if stage == "training":
            (run,) = (parts.settings.home / "learning" / str(PROJECT)).iterdir()
            assert run != before
            assert json.loads((run / RUN).read_text())["photos"] <= 3

    assert learn(PROJECT, parts, on_progress=hear).decision == "promoted"


@pytest.mark.timeout(600)
def test_processes_that_train_together_make_a_version(services: Callable[..., LearningServices]) -> None:
    parts = services(finetune_processes=2, finetune_seconds=3)
    orders: list[dict[str, Any]] = []

    def hear(stage: str, share: float) -> None:
        if stage == "training":
            (run,) = (parts.settings.home / "learning" / str(PROJECT)).iterdir()
            orders.append(json.loads((run / "order.json").read_text()))

    outcome = learn(PROJECT, parts, on_progress=hear)
    assert orders[0]["processes"] == 2
    assert names(parts.registry) == [outcome.base, outcome.version]


def test_a_kill_between_adding_and_promoting_is_made_good(
    services: Callable[..., LearningServices], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = services()

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Registry, "promote", die)
        learn(PROJECT, parts)
    base, version = names(parts.registry)
    assert parts.registry.current(PROJECT).name == base
    outcome = learn(PROJECT, parts)
    assert (outcome.decision, outcome.base) == ("waiting", version)
    # A version that somebody took back is another matter.
    parts.registry.rollback(PROJECT)
    finish_promotion(parts.registry, PROJECT)
    assert parts.registry.current(PROJECT).name == base
    # So it is when the same corrections lead to it again.
    again = learn(PROJECT, parts, min_new=0)
    assert (again.decision, again.version) == ("kept", version)
    assert f"It is {version} again, which was in production and was taken back. `ris promote {version}" in again.reason
    assert parts.registry.current(PROJECT).name == base


def test_a_promotion_meanwhile_is_not_overridden(services: Callable[..., LearningServices], tmp_path: Path) -> None:
    parts = services()
    other = tmp_path / "other"
    model, point = checkpoint.load(parts.registry.base.folder)
    checkpoint.save(model, replace(point, presence=0.123), other, "card")
    version = parts.registry.add(PROJECT, other, {})

    def interfere(stage: str, share: float) -> None:
        if (stage, share) == ("evaluating", 1.0):
            parts.registry.promote(PROJECT, version.name)

    outcome = learn(PROJECT, parts, on_progress=interfere)
    assert outcome.decision == "kept"
    assert version.name in outcome.reason
    assert parts.registry.current(PROJECT) == version
    finish_promotion(parts.registry, PROJECT)
    assert parts.registry.current(PROJECT) == version


def test_pictures_that_cant_be_had_teach_nothing(services: Callable[..., LearningServices], studio: Studio) -> None:
    for entry in studio.tasks[:3]:
        del studio.uploads[entry["data"]["image"]]
    outcome = learn(PROJECT, services())
    assert (outcome.decision, outcome.new) == ("waiting", 9)
    assert [skipped.task for skipped in outcome.skipped] == [1, 2, 3]


def test_photos_that_are_all_held_out_teach_nothing(services: Callable[..., LearningServices], studio: Studio) -> None:
    del studio.tasks[:8]
    outcome = learn(PROJECT, services(), min_new=0)
    assert outcome.decision == "waiting"
    assert "held out" in outcome.reason


def test_label_studio_failing_changes_nothing(services: Callable[..., LearningServices], studio: Studio) -> None:
    parts = services()
    studio.failing.add("/api/tasks/")
    with pytest.raises(LabelStudioError):
        learn(PROJECT, parts)
    studio.failing.clear()
    studio.tasks.clear()
    assert learn(PROJECT, parts).decision == "waiting"
    with pytest.raises(DatasetError, match="no submitted annotation"):
        learn(PROJECT, parts, min_new=0)
    assert names(parts.registry) == [parts.registry.base.name]


def test_tasks_that_show_one_picture_are_about_one_photo(
    services: Callable[..., LearningServices], studio: Studio, tmp_path: Path
) -> None:
    """The picture of task 9 in three more tasks: the same sentence, another, and one that isn't there."""
    data, mask = pictures()[8]
    said = [[drawn("a", mask, "cat", SENTENCE)], [drawn("a", ~mask, "cat", "the dark")], [typed("the dog"), absent()]]
    for number, result in enumerate(said, 13):
        studio.tasks.append(task(number, annotation(number, *result)))
        studio.uploads[studio.tasks[-1]["data"]["image"]] = data
    parts = services(finetune_min_validation=100)
    outcome = learn(PROJECT, parts)
    assert outcome.gate is not None
    assert outcome.gate["numbers"] | {"expressions": 6, "photos": 4, "targets": 5} == outcome.gate["numbers"]
    snapshot = tmp_path / "home" / "snapshots" / str(PROJECT) / str(outcome.snapshot)
    base = parts.registry.base.folder
    same = compare_versions(base, base, snapshot, lambda stage, share: None)
    assert {each.task: each.has_target for each in same.expressions} == dict.fromkeys(range(9, 15), True) | {15: False}
    assert [each.before for each in same.expressions] == [each.after for each in same.expressions]
    assert [sample.image_id for sample in same.before.samples] == [each.task for each in same.expressions]


def serve_zero_shot(parts: LearningServices, folder: Path) -> str:
    version = parts.registry.add(PROJECT, folder, {"origin": "zero-shot"})
    return parts.registry.promote(PROJECT, version.name).name


def test_what_was_learnt_replaces_a_zero_shot_segmenter(
    services: Callable[..., LearningServices], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that refuses everything serves: ours is trained, compared with it, and put in its place."""
    parts = services()
    deaf = OperatingPoint(presence=0.95)
    name = serve_zero_shot(parts, fake_pointer("owlv2+sam2", tmp_path / "weights", monkeypatch, deaf))
    outcome = learn(PROJECT, parts)
    assert (outcome.decision, outcome.base, outcome.start) == ("promoted", name, parts.registry.base.name)
    version = parts.registry.current(PROJECT)
    assert version.name == outcome.version
    assert (version.card["base"], version.card["start"]) == (outcome.base, outcome.start)
    assert [found.before for found in outcome.expressions] == [0.0] * 4
    assert parts.registry.rollback(PROJECT).name == name
    # The next run goes on from what serves now.
    parts.registry.promote(PROJECT, version.name)
    assert learn(PROJECT, parts).start == version.name


def test_a_zero_shot_segmenter_stays_until_something_is_no_worse(
    services: Callable[..., LearningServices], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one draws the square in every photo."""
    parts = services()
    name = serve_zero_shot(parts, fake_pointer("owlv2+sam2", tmp_path / "weights", monkeypatch))
    outcome = learn(PROJECT, parts)
    assert (outcome.decision, outcome.base, outcome.start) == ("kept", name, parts.registry.base.name)
    assert [found.before for found in outcome.expressions] == [1.0] * 4
    assert parts.registry.current(PROJECT).name == name
    assert checkpoint_files.is_zero_shot(parts.registry.current(PROJECT).folder)
    # Killed before it was promoted, what was learnt takes its place: the card says against whom it was compared.
    card = {"decision": "promoted", "base": name, "start": outcome.start}
    trial = tmp_path / "trial"
    checkpoint_files.with_point(parts.registry.base.folder, OperatingPoint(side=96), trial)
    version = parts.registry.add(PROJECT, trial, card)
    finish_promotion(parts.registry, PROJECT)
    assert parts.registry.current(PROJECT) == version
