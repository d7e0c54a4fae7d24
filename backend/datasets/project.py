"""A project of Label Studio as it is annotated now: read whole, and kept as a snapshot."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from backend.datasets.annotations import Correction, Corrections, SkippedTask, read_corrections
from backend.datasets.edits import EditLedger, measure_edits
from backend.datasets.snapshots import Snapshot, build_snapshot
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import Credentials, ImageResolver, project_credentials
from backend.labelstudio.label_config import Defaults, LabelConfig, parse
from ris_core.images import MAX_PIXELS


@dataclass(frozen=True)
class AnnotatedProject:
    """What Label Studio holds of a project at one moment. credentials: for the hosts of its images."""

    number: int
    config: LabelConfig
    corrections: Corrections
    credentials: Credentials | None


def read_project(client: LabelStudio, project: int, home: Path, defaults: Defaults | None = None) -> AnnotatedProject:
    """A project's interface, all that its annotations say, and what was done to the predictions.

    Predictions are asked for where that isn't known yet; below home it is kept. Raises ConfigError if its interface
    can't carry masks, and LabelStudioError.
    """
    described = client.project(project)
    config = parse(described["label_config"], defaults)
    corrections = read_corrections(client.annotated_tasks(project), config)
    ledger = EditLedger(home, project)
    return AnnotatedProject(
        number=project,
        config=config,
        corrections=_without_shapes(
            measure_edits(corrections, ledger, lambda ids: client.predictions_of(project, ids), config)
        ),
        credentials=project_credentials(described),
    )


def _without_shapes(corrections: Corrections) -> Corrections:
    """The corrections without those in which there is nothing but shapes: they would look as if nothing were there."""
    alone = [item for item in corrections.items if item.shapes and not (item.objects or item.expressions)]
    skipped = [SkippedTask(item.task, remark) for item in alone for remark in item.remarks]
    return Corrections(
        tuple(item for item in corrections.items if item not in alone),
        tuple(sorted((*corrections.skipped, *skipped), key=lambda task: task.task)),
    )


def snapshot_project(
    project: AnnotatedProject,
    images: ImageResolver,
    home: Path,
    max_pixels: int = MAX_PIXELS,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Snapshot:
    """`build_snapshot` of a project that has been read.

    on_progress: called before each image is fetched with the share of them that is done, [0, 1).
    """
    number = count()

    def fetch(correction: Correction) -> bytes:
        on_progress(next(number) / len(project.corrections.items))
        return images.fetch(correction.image, correction.task, project.credentials)

    return build_snapshot(project.number, project.corrections, project.config, fetch, home, max_pixels=max_pixels)
