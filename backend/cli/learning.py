"""`ris finetune` and `export`: queue a job, wait with a progress bar, say what came of it."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from backend.cli.options import JsonOption, ProjectOption
from backend.terminal import out, say, stage_bar

_WAITING = "waiting for the worker"


def finetune(project: ProjectOption, as_json: JsonOption = False) -> None:
    """Learn from a project's corrections now, however few are new."""
    from backend.queue.queue import JobQueue
    from backend.queue.waiting import wait
    from backend.settings import load

    jobs = JobQueue.from_settings(load())
    with stage_bar(_WAITING) as on_progress:
        outcome = wait(jobs, jobs.learn(project, min_new=0).job, on_progress)
    if as_json:
        print(json.dumps(outcome))
        return
    say(f"{outcome['decision']}: {outcome['reason']}")
    if outcome["expressions"]:
        out.print(_comparison(outcome))


def export(
    project: ProjectOption,
    format: Annotated[str, typer.Option(help="coco: images, instances.json, and refs.json with the prompts.")] = "coco",
    name: Annotated[
        Optional[str], typer.Option(help="Folder below .ris/exports.", show_default="project-N-FORMAT")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a project's annotations as a dataset: masks exact, prompts beside them."""
    from backend.home import exports_folder
    from backend.queue.queue import JobQueue
    from backend.queue.waiting import wait
    from backend.settings import load

    settings = load()
    jobs = JobQueue.from_settings(settings)
    folder = name or f"project-{project}-{format}"
    with stage_bar(_WAITING) as on_progress:
        report = wait(jobs, jobs.export(project, format, folder).job, on_progress)
    if as_json:
        print(json.dumps(report))
        return
    counts = f"{report['images']} images, {report['annotations']} masks, {report['refs']} expressions"
    say(f"{counts} in {exports_folder(settings.home) / folder}")
    for skipped in report["skipped"]:
        say(f"Left out: task {skipped['task']}. {skipped['reason']}")


def _comparison(outcome: Mapping[str, Any]) -> Table:
    """The held-out expressions of an outcome, before and after."""
    table = Table("task", "prompt", "before", "after", title="IoU on held-out corrections")
    for row in outcome["expressions"]:
        table.add_row(str(row["task"]), escape(row["prompt"]), f"{row['before']:.2f}", f"{row['after']:.2f}")
    return table
