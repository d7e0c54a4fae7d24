"""A small model learns from a large one: what is in production teaches, and the student is judged against it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.datasets.project import AnnotatedProject
from backend.datasets.snapshots import label_names
from backend.errors import BackendError
from backend.inference.model_pool import ModelPool, release_memory
from backend.inference.project_model import ProjectModels
from backend.learning.comparison import Comparison, OnProgress
from backend.learning.teaching import Teacher, Teaching, TeachingSpec
from backend.registry import ProjectVersions, Version
from ris_core import checkpoint_files, segmenters
from ris_core.data.folder import Sample, read_folder
from ris_core.errors import DatasetError
from ris_core.evaluation.evaluate import Report, evaluate, recalibrate
from ris_core.inference.calibration import mean

if TYPE_CHECKING:
    from backend.learning.finetune import LearningServices

# What an absent thing is an example of, nobody says.
_ABSENT = "(not there)"


@dataclass(frozen=True)
class Taught:
    """What a teacher taught, and what it answered itself to the expressions that people hold it to."""

    teaching: Teaching
    report: Report

    @property
    def samples(self) -> Sequence[Sample]:
        """To be trained on."""
        return self.teaching.samples

    @property
    def folder(self) -> Path | None:
        """The dataset folder of `samples`; None if there are none."""
        return self.teaching.folder

    def compare(self, comparison: Comparison, snapshot: Path) -> dict[str, Any]:
        """What was taught, and how near the student is: mean score a label, seconds an expression."""
        names, rows = label_names(snapshot), defaultdict[str, list[tuple[float, float]]](list)
        for sample, expression in zip(comparison.before.samples, comparison.expressions, strict=True):
            rows[names.get(sample.ref_id, _ABSENT)].append((expression.before, expression.after))
        by_label = [
            {
                "label": label,
                "count": len(scores),
                "teacher": mean([teacher for teacher, _ in scores]),
                "student": mean([student for _, student in scores]),
            }
            for label, scores in sorted(rows.items())
        ]
        count = max(1, len(comparison.expressions))
        seconds = {"teacher": self.report.seconds / count, "student": comparison.after.seconds / count}
        return {**self.teaching.as_json(), "by_label": by_label, "seconds": seconds}


class NoTeacher(BackendError, code="no_teacher", status=409):
    """What is in production is the small model itself."""


def check_teacher(versions: ProjectVersions) -> None:
    """Raise NoTeacher if what is in production could only teach itself."""
    if not checkpoint_files.is_zero_shot(versions.current.folder):
        raise NoTeacher(
            f"{versions.production} is in production, a small model: it would learn from itself. Put a teacher there: "
            f"`ris promote grounding-dino+sam2 --project {versions.project}`, for instance; `ris models` lists them."
        )


def teach(
    annotated: AnnotatedProject,
    version: Version,
    snapshot: Path,
    services: LearningServices,
    spec: TeachingSpec,
    on_progress: OnProgress,
) -> Taught:
    """Ask `version` about a project's other tasks ("teaching"), believed as far as held-out corrections bear it out.

    Raises DatasetError where these are fewer than it takes to compare versions, and as `Teacher.teach` does.
    """
    held_out = [sample for sample in read_folder(snapshot) if sample.split != "train"]
    needed = services.settings.finetune_min_validation
    if len(held_out) < needed:
        raise DatasetError(
            f"How sure {version.name} has to be can't be told: of {len(held_out)} corrections that are held out it "
            f"takes {needed}. Correct some more answers, then distil."
        )
    taught = _teach(annotated, version, held_out, services, spec, on_progress)
    # The student needs what the teacher held.
    release_memory()
    return taught


def _teach(
    annotated: AnnotatedProject,
    version: Version,
    held_out: Sequence[Sample],
    services: LearningServices,
    spec: TeachingSpec,
    on_progress: OnProgress,
) -> Taught:
    settings, segmenter = services.settings, segmenters.load(version.folder)
    # Whoever wants it to stop is heard at each of them.
    report = evaluate(segmenter, held_out, lambda done: on_progress("teaching", 0.0))
    point = recalibrate(segmenter.point, report, segmenter.point)
    pool = ModelPool(1, 1, settings.max_image_pixels, lambda folder: segmenter)
    model = ProjectModels(services.registry, settings).of(annotated.number, annotated.config, version)
    teacher = Teacher(model, point, annotated, services.client, services.images, pool)
    return Taught(teacher.teach(spec, settings.home, partial(on_progress, "teaching")), report)
