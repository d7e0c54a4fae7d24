"""`ris finetune`, `distil`, `jobs` and `job`: what the workers are to do, how it goes and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from backend.cli.options import JsonOption, ProjectOption
from backend.terminal import out, say, stage_bar

if TYPE_CHECKING:
    from backend.batches.store import Batch
    from backend.queue.queue import JobQueue, Ticket


def finetune(project: ProjectOption, as_json: JsonOption = False) -> None:
    """Learn from a project's corrections now, however few are new."""
    outcome = result_of(lambda jobs: jobs.learn(project, min_new=0))
    if as_json:
        print(json.dumps(outcome))
        return
    say(f"{outcome['decision']}: {outcome['reason']}")
    if outcome["expressions"]:
        out.print(_comparison(outcome))


def distil(
    project: ProjectOption,
    above: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Learn from answers whose expected IoU is at least this.")
    ] = 0.9,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks to ask about, at most.")] = 500,
    as_json: JsonOption = False,
) -> None:
    """Teach a small model what the one in production says of tasks that nobody annotated, beside all corrections."""
    outcome = result_of(lambda jobs: jobs.distil(project, above, tasks))
    if as_json:
        print(json.dumps(outcome))
        return
    say(f"{outcome['decision']}: {outcome['reason']}")
    if taught := outcome.get("teaching"):
        say(what_was_taught(taught))
        out.print(nearness(taught))


def jobs(as_json: JsonOption = False) -> None:
    """List what is pre-labelled in the background, and the workers' jobs."""
    from backend import services
    from backend.settings import load

    service = services.batch_service(load())
    batches, recent, workers = service.all(), service.queue.recent(), service.queue.workers()
    if as_json:
        listed = [(service.get(batch.id) if batch.failed else batch).as_json() for batch in batches]
        print(json.dumps({"workers": workers, "batches": listed, "jobs": recent}))
        return
    out.print(_table_of_batches(batches))
    out.print(_table_of_jobs(recent))
    out.print(f"Workers: {', '.join(f'{count} for {kind}' for kind, count in workers.items())}.")


def job(job: Annotated[str, typer.Argument(help="A job's id, see `ris jobs`.")], as_json: JsonOption = False) -> None:
    """Show how a job goes: what it does, how far it is, and what came of it."""
    from backend.queue import wording
    from backend.queue.queue import JobQueue
    from backend.settings import load

    described = JobQueue.from_settings(load()).describe(job)
    if as_json:
        print(json.dumps(described))
        return
    for line in wording.sentences(described):
        say(line)


def result_of(order: Callable[[JobQueue], Ticket]) -> dict[str, Any]:
    """Order a job, wait for it and return what came of it."""
    from backend.queue.queue import JobQueue
    from backend.settings import load

    jobs = JobQueue.from_settings(load())
    with stage_bar() as on_progress:
        return jobs.wait(order(jobs).job, on_progress)


def _comparison(outcome: Mapping[str, Any]) -> Table:
    """The held-out expressions of an outcome, before and after."""
    table = Table("task", "prompt", "before", "after", title="IoU on held-out corrections")
    for row in outcome["expressions"]:
        table.add_row(str(row["task"]), escape(row["prompt"]), f"{row['before']:.2f}", f"{row['after']:.2f}")
    return table


def what_was_taught(taught: Mapping[str, Any]) -> str:
    """A sentence about the `teaching` of an outcome."""
    return (
        f"{taught['teacher']} was asked about {taught['tasks']} tasks: {taught['found']} masks and "
        f"{taught['refused']} refusals are worth {taught['above']:.2f} or more, {taught['unsure']} answers aren't."
    )


def nearness(taught: Mapping[str, Any]) -> Table:
    """How near the student is to its teacher on what people said of held-out photos, label by label."""
    student, teacher = taught["seconds"]["student"], taught["seconds"]["teacher"]
    pace = f"{1000 * student:.0f} ms an expression instead of {1000 * teacher:.0f}"
    table = Table("label", "expressions", "teacher", "student", title=f"IoU on held-out corrections; {pace}")
    for row in taught["by_label"]:
        table.add_row(escape(row["label"]), str(row["count"]), f"{row['teacher']:.2f}", f"{row['student']:.2f}")
    return table


def _table_of_batches(batches: Sequence[Batch]) -> Table:
    from backend.batches.wording import outcome

    table = Table(_whole("batch"), "project", "started by", "state", "what came of it", title="Batches")
    for batch in batches:
        spec = batch.spec
        table.add_row(batch.id, str(spec.project), spec.origin, batch.state, escape(outcome(batch)))
    return table


def _whole(name: str) -> Column:
    """What isn't broken where the terminal is narrow: an id in two lines can't be copied."""
    return Column(name, no_wrap=True)


def _table_of_jobs(jobs: Sequence[Mapping[str, Any]]) -> Table:
    from backend.queue import wording

    table = Table(_whole("job"), _whole("status"), _whole("queued"), "what came of it", title="Jobs")
    for job in jobs:
        table.add_row(job["id"], job["status"], wording.ago(job.get("queued")), escape(wording.outcome(job)))
    return table
