"""Learning from a project's corrections: snapshot, fine-tuning, comparison, and a new version if it is no worse.

What is trained further (`start`) and what a candidate has to be no worse than (`base`, the version in production) are
two things: a zero-shot segmenter in production can't be trained, but what was learnt may replace it.

Label Studio's annotations are the source of truth: each run reads them all, so a run that died is simply started
again. It then finds its snapshot, its training state and its version where it left them. One that is asked to stop does
so within seconds, and leaves as much. Knows no HTTP and no queue.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from backend.datasets import fingerprints
from backend.datasets.annotations import SkippedTask
from backend.datasets.fingerprints import Fingerprint
from backend.datasets.project import read_project, snapshot_project
from backend.home import features_folder, learning_folder, snapshots_folder
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver
from backend.labelstudio.label_config import Defaults
from backend.learning.candidate import CandidateSpec, train_candidate
from backend.learning.comparison import OnProgress, compare_versions, reference_scores
from backend.learning.distil import Taught, check_teacher, teach
from backend.learning.distributed import train_together
from backend.learning.gate import ComparedExpression, judge
from backend.learning.teaching import TeachingSpec
from backend.registry import ProjectVersions, PromotionConflict, Registry, Version
from backend.settings import Settings
from ris_core import checkpoint_files
from ris_core.data import Sample, read_folder
from ris_core.evaluation.evaluate import Report, recalibrate
from ris_core.evaluation.metrics import Figures
from ris_core.training.loop import Interrupted

Decision = Literal["waiting", "kept", "promoted"]
STAGES = ("waiting", "reading", "collecting", "teaching", "training", "evaluating")
"""What `learn` reports, in this order."""


@dataclass(frozen=True)
class LearningServices:
    """What learning needs of the rest."""

    client: LabelStudio
    images: ImageResolver
    registry: Registry
    settings: Settings


@dataclass(frozen=True)
class Outcome:
    """What came of learning.

    decision: "waiting" (nothing was trained), "kept" (for the record, not in production) or "promoted".
    new, needed: expressions since the last version, and how many it takes.
    base: the version in production. start: the version that was trained further, most often the same.
    before, after: `metrics.summarise` of `base` and of `version` over the held-out expressions.
    gate: `gate.Verdict` on them. teaching: what a teacher had part in, see `distil.Taught.compare`.
    """

    project: int
    decision: Decision
    reason: str
    new: int
    needed: int
    base: str
    start: str
    version: str | None = None
    snapshot: str | None = None
    before: Figures | None = None
    after: Figures | None = None
    gate: Mapping[str, Any] | None = None
    teaching: Mapping[str, Any] | None = None
    expressions: tuple[ComparedExpression, ...] = ()
    skipped: tuple[SkippedTask, ...] = ()


def learn(
    project: int,
    services: LearningServices,
    *,
    min_new: int | None = None,
    teaching: TeachingSpec | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_progress: OnProgress = lambda stage, share: None,
) -> Outcome:
    """Learn from a project's corrections, if `min_new` of them are new (0: any number, None: as the settings say).

    teaching: learn from what the version in production says of other tasks, too; where that is the small model itself,
    NoTeacher is raised.

    One learner a project at a time: a second call waits for the first ("waiting"). Once `stop` is true learning ends,
    and another call goes on from there.

    Raises Interrupted if `stop` was true, ConfigError or LabelStudioError if the project can't be read, DatasetError if
    none of its tasks can be used, CheckpointError or RegistryError if the version in production is damaged.
    """

    def report(stage: str, share: float) -> None:
        on_progress(stage, share)
        # Training asks by itself, and saves its state first.
        if stage != "training" and stop():
            raise Interrupted

    registry = services.registry
    with registry.learning(project, waiting=lambda: report("waiting", 0.0)), registry.learning_state(project):
        versions = finish_promotion(registry, project)
        if teaching:
            check_teacher(versions)
        return _learn(versions, services, min_new, teaching, stop, report)


def finish_promotion(registry: Registry, project: int) -> ProjectVersions:
    """Promote a version whose learner died between adding it and promoting it -> the versions after that."""
    versions = registry.read(project)
    last = versions.versions[-1]
    if last.card.get("decision") != "promoted" or str(last.card.get("base")) != versions.production:
        return versions
    # Had production moved since, or the version served, then somebody wanted it as it is.
    if last.name in versions.served or (versions.since and versions.since > str(last.card["added"])):
        return versions
    with suppress(PromotionConflict):
        registry.promote(project, last.name, instead_of=versions.production)
    return registry.read(project)


def _learn(
    versions: ProjectVersions,
    services: LearningServices,
    min_new: int | None,
    teaching: TeachingSpec | None,
    stop: Callable[[], bool],
    on_progress: OnProgress,
) -> Outcome:
    settings, base, start = services.settings, versions.current, versions.start
    learnt = _learnt(versions, settings.home)
    needed = settings.finetune_min_new if min_new is None else min_new
    waiting = Outcome(versions.project, "waiting", "", 0, needed, base.name, start.name)
    on_progress("reading", 0.0)
    annotated = read_project(services.client, versions.project, settings.home, Defaults.of(settings))
    corrections = annotated.corrections
    new = fingerprints.changed(fingerprints.of_corrections(corrections.items), learnt, corrections.skipped)
    if len(new) < needed:
        return _wait(waiting, len(new), corrections.skipped)
    on_progress("collecting", 0.0)
    snapshot = snapshot_project(
        annotated,
        services.images,
        settings.home,
        settings.max_image_pixels,
        lambda share: on_progress("collecting", share),
    )
    samples = read_folder(snapshot.folder)
    # Counted again: tasks whose pictures can't be had aren't in it.
    new = fingerprints.changed(fingerprints.of_samples(samples), learnt, snapshot.skipped)
    if len(new) < needed:
        return _wait(waiting, len(new), snapshot.skipped)
    training = [sample for sample in samples if sample.split == "train"]
    taught = None
    if teaching:
        taught = teach(annotated, base, snapshot.folder, services, teaching, on_progress)
        training += taught.samples
    if not training:
        held = "No sentence to train on: the photos annotated so far are held out. Annotate more."
        return replace(_wait(waiting, len(new), snapshot.skipped), reason=held)
    begun = replace(waiting, new=len(new), snapshot=snapshot.id, skipped=snapshot.skipped)
    photos, features = settings.finetune_photos, features_folder(settings.home)
    spec = CandidateSpec(start.folder, training, settings.finetune_seconds, {task for task, _ in new}, photos, features)
    return _improve(begun, versions, spec, snapshot.folder, taught, services, stop, on_progress)


def _wait(waiting: Outcome, new: int, skipped: tuple[SkippedTask, ...]) -> Outcome:
    reason = f"{new} of {waiting.needed} new corrections are there."
    return replace(waiting, reason=reason, new=new, skipped=skipped)


def _improve(
    begun: Outcome,
    versions: ProjectVersions,
    spec: CandidateSpec,
    snapshot: Path,
    taught: Taught | None,
    services: LearningServices,
    stop: Callable[[], bool],
    on_progress: OnProgress,
) -> Outcome:
    """Train a candidate, compare it with the version in production, and register it."""
    settings, run = services.settings, _run_folder(begun, taught, services.settings)
    processes = _processes(spec.samples, settings)
    folders = [snapshot, taught.folder] if taught and taught.folder else [snapshot]
    train = train_candidate if processes == 1 else partial(train_together, processes, folders)
    candidate = train(spec, run, lambda share: on_progress("training", share), stop)
    known = taught.report if taught else None
    comparison = compare_versions(versions.current.folder, candidate, snapshot, on_progress, known)
    verdict = judge(comparison.expressions, settings.finetune_min_validation, reference_scores(versions.current))
    outcome = replace(
        begun,
        decision="promoted" if verdict.passed else "kept",
        reason=verdict.reason,
        before=comparison.before.figures,
        after=comparison.after.figures,
        gate=verdict.as_json(),
        teaching=taught.compare(comparison, snapshot) if taught else None,
        expressions=comparison.expressions,
    )
    calibrated = _calibrated(candidate, comparison.after, versions.shipped, run)
    outcome = _register(outcome, calibrated, services.registry, verdict.reference_scores)
    shutil.rmtree(run)
    return outcome


def _calibrated(candidate: Path, report: Report, shipped: Version, run: Path) -> Path:
    """The candidate with scores that fit what its answers to held-out expressions came to; its masks stay the same."""
    folder = run / "calibrated"
    # One that a crash left behind is the same: the candidate itself is never changed.
    if not folder.exists():
        point, first = (checkpoint_files.operating_point(version) for version in (candidate, shipped.folder))
        checkpoint_files.with_point(candidate, recalibrate(point, report, first), folder)
    return folder


def _processes(training: Sequence[Sample], settings: Settings) -> int:
    """How many train together: one for each GPU, unless neither upright nor wide photos may be enough for a batch."""
    wanted = settings.finetune_processes or max(1, torch.cuda.device_count())
    return wanted if len({sample.image for sample in training}) >= 2 * wanted else 1


def _register(outcome: Outcome, candidate: Path, registry: Registry, references: Mapping[str, float]) -> Outcome:
    if outcome.gate and outcome.gate["decision"] == "not yet":
        outcome = replace(outcome, reason=f"{outcome.reason} {_trial(outcome.project, candidate)}")
    card = {"origin": "fine-tuned", **asdict(outcome), "worked": dict(references)}
    version = registry.add(outcome.project, candidate, card)
    outcome = replace(outcome, version=version.name)
    if outcome.decision != "promoted":
        return outcome
    if version.name in registry.pointer(outcome.project).served:
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


def _trial(project: int, candidate: Path) -> str:
    """What a person can do with a version that nobody can tell yet whether it is better."""
    promoting = f"`ris promote {checkpoint_files.version(candidate)} --project {project}`"
    return (
        f"Until then it is kept as a trial: promote it yourself with {promoting}, "
        f"look at its predictions, and `ris rollback --project {project}` takes it back."
    )


def _run_folder(begun: Outcome, taught: Taught | None, settings: Settings) -> Path:
    """Where this training keeps its state; what is left of others of the project is of no use any more."""
    parent = learning_folder(settings.home, begun.project)
    sources = [str(begun.snapshot)[:16], *([taught.folder.name[:16]] if taught and taught.folder else [])]
    run = parent / "-".join([*sources, str(begun.start), str(settings.finetune_photos)])
    run.mkdir(parents=True, exist_ok=True)
    for other in parent.iterdir():
        if other != run:
            shutil.rmtree(other)
    return run


def _learnt(versions: ProjectVersions, home: Path) -> frozenset[Fingerprint]:
    """What the project's last version was made from, promoted or not."""
    cards = [version.card for version in versions.versions]
    identity = next((str(card["snapshot"]) for card in reversed(cards) if card.get("snapshot")), None)
    if identity is None:
        return frozenset()
    folder = snapshots_folder(home, versions.project) / identity
    # A snapshot that somebody deleted costs one training too many, no more.
    return fingerprints.of_samples(read_folder(folder)) if folder.exists() else frozenset()
