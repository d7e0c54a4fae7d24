"""What `ris finetune`, `export` and `job` do: queue a job, wait with a progress bar, say what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from backend.queue.queue import JobQueue
from backend.queue.waiting import wait
from backend.settings import Settings
from backend.terminal import stage_bar

out = Console(highlight=False)


def finetune(settings: Settings, project: int, as_json: bool) -> None:
    """Learn now, with however many corrections are new."""
    jobs = JobQueue.from_settings(settings)
    with stage_bar("waiting for the worker") as on_progress:
        outcome = wait(jobs, jobs.learn_now(project).job, on_progress)
    if as_json:
        print(json.dumps(outcome))
        return
    out.print(f"{outcome['decision']}: {outcome['reason']}", markup=False)
    if outcome["expressions"]:
        out.print(comparison(outcome))


def export(settings: Settings, project: int, form: str, name: str | None, as_json: bool) -> None:
    """Export a project to a folder below the home folder."""
    jobs = JobQueue.from_settings(settings)
    folder = name or f"project-{project}-{form}"
    with stage_bar("waiting for the worker") as on_progress:
        report = wait(jobs, jobs.export(project, form, folder).job, on_progress)
    if as_json:
        print(json.dumps(report))
        return
    counts = f"{report['images']} images, {report['annotations']} masks, {report['refs']} expressions"
    out.print(f"{counts} in {settings.home / 'exports' / folder}", markup=False)
    for skipped in report["skipped"]:
        out.print(f"Left out: task {skipped['task']}. {skipped['reason']}", markup=False)


def show_job(settings: Settings, job: str) -> None:
    """Print what is known of a job, as JSON."""
    print(json.dumps(JobQueue.from_settings(settings).describe(job), indent=2))


def comparison(outcome: Mapping[str, Any]) -> Table:
    """The held-out expressions of an outcome, before and after."""
    table = Table("task", "prompt", "before", "after", title="IoU on held-out corrections")
    for row in outcome["expressions"]:
        table.add_row(str(row["task"]), row["prompt"], f"{row['before']:.2f}", f"{row['after']:.2f}")
    return table
