"""`ris suspects`: corrections that are probably wrong."""

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from backend.cli.options import JsonOption, ProjectOption
from backend.terminal import bar, out, say


def suspects(
    project: ProjectOption,
    count: Annotated[int, typer.Option(min=1, help="Most that are shown.")] = 20,
    pictures: Annotated[
        Optional[Path], typer.Option(help="Folder for pictures of them: both masks on the photo.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List corrections that are probably wrong: the version in production is sure of something else."""
    from backend import services
    from backend.active_learning.label_errors import find_label_errors
    from backend.datasets.snapshots import newest_snapshot
    from backend.settings import load

    settings = load()
    snapshot = newest_snapshot(settings.home, project)
    version = services.registry(settings).current(project)
    with bar("Looking", None) as on_progress:
        errors = find_label_errors(version.folder, snapshot, count, pictures, on_progress).as_json()
    for suspect in errors["suspects"]:
        suspect["link"] = f"{settings.label_studio_url}/projects/{project}/data?task={suspect['task']}"
    if as_json:
        print(json.dumps({"project": project, **errors}))
        return
    if not errors["suspects"]:
        say(f"None of {errors['corrections']} corrections looks wrong to {version.name}.")
        return
    out.print(_table(version.name, errors["suspects"]))
    # Below the table: a link that a narrow column breaks leads nowhere.
    for link in dict.fromkeys(suspect["link"] for suspect in errors["suspects"]):
        say(f"Look at {link}")
    for path in errors["pictures"]:
        say(f"Look at {path}")


def _table(version: str, suspects: list[dict[str, Any]]) -> Table:
    table = Table("task", "prompt", f"{version} says", "IoU", "score", title="Corrections to look at again")
    for suspect in suspects:
        iou = "" if suspect["iou"] is None else f"{suspect['iou']:.2f}"
        table.add_row(str(suspect["task"]), escape(suspect["prompt"]), suspect["says"], iou, f"{suspect['score']:.2f}")
    return table
