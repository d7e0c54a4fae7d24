"""Learning from a project's corrections: snapshot, fine-tuning, comparison, and a new version if it is no worse.

Label Studio's annotations are the source of truth: each run reads them all, so a run that died is simply started
again. It then finds its snapshot, its training state and its version where it left them. One that is asked to stop does
so within seconds, and leaves as much. Knows no HTTP and no queue.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from backend.datasets.annotations import Correction, SkippedTask
from backend.datasets.project import read_project, snapshot_project
from backend.datasets.snapshots import read_manifest, snapshot_folder
from backend.home import features_folder, learning_folder
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver
from backend.learning.candidate import CandidateSpec, train_candidate
from backend.learning.distributed import train_together
from backend.learning.gate import Compared, judge
from backend.registry import PromotionConflict, Registry, Version
from backend.settings import Settings
from ris_core import checkpoint
from ris_core.data import Sample, read_folder
from ris_core.evaluation.evaluate import Report, evaluate, recalibrate
from ris_core.evaluation.metrics import Figures
from ris_core.files import sha256
from ris_core.inference.predictor import Predictor
from ris_core.training.loop import Interrupted

Decision = Literal["waiting", "kept", "promoted"]
STAGES = ("waiting", "reading", "collecting", "training", "evaluating")
OnProgress = Callable[[str, float], None]
"""Hears the stage, one of `STAGES` in that order, and the share of it done, 0 to 1."""

# Of a digest: 64 bits, among a million pictures two agree with a chance of one in thirty million.
_DIGITS = 16

_Print: TypeAlias = tuple[int, str, tuple[str, ...]]
"""What an expression is told by: its task, the cleaned sentence, and the run lengths of what it means."""


@dataclass(frozen=True)
class LearningServices:
    """What learning needs of the rest."""

    client: LabelStudio
    images: ImageResolver
    registry: Registry
    settings: Settings


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same held-out expressions; `expressions[i]` is about `before.samples[i]`."""

    before: Report
    after: Report
    expressions: tuple[Compared, ...]


@dataclass(frozen=True)
class Outcome:
    """What came of learning. `as_json` fits a job's result.

    decision: "waiting" (nothing was trained), "kept" (for the record, not in production) or "promoted".
    new, needed: expressions since the last version, and how many it takes.
    before, after: `metrics.summarise` of `base` and of `version` over the held-out expressions.
    gate: `gate.Verdict` on them.
    """

    project: int
    decision: Decision
    reason: str
    new: int
    needed: int
    base: str
    version: str | None = None
    snapshot: str | None = None
    before: Figures | None = None
    after: Figures | None = None
    gate: Mapping[str, Any] | None = None
    expressions: tuple[Compared, ...] = ()
    skipped: tuple[SkippedTask, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def learn(
    project: int,
    services: LearningServices,
    *,
    least: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: OnProgress = lambda stage, share: None,
) -> Outcome:
    """Learn from a project's corrections, if there are enough new ones.

    One learner a project at a time: a second call waits for the first ("waiting").

    Args:
        least: how many are enough, 0 for any number; None: as the settings say.
        stop: asked again and again; once it is true, learning ends, and another call goes on from there.

    Raises:
        Interrupted: `stop` was true.
        ConfigError, LabelStudioError: the project can't be read.
        DatasetError: none of its tasks can be used.
        CheckpointError, RegistryError: the version in production is damaged.
    """

    def hear(stage: str, share: float) -> None:
        report(stage, share)
        # Training asks by itself, and saves its state first.
        if stage != "training" and stop():
            raise Interrupted

    with services.registry.learning(project, waiting=lambda: hear("waiting", 0.0)):
        finish_promotion(services.registry, project)
        return _learn(project, services, least, stop, hear)


def finish_promotion(registry: Registry, project: int) -> None:
    """Promote a version whose learner died between adding it and promoting it."""
    last = registry.versions(project)[-1]
    base = str(last.card.get("base"))
    if last.card.get("decision") != "promoted" or base != registry.production(project):
        return
    since = registry.since(project)
    # Had production moved since, or the version served, then somebody wanted it as it is.
    if last.name in registry.served(project) or (since and since > str(last.card["added"])):
        return
    with suppress(PromotionConflict):
        registry.promote(project, last.name, instead_of=base)


def compare_versions(before: Path, after: Path, snapshot: Path, report: OnProgress) -> Comparison:
    """Have two checkpoints, one after the other, answer the held-out expressions of a snapshot.

    Raises:
        CheckpointError: one can't be loaded.
        DatasetError, ImageError: the snapshot is damaged.
    """
    samples = [sample for sample in read_folder(snapshot) if sample.split != "train"]
    digests = read_manifest(snapshot)
    old, new = _evaluate([before, after], samples, report)
    expressions = tuple(
        Compared(
            task=sample.image_id,
            prompt=sample.sentence,
            photo=digests[f"images/{sample.image.name}"][:_DIGITS],
            target=_target(sample),
            before=was.correct,
            after=now.correct,
        )
        for sample, was, now in zip(old.samples, old.scores, new.scores, strict=True)
    )
    return Comparison(old, new, expressions)


def worked_before(version: Version) -> Mapping[str, float]:
    """What a version's card says that the next candidate must not lose, see `gate.judge`.

    Nothing where somebody promoted it against the gate: what it had lost by then was accepted with it.
    """
    return version.card.get("worked", {}) if version.card.get("decision") == "promoted" else {}


def _learn(
    project: int, services: LearningServices, least: int | None, stop: Callable[[], bool], report: OnProgress
) -> Outcome:
    settings, base = services.settings, services.registry.current(project)
    known = _known(project, services)
    needed = settings.finetune_min_new if least is None else least
    waiting = Outcome(project, "waiting", "", 0, needed, base.name)
    report("reading", 0.0)
    found = read_project(services.client, project, settings.home)
    new = _news(_of_corrections(found.corrections.items), known, found.corrections.skipped)
    if len(new) < needed:
        return _wait(waiting, len(new), found.corrections.skipped)
    report("collecting", 0.0)
    snapshot = snapshot_project(
        found, services.images, settings.home, settings.max_image_pixels, lambda share: report("collecting", share)
    )
    samples = read_folder(snapshot.folder)
    # Counted again: tasks whose pictures can't be had aren't in it.
    new = _news(_of_samples(samples), known, snapshot.skipped)
    if len(new) < needed:
        return _wait(waiting, len(new), snapshot.skipped)
    if all(sample.split != "train" for sample in samples):
        held = "No sentence to train on: the photos annotated so far are held out. Annotate more."
        return replace(_wait(waiting, len(new), snapshot.skipped), reason=held)
    begun = replace(waiting, new=len(new), snapshot=snapshot.id, skipped=snapshot.skipped)
    return _improve(begun, samples, {task for task, _ in new}, services, stop, report)


def _wait(waiting: Outcome, new: int, skipped: tuple[SkippedTask, ...]) -> Outcome:
    reason = f"{new} of {waiting.needed} new corrections are there."
    return replace(waiting, reason=reason, new=new, skipped=skipped)


def _improve(
    begun: Outcome,
    samples: Sequence[Sample],
    new: set[int],
    services: LearningServices,
    stop: Callable[[], bool],
    report: OnProgress,
) -> Outcome:
    settings, base = services.settings, services.registry.version(begun.project, begun.base)
    run = _run_folder(begun, settings)
    snapshot = snapshot_folder(settings.home, begun.project, str(begun.snapshot))
    training = [sample for sample in samples if sample.split == "train"]
    processes = _processes(training, settings)
    seconds, photos, features = settings.finetune_seconds, settings.finetune_photos, features_folder(settings.home)
    order = CandidateSpec(base.folder, training, seconds, new, photos, features)
    train = train_candidate if processes == 1 else partial(train_together, processes, snapshot)
    candidate = train(order, run, lambda share: report("training", share), stop)
    found = compare_versions(base.folder, candidate, snapshot, report)
    verdict = judge(found.expressions, settings.finetune_min_validation, worked_before(base))
    outcome = replace(
        begun,
        decision="promoted" if verdict.passed else "kept",
        reason=verdict.reason,
        before=found.before.figures,
        after=found.after.figures,
        gate=verdict.as_json(),
        expressions=found.expressions,
    )
    calibrated = _calibrated(candidate, found.after, services.registry, run)
    outcome = _register(outcome, calibrated, services.registry, verdict.worked)
    shutil.rmtree(run)
    return outcome


def _calibrated(candidate: Path, report: Report, registry: Registry, run: Path) -> Path:
    """The candidate with scores that fit what its answers to held-out expressions came to; its masks stay the same."""
    folder = run / "calibrated"
    # One that a crash left behind is the same: the candidate itself is never changed.
    if not folder.exists():
        point, first = (checkpoint.operating_point(each) for each in (candidate, registry.base.folder))
        checkpoint.with_point(candidate, recalibrate(point, report, first), folder)
    return folder


def _processes(training: Sequence[Sample], settings: Settings) -> int:
    """How many train together: one for each GPU, unless neither upright nor wide photos may be enough for a batch."""
    wanted = settings.finetune_processes or max(1, torch.cuda.device_count())
    return wanted if len({sample.image for sample in training}) >= 2 * wanted else 1


def _evaluate(folders: Sequence[Path], samples: Sequence[Sample], report: OnProgress) -> list[Report]:
    total = max(1, len(folders) * len(samples))

    def hear(number: int) -> Callable[[int], None]:
        return lambda done: report("evaluating", (number * len(samples) + done) / total)

    return [evaluate(Predictor.load(folder), samples, hear(number)) for number, folder in enumerate(folders)]


def _register(outcome: Outcome, candidate: Path, registry: Registry, worked: Mapping[str, float]) -> Outcome:
    card = {"origin": "fine-tuned", **outcome.as_json(), "worked": dict(worked)}
    version = registry.add(outcome.project, candidate, card)
    outcome = replace(outcome, version=version.name)
    if outcome.decision != "promoted":
        return outcome
    if version.name in registry.served(outcome.project):
        # The same corrections lead to the same weights.
        again = (
            f"It is {version.name} again, which was in production and was taken back. "
            f"`ris promote {version.name} --project {outcome.project}` puts it there once more."
        )
        return replace(outcome, decision="kept", reason=again)
    try:
        registry.promote(outcome.project, version.name, instead_of=outcome.base)
    except PromotionConflict as conflict:
        return replace(outcome, decision="kept", reason=str(conflict))
    return outcome


def _target(sample: Sample) -> str:
    """A digest of what a sentence means, empty where that isn't there."""
    runs = "/".join(sorted(rle["counts"] for rle in sample.segmentations))
    return sha256(runs.encode())[:_DIGITS] if runs else ""


def _run_folder(begun: Outcome, settings: Settings) -> Path:
    """Where this training keeps its state; what is left of others of the project is of no use any more."""
    parent = learning_folder(settings.home, begun.project)
    run = parent / f"{str(begun.snapshot)[:16]}-{begun.base}-{settings.finetune_photos}"
    run.mkdir(parents=True, exist_ok=True)
    for other in parent.iterdir():
        if other != run:
            shutil.rmtree(other)
    return run


def _known(project: int, services: LearningServices) -> frozenset[_Print]:
    """What the project's last version was made from, promoted or not."""
    cards = [version.card for version in services.registry.versions(project)]
    identity = next((str(card["snapshot"]) for card in reversed(cards) if card.get("snapshot")), None)
    if identity is None:
        return frozenset()
    folder = snapshot_folder(services.settings.home, project, identity)
    # A snapshot that somebody deleted costs one training too many, no more.
    return _of_samples(read_folder(folder)) if folder.exists() else frozenset()


def _news(found: frozenset[_Print], known: frozenset[_Print], skipped: Iterable[SkippedTask]) -> set[tuple[int, str]]:
    """The expressions, by task and sentence, that are new, mean something else now, or were taken back.

    What a task said that can't be used just now wasn't taken back.
    """
    out = {task.task for task in skipped}
    return {(task, sentence) for task, sentence, _ in found ^ known if task not in out}


def _of_samples(samples: Iterable[Sample]) -> frozenset[_Print]:
    return frozenset(
        (sample.image_id, sample.sentence, tuple(sorted(rle["counts"] for rle in sample.segmentations)))
        for sample in samples
    )


def _of_corrections(corrections: Iterable[Correction]) -> frozenset[_Print]:
    return frozenset(
        (
            correction.task,
            expression.cleaned,
            tuple(sorted(drawn.rle["counts"] for drawn in correction.objects if drawn.region in expression.regions)),
        )
        for correction in corrections
        for expression in correction.expressions
    )
