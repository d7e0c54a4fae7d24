"""`ris prelabel`, `refresh`, `rank`, `cancel` and `resume`: predictions of many tasks, made in the background."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from backend.cli.options import BatchArgument, JsonOption, ProjectOption, label_studio
from backend.terminal import bar, err, say

if TYPE_CHECKING:
    from backend.batches.service import BatchService
    from backend.batches.store import Batch

_SHOWN_REASONS = 10

RankedBy = Literal["confidence", "uncertainty", "disagreement", "diversity", "coverage", "random", "mixed"]
"""What scores can go by, as in RIS_PRELABEL_SCORE; not taken from there, since help is to be quick."""


def prelabel(
    project: ProjectOption,
    view: Annotated[
        Optional[int], typer.Option(help="Number of a tab of the project: what it shows, or what is ticked in it.")
    ] = None,
    prompts: Annotated[
        Optional[list[str]],
        typer.Option("--prompt", help="Ask this of every task, instead of its own. Give it again for more."),
    ] = None,
    label: Annotated[
        Optional[str], typer.Option(help="Label of what is found.", show_default="the prompt names it")
    ] = None,
    model: Annotated[
        Optional[str],
        typer.Option(
            metavar="VERSION", help="Version of the project, or zero-shot segmenter.", show_default="in production"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Predict again what the version has predicted.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Don't wait.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Predict a project's tasks in the background, however many they are."""
    from backend import services
    from backend.batches.service import BatchStopped, submit_project
    from backend.learning.versions import plain_name

    labelled = [(prompt, label) for prompt in prompts or []]
    with label_studio() as (settings, client):
        batches, models = services.batch_service(settings), services.project_models(settings)
        version = services.registry(settings).find(project, plain_name(model)) if model else None
        batch = submit_project(batches, client, models, project, labelled, view=view, force=force, version=version)
    if not detach:
        batch = _follow(batches, batch)
    if as_json:
        print(json.dumps(batch.as_json()))
    elif detach:
        say(f"Batch {batch.id}: {batch.total} tasks. See: ris jobs")
    else:
        _say_what_came_of(batch)
    if not detach and batch.state != "done":
        raise BatchStopped(f"Batch {batch.id} was stopped. {batch.note} Go on with: ris resume {batch.id}")


def refresh(project: ProjectOption, as_json: JsonOption = False) -> None:
    """Predict anew, by the version in production, all that isn't annotated; then Label Studio orders tasks by that."""
    from backend import services

    with label_studio() as (settings, client):
        batch = services.rollout(settings, client).begin(project)
    if as_json:
        print(json.dumps(batch.as_json()))
        return
    then = f"Once it is done, Label Studio goes by {batch.spec.version}. "
    if not settings.of_project(project).prelabel_refresh:
        then = "RIS_PRELABEL_REFRESH is off, so Label Studio isn't told to go by them. "
    say(f"Batch {batch.id}: {batch.total} tasks. {then}See: ris jobs")


def rank(
    project: ProjectOption,
    strategy: Annotated[
        Optional[RankedBy], typer.Option(help="What is to be labelled first.", show_default="RIS_PRELABEL_SCORE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Order a project's tasks by what to label next: new scores for its predictions, without predicting."""
    from backend import services
    from backend.active_learning.task_scores import rank_project

    with label_studio(project) as (settings, client):
        chosen, models = strategy or settings.prelabel_score, services.project_models(settings)
        version = models.of_interface(project, client.project(project)["label_config"]).name
        with bar(f"Ranking by {chosen}", None) as on_progress:
            ranking = rank_project(client, settings.home, project, version, chosen, on_progress)
    if as_json:
        print(json.dumps(asdict(ranking)))
        return
    say(f"{ranking.open} tasks are ranked by {ranking.strategy}; {ranking.changed} scores are new.")
    if not ranking.ordered:
        say(f"Label Studio doesn't order by {version} yet: ris refresh --project {project} tells it to.")


def cancel(batch: BatchArgument, as_json: JsonOption = False) -> None:
    """Stop pre-labelling a batch; what is predicted stays."""
    from backend import services
    from backend.settings import load

    _say_state(services.batch_service(load()).cancel(batch), as_json, f" Go on with: ris resume {batch}")


def resume(batch: BatchArgument, as_json: JsonOption = False) -> None:
    """Go on with a batch that was cancelled, or try again what failed in one."""
    from backend import services
    from backend.settings import load

    _say_state(services.batch_service(load()).resume(batch), as_json)


def _follow(batches: BatchService, batch: Batch) -> Batch:
    """Wait until a batch has come to its end, with a progress bar on standard error."""
    from backend.batches.service import follow

    try:
        with bar(f"batch {batch.id}", batch.total) as show:
            return follow(batches, batch.id, lambda batch: show(batch.handled, batch.total, _detail(batch, batches)))
    except KeyboardInterrupt:
        err.print(f"The batch goes on in the background: ris jobs, ris cancel {batch.id}", markup=False)
        raise


def _detail(batch: Batch, batches: BatchService) -> str:
    if batch.note:
        return batch.note
    if batch.handled == 0 and not batches.queue.workers()["batches"]:
        return "no worker runs: start one with `ris worker`"
    return f"{batch.failed} left out" if batch.failed else ""


def _say_state(batch: Batch, as_json: bool, advice: str = "") -> None:
    if as_json:
        print(json.dumps(batch.as_json()))
    else:
        say(f"Batch {batch.id} is {batch.state}: {_counts(batch)}.{advice}")


def _say_what_came_of(batch: Batch) -> None:
    say(f"Batch {batch.id}: {_counts(batch)}.")
    for task, reason in list(batch.reasons.items())[:_SHOWN_REASONS]:
        say(f"Left out: task {task}. {reason}")
    if len(batch.reasons) > _SHOWN_REASONS:
        say(f"and {len(batch.reasons) - _SHOWN_REASONS} more: ris jobs --json")


def _counts(batch: Batch) -> str:
    others = {"needed none": batch.skipped, "left out": batch.failed}
    counts = (f", {count} {what}" for what, count in others.items() if count)
    return f"{batch.done} of {batch.total} tasks predicted{''.join(counts)}"
