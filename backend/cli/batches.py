"""What `ris prelabel`, `jobs`, `cancel` and `resume` do: order a batch, follow it, say what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from backend import services
from backend.active_learning.pair_store import PairStore
from backend.active_learning.task_scores import NothingToRank, corrections_by_prompt, rescore, scored
from backend.batches.service import BatchService
from backend.batches.store import Batch, BatchSpec
from backend.errors import BackendError
from backend.labelstudio.client import LabelStudio
from backend.settings import Settings, load
from backend.terminal import bar, err, out

_POLL_SECONDS = 0.5
_SHOWN_REASONS = 10


class BatchStopped(BackendError):
    """A batch came to an end before all of its tasks were done."""

    code = "batch_stopped"


def prelabel(
    project: int,
    view: int | None,
    prompts: Sequence[str],
    label: str | None,
    force: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Have a project's tasks predicted in the background, and wait for it unless `detach`."""
    settings = load()
    batches = services.prelabelling(settings)
    batch = _order(settings, batches, project, view, [(prompt, label) for prompt in prompts], force)
    if detach:
        if as_json:
            print(json.dumps(batch.as_json()))
        else:
            out.print(f"Batch {batch.id}: {batch.total} tasks. See: ris jobs", markup=False)
        return
    _report(follow(batches, batch.id), as_json)


def follow(batches: BatchService, name: str) -> Batch:
    """Wait until a batch has come to its end, with a progress bar on standard error."""
    batch = batches.get(name, reasons=False)
    try:
        with bar(f"batch {name}", batch.total) as progress:
            while batch.state in ("listing", "running"):
                progress(batch.handled, batch.total, _detail(batch, batches))
                time.sleep(_POLL_SECONDS)
                batch = batches.get(name, reasons=False)
    except KeyboardInterrupt:
        err.print(f"The batch goes on in the background: ris jobs, ris cancel {name}", markup=False)
        raise
    return batches.get(name)


def cancel(settings: Settings, name: str) -> None:
    """Stop a batch."""
    batch = services.prelabelling(settings).cancel(name)
    out.print(f"Batch {name} is {batch.state}: {_counts(batch)}. Go on with: ris resume {name}", markup=False)


def resume(settings: Settings, name: str) -> None:
    """Go on with a batch that was cancelled, or try again what failed."""
    batch = services.prelabelling(settings).resume(name)
    out.print(f"Batch {name} is {batch.state}: {_counts(batch)}.", markup=False)


def refresh(settings: Settings, project: int) -> None:
    """Have the version in production predict anew what isn't annotated, as after a promotion."""
    with LabelStudio.from_settings(settings) as client:
        batch = services.refresh(settings, client).begin(project)
    then = f"Once it is done, Label Studio goes by {batch.order.version}. "
    if not settings.of_project(project).prelabel_refresh:
        then = "RIS_PRELABEL_REFRESH is off, so Label Studio isn't told to go by them. "
    out.print(f"Batch {batch.id}: {batch.total} tasks. {then}See: ris jobs", markup=False, soft_wrap=True)


def rank(settings: Settings, project: int, strategy: str | None, as_json: bool) -> None:
    """Write the scores of a project's predictions anew, by the project's strategy unless given; nothing is predicted.

    Raises NothingToRank where no task is predicted, or what ranking takes isn't kept.
    """
    strategy = strategy or settings.prelabel_score
    with LabelStudio.from_settings(settings) as client:
        described = client.project(project)
        answers = services.answers(settings)
        version = answers.of(project, answers.read(project, described["label_config"])).name
        found = [each for task in client.predicted_tasks(project) if (each := scored(task, version))]
        pairs = PairStore(settings.home).read(project, version)
        if not found or not pairs:
            missing = "No task is predicted" if not found else "What ranking takes isn't kept of the predictions"
            advice = "" if not found else " --force"
            raise NothingToRank(f"{missing} by {version}. Predict first: ris prelabel --project {project}{advice}")
        open_tasks = sum(not each.annotated for each in found)
        with bar(f"{strategy} of {open_tasks} tasks", open_tasks) as tell:
            changed = rescore(
                found, pairs, strategy, corrections_by_prompt(settings.home, project), _Change(client, tell)
            )
    ordered = described.get("model_version") == version
    if as_json:
        counts = {"tasks": len(found), "open": open_tasks, "changed": changed}
        print(json.dumps({"project": project, "version": version, "strategy": strategy, **counts, "ordered": ordered}))
        return
    out.print(f"{open_tasks} tasks are ranked by {strategy}; {changed} scores are new.", markup=False)
    if not ordered:
        out.print(
            f"Label Studio doesn't order by {version} yet: ris refresh --project {project} tells it to.", markup=False
        )


class _Change:
    """Writes scores one by one, and tells how many."""

    def __init__(self, client: LabelStudio, tell: Callable[[int], object]) -> None:
        self._client, self._tell = client, tell
        self._done = 0

    def __call__(self, prediction: int, score: float) -> None:
        self._client.update_score(prediction, score)
        self._done += 1
        self._tell(self._done)


def show(settings: Settings, as_json: bool) -> None:
    """List the batches and the jobs of the workers; as JSON also why tasks were left out."""
    batches = services.prelabelling(settings)
    known, jobs, workers = batches.all(), batches.jobs(), batches.workers()
    if as_json:
        listed = [(batches.get(batch.id) if batch.failed else batch).as_json() for batch in known]
        print(json.dumps({"workers": workers, "batches": listed, "jobs": jobs}))
        return
    out.print(_table_of_batches(known))
    out.print(_table_of_jobs(jobs))
    out.print(f"Workers: {', '.join(f'{count} for {kind}' for kind, count in workers.items())}.")


def _order(
    settings: Settings,
    batches: BatchService,
    project: int,
    view: int | None,
    prompts: list[tuple[str, str | None]],
    force: bool,
) -> Batch:
    with LabelStudio.from_settings(settings) as client:
        answers = services.answers(settings)
        config = answers.read(project, client.project(project)["label_config"])
        answering = answers.of(project, config)
        # Now, and not in a worker an hour later, is the time to say that one can't be asked.
        answering.given(prompts)
        order = BatchSpec(
            project,
            answering.version.name,
            answering.name,
            tuple(prompts),
            # Who gives prompts wants them asked, whatever was asked before.
            force=force or bool(prompts),
            view=view,
        )
        return batches.order(order, client.task_ids(project, view))


def _report(batch: Batch, as_json: bool) -> None:
    if as_json:
        print(json.dumps(batch.as_json()))
    else:
        out.print(f"Batch {batch.id}: {_counts(batch)}.", markup=False)
        for task, reason in list(batch.reasons.items())[:_SHOWN_REASONS]:
            out.print(f"Left out: task {task}. {reason}", markup=False)
        if len(batch.reasons) > _SHOWN_REASONS:
            out.print(f"and {len(batch.reasons) - _SHOWN_REASONS} more: ris jobs --json")
    if batch.state != "done":
        raise BatchStopped(f"Batch {batch.id} was stopped. {batch.note} Go on with: ris resume {batch.id}")


def _counts(batch: Batch) -> str:
    counts = [f"{batch.done} of {batch.total} tasks predicted"]
    if batch.skipped:
        counts.append(f"{batch.skipped} needed none")
    if batch.failed:
        counts.append(f"{batch.failed} left out")
    return ", ".join(counts)


def _detail(batch: Batch, batches: BatchService) -> str:
    if batch.note:
        return batch.note
    waits = batch.handled == 0 and not batches.workers()["batches"]
    return (
        "no worker runs: start one with `ris worker`" if waits else f"{batch.failed} left out" if batch.failed else ""
    )


def _table_of_batches(batches: Sequence[Batch]) -> Table:
    table = Table(
        "batch", "project", "started by", "state", "done", "needed none", "left out", "of", "a second", "left", "note",
        title="Batches",
    )  # fmt: skip
    for batch in batches:
        fields = batch.as_json()
        left = fields["seconds_left"] if batch.state == "running" else None
        table.add_row(
            batch.id,
            str(batch.order.project),
            batch.order.origin,
            batch.state,
            *map(str, (batch.done, batch.skipped, batch.failed, batch.total)),
            f"{batch.rate:.1f}",
            "" if left is None else _duration(left),
            batch.note,
        )
    return table


def _table_of_jobs(jobs: Sequence[dict[str, Any]]) -> Table:
    table = Table("job", "does", "status", "queued", "progress", title="Jobs")
    for job in jobs:
        progress, error = job.get("progress"), job.get("error") or {}
        stage = f"{progress['stage']} {progress['share']:.0%}" if progress else error.get("message", "")
        table.add_row(job["id"], job.get("function", ""), job["status"], _ago(job.get("queued")), stage)
    return table


def _ago(when: str | None) -> str:
    if when is None:
        return ""
    queued = datetime.fromisoformat(when)
    return f"{_duration((datetime.now(UTC) - queued).total_seconds())} ago"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
