"""A project of Label Studio as it is annotated now: read whole, and kept as a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from backend.datasets.annotations import Correction, Corrections, read_corrections
from backend.datasets.edits import Ledger, measured
from backend.datasets.snapshots import Snapshot, build_snapshot
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import Credentials, ImageResolver
from backend.labelstudio.label_config import LabelConfig, parse
from ris_core.images import MAX_PIXELS


@dataclass(frozen=True)
class AnnotatedProject:
    """What Label Studio holds of a project at one moment. credentials: for the hosts of its pictures."""

    number: int
    config: LabelConfig
    corrections: Corrections
    credentials: Credentials | None


def read_project(client: LabelStudio, project: int, home: Path) -> AnnotatedProject:
    """A project's interface, all that its annotations say, and what was done to the predictions.

    Predictions are asked for where that isn't known yet; below home it is kept.

    Raises:
        ConfigError: its interface can't carry masks.
        LabelStudioError: Label Studio can't be reached, or refuses.
    """
    answer = client.project(project)
    config = parse(answer["label_config"])
    login, password = answer.get("task_data_login"), answer.get("task_data_password")
    corrections = read_corrections(client.annotated_tasks(project), config)
    ledger = Ledger(home, project)
    return AnnotatedProject(
        number=project,
        config=config,
        corrections=measured(corrections, ledger, lambda ids: client.predictions_of(project, ids), config),
        credentials=(login, password) if login and password else None,
    )


def snapshot_project(
    project: AnnotatedProject,
    images: ImageResolver,
    home: Path,
    max_pixels: int = MAX_PIXELS,
    report: Callable[[float], None] = lambda share: None,
) -> Snapshot:
    """`build_snapshot` of a project that has been read. `report` hears before each picture the share of them done."""
    number = count()

    def fetch(correction: Correction) -> bytes:
        report(next(number) / len(project.corrections.items))
        return images.fetch(correction.image, correction.task, project.credentials)

    return build_snapshot(project.number, project.corrections, project.config, fetch, home, max_pixels=max_pixels)
