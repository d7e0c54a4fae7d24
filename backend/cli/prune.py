"""Old predictions in Label Studio, deleted on request: they are what makes a large project slow.

Only predictions of ours go: those whose version is named as the registry names versions. Kept are those of the version
in production, of the version that Label Studio orders by, and those that an annotation names as its parent.

A version that no annotation names goes in one request, else each prediction in its own. Killed, or without an answer:
run it again, which finds what is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from backend import services
from backend.errors import LabelStudioNotFound
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.responses import Json
from backend.settings import Settings
from backend.terminal import bar, out
from ris_core.models import MODELS

_OURS = re.compile(rf"(?:{'|'.join(MODELS)})-[0-9a-f]{{8}}(?:[.#].*)?")


@dataclass(frozen=True)
class OldVersion:
    """A version whose predictions can go. predictions: their ids. parents: how many of its own stay."""

    name: str
    predictions: tuple[int, ...]
    parents: int


def prune_predictions(settings: Settings, project: int, delete: bool) -> None:
    """Show which predictions nothing needs any more; delete them if that is wanted."""
    production = services.registry(settings).production(project)
    with LabelStudio.from_settings(settings) as client:
        ordered_by = client.project(project).get("model_version")
        names = [name for name in client.model_versions(project) if is_old(name, production, ordered_by)]
        found = old_versions(client.predicted_tasks(project), names) if names else []
        if delete:
            delete_old(client, project, found)
    for each in found:
        kept = f"; {each.parents} that annotations were made from stay" if each.parents else ""
        out.print(f"{each.name}: {len(each.predictions)} predictions{kept}", highlight=False)
    total = sum(len(each.predictions) for each in found)
    if delete:
        out.print(f"Deleted: {total} predictions.", highlight=False)
    else:
        advice = " --yes deletes them." if total else ""
        out.print(f"Not needed any more: {total} predictions.{advice}", highlight=False)


def is_old(name: str, production: str, ordered_by: str | None) -> bool:
    """Whether predictions called so are ours, and of a version that is in use nowhere."""
    return bool(_OURS.fullmatch(name)) and re.split("[.#]", name)[0] != production and name != ordered_by


def old_versions(tasks: Iterable[Json], names: Iterable[str]) -> list[OldVersion]:
    """What can go of the named versions, from tasks with predictions and annotations."""
    spare: dict[str, list[int]] = {name: [] for name in names}
    parents = dict.fromkeys(spare, 0)
    for task in tasks:
        named = {each.get("parent_prediction") for each in task.get("annotations") or []}
        for prediction in task.get("predictions") or []:
            version = prediction["model_version"]
            if version not in spare:
                continue
            if prediction["id"] in named:
                parents[version] += 1
            else:
                spare[version].append(int(prediction["id"]))
    return [OldVersion(name, tuple(ids), parents[name]) for name, ids in spare.items()]


def delete_old(client: LabelStudio, project: int, found: Iterable[OldVersion]) -> None:
    """Delete what `old_versions` found. Raises LabelStudioError."""
    ordered_by = _ordered_by(client, project)
    for each in found:
        if not each.parents:
            client.delete_predictions(project, each.name)
            _restore(client, project, ordered_by)
            continue
        with bar(f"Deleting {each.name}", len(each.predictions)) as tell:
            for done, prediction in enumerate(each.predictions, 1):
                with suppress(LabelStudioNotFound):
                    client.delete_prediction(prediction)
                tell(done)


def _ordered_by(client: LabelStudio, project: int) -> str | None:
    """What the project goes by. Where a run of this was killed, Label Studio left None: then it is its own default."""
    name = client.project(project).get("model_version")
    if name is not None:
        return str(name)
    backends = client.ml_backends(project)
    return str(backends[0]["title"]) if backends else None


def _restore(client: LabelStudio, project: int, ordered_by: str | None) -> None:
    if ordered_by is not None and client.project(project).get("model_version") != ordered_by:
        client.update_project(project, model_version=ordered_by)
