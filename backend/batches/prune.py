"""Old predictions in Label Studio, deleted on request: they are what makes a large project slow.

Only predictions of ours go: those whose version is named as the registry names versions. Kept are those of the version
in production, of the version that Label Studio orders by, and those that an annotation names as its parent.

A version that no annotation names goes in one request, else each prediction in its own. Killed, or without an answer:
run it again, which finds what is left.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from backend.errors import LabelStudioNotFound
from backend.labelstudio.client import LabelStudio
from ris_core.checkpoint_files import DESIGNS, ZERO_SHOT

_OURS = re.compile(rf"(?:{'|'.join(map(re.escape, DESIGNS + ZERO_SHOT))})-[0-9a-f]{{8}}(?:[.#].*)?")


@dataclass(frozen=True)
class OldVersion:
    """A version whose predictions can go. predictions: their ids. parents: how many of its own stay."""

    name: str
    predictions: tuple[int, ...]
    parents: int


def is_old(name: str, production: str, ordered_by: str | None) -> bool:
    """Whether predictions called so are ours, and of a version that is in use nowhere."""
    return bool(_OURS.fullmatch(name)) and re.split("[.#]", name)[0] != production and name != ordered_by


def find_old(client: LabelStudio, project: int, production: str) -> list[OldVersion]:
    """What can go of a project's predictions, now that `production` is in production. Raises LabelStudioError."""
    ordered_by = client.project(project).get("model_version")
    names = [name for name in client.model_versions(project) if is_old(name, production, ordered_by)]
    spare: dict[str, list[int]] = {name: [] for name in names}
    parents = dict.fromkeys(names, 0)
    for task in client.predicted_tasks(project) if names else ():
        needed = {annotation.get("parent_prediction") for annotation in task.get("annotations") or []}
        for prediction in task.get("predictions") or []:
            version = prediction["model_version"]
            if version in spare and prediction["id"] in needed:
                parents[version] += 1
            elif version in spare:
                spare[version].append(int(prediction["id"]))
    return [OldVersion(name, tuple(ids), parents[name]) for name, ids in spare.items()]


def delete_old(
    client: LabelStudio,
    project: int,
    versions: Sequence[OldVersion],
    on_progress: Callable[[int, int, str], object] = lambda done, total, version: None,
) -> None:
    """Delete what `find_old` found. Raises LabelStudioError.

    on_progress: hears how many predictions are deleted, of how many, and of which version the last one was.
    """
    ordered_by = _ordered_by(client, project)
    done, total = 0, sum(len(version.predictions) for version in versions)
    for version in versions:
        if not version.parents:
            client.delete_predictions(project, version.name)
            # With such a request Label Studio forgets what a project goes by.
            if ordered_by is not None and client.project(project).get("model_version") != ordered_by:
                client.update_project(project, model_version=ordered_by)
            done += len(version.predictions)
            on_progress(done, total, version.name)
            continue
        for prediction in version.predictions:
            with suppress(LabelStudioNotFound):
                client.delete_prediction(prediction)
            done += 1
            on_progress(done, total, version.name)


def _ordered_by(client: LabelStudio, project: int) -> str | None:
    """What the project goes by. Where a run of this was killed, Label Studio left None: then it is its own default."""
    name = client.project(project).get("model_version")
    if name is not None:
        return str(name)
    backends = client.ml_backends(project)
    return str(backends[0]["title"]) if backends else None
