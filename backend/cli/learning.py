"""What `ris finetune`, `export` and `job` do: queue a job, wait with a progress bar, say what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from backend.errors import BackendError, NotFound
from backend.queue import queue
from backend.settings import Settings

out, err = Console(highlight=False), Console(stderr=True, highlight=False)

_POLL_SECONDS = 0.3
_ENDED = ("finished", "failed", "stopped", "canceled")


class JobFailed(BackendError):
    """A job came to an end without a result."""

    code = "job_failed"


def open_jobs(settings: Settings) -> queue.JobQueue:
    """The job queue, as a command uses it. Raises SettingsError if Valkey's address isn't set."""
    return queue.JobQueue(queue.connect(settings.secret("redis_url")))


def finetune(settings: Settings, project: int, as_json: bool) -> None:
    """Learn now, with however many corrections are new."""
    jobs = open_jobs(settings)
    outcome = wait(jobs, jobs.learn_now(project).job)
    if as_json:
        print(json.dumps(outcome))
        return
    out.print(f"{outcome['decision']}: {outcome['reason']}", markup=False)
    if outcome["expressions"]:
        out.print(comparison(outcome))


def export(settings: Settings, project: int, form: str, name: str | None, as_json: bool) -> None:
    """Export a project to a folder below the home folder."""
    jobs = open_jobs(settings)
    folder = name or f"project-{project}-{form}"
    report = wait(jobs, jobs.export(project, form, folder).job)
    if as_json:
        print(json.dumps(report))
        return
    counts = f"{report['images']} images, {report['annotations']} masks, {report['refs']} expressions"
    out.print(f"{counts} in {settings.home / 'exports' / folder}", markup=False)
    for skipped in report["skipped"]:
        out.print(f"Left out: task {skipped['task']}. {skipped['reason']}", markup=False)


def show_job(settings: Settings, job: str) -> None:
    """Print what is known of a job, as JSON."""
    print(json.dumps(open_jobs(settings).describe(job), indent=2))


def wait(jobs: queue.JobQueue, job: str) -> dict[str, Any]:
    """The result of a job, once it has one; until then its stage and how far it is, on standard error.

    Raises:
        JobFailed: it ended without one.
        Unavailable: Valkey can't be reached.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        line = progress.add_task("waiting for the worker", total=1.0)
        while True:
            state = jobs.describe(job)
            if state["status"] in _ENDED:
                return _result(job, state)
            if state["progress"]:
                progress.update(line, description=state["progress"]["stage"], completed=state["progress"]["share"])
            time.sleep(_POLL_SECONDS)


def comparison(outcome: Mapping[str, Any]) -> Table:
    """The held-out expressions of an outcome, before and after."""
    table = Table("task", "prompt", "before", "after", title="IoU on held-out corrections")
    for row in outcome["expressions"]:
        table.add_row(str(row["task"]), row["prompt"], f"{row['before']:.2f}", f"{row['after']:.2f}")
    return table


def _result(job: str, state: Mapping[str, Any]) -> dict[str, Any]:
    if state["status"] != "finished":
        error = state["error"] or {}
        raise JobFailed(f"Job {job} {state['status']}. {error.get('message', 'Its log says why.')}")
    if not isinstance(state["result"], dict):
        raise NotFound(f"Job {job} has finished, but its result has expired.")
    return state["result"]
