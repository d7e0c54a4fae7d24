"""Commands that are still to move into their areas."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from backend.cli.options import BatchArgument, JsonOption, ProjectOption, VersionArgument


class Ranked(StrEnum):
    """What scores can go by; see backend/active_learning/strategies.py."""

    confidence = "confidence"
    uncertainty = "uncertainty"
    disagreement = "disagreement"
    diversity = "diversity"
    coverage = "coverage"
    random = "random"
    mixed = "mixed"


def connect(
    project: Annotated[Optional[int], typer.Option(help="Number of a project that is there already.")] = None,
    title: Annotated[Optional[str], typer.Option(help="Title of the project; it is made if there is none.")] = None,
    config: Annotated[
        Optional[Path],
        typer.Option(help="File with the new project's labelling interface.", show_default="the sample's"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Connect the backend to a project of Label Studio; again: check the connection."""
    from backend.cli import projects
    from backend.settings import load

    projects.connect_project(load(), project, title, config, json)


def prompts(
    project: ProjectOption,
    set: Annotated[
        Optional[list[str]], typer.Option(help='LABEL="a prompt | another": how a label is asked for.')
    ] = None,
    negative: Annotated[
        Optional[list[str]], typer.Option(help='LABEL="a prompt": what is taken away from its masks.')
    ] = None,
    alias: Annotated[Optional[list[str]], typer.Option(help='LABEL="a name": what else it is called.')] = None,
    file: Annotated[
        Optional[Path], typer.Option(help="A whole sheet, .json or .csv, instead of what is there.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Begin with an empty sheet.")] = False,
    json: JsonOption = False,
) -> None:
    """Show or change the prompts that a project's batches ask for; LABEL= takes a label's away."""
    from backend.cli import projects
    from backend.settings import load

    projects.edit_prompts(load(project), project, set or [], negative or [], alias or [], file, clear, json)


def finetune(project: ProjectOption, json: JsonOption = False) -> None:
    """Learn from a project's corrections now, however few are new."""
    from backend.cli import learning
    from backend.settings import load

    learning.finetune(load(), project, json)


def corrections(project: ProjectOption, json: JsonOption = False) -> None:
    """Say how annotators took the predictions: accepted, corrected, drawn by hand or absent, by label and version."""
    from backend.cli import acceptance
    from backend.settings import load

    acceptance.show(load(), project, json)


def export(
    project: ProjectOption,
    format: Annotated[str, typer.Option(help="coco: images, instances.json, and refs.json with the prompts.")] = "coco",
    name: Annotated[
        Optional[str], typer.Option(help="Folder below .ris/exports.", show_default="project-N-FORMAT")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Export a project's annotations as a dataset: masks exact, prompts beside them."""
    from backend.cli import learning
    from backend.settings import load

    learning.export(load(), project, format, name, json)


def prelabel(
    project: ProjectOption,
    view: Annotated[
        Optional[int], typer.Option(help="Number of a tab of the project: what it shows, or what is ticked in it.")
    ] = None,
    prompt: Annotated[
        Optional[list[str]], typer.Option(help="Ask this of every task, instead of its own. Give it again for more.")
    ] = None,
    label: Annotated[
        Optional[str], typer.Option(help="Label of what is found.", show_default="the prompt names it")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Predict again what the version has predicted.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Don't wait.")] = False,
    json: JsonOption = False,
) -> None:
    """Predict a project's tasks in the background, however many they are."""
    from backend.cli import batches

    batches.prelabel(project, view, prompt or [], label, force, detach, json)


def refresh(project: ProjectOption) -> None:
    """Predict anew, by the version in production, all that isn't annotated; then Label Studio orders tasks by that."""
    from backend.cli import batches
    from backend.settings import load

    batches.refresh(load(), project)


def rank(
    project: ProjectOption,
    strategy: Annotated[
        Optional[Ranked], typer.Option(help="What is to be labelled first.", show_default="RIS_PRELABEL_SCORE")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Order a project's tasks by what to label next: new scores for its predictions, without predicting."""
    from backend.cli import batches
    from backend.settings import load

    batches.rank(load(project), project, strategy and strategy.value, json)


def jobs(json: JsonOption = False) -> None:
    """List what is pre-labelled in the background, and the workers' jobs."""
    from backend.cli import batches
    from backend.settings import load

    batches.show(load(), json)


def cancel(batch: BatchArgument) -> None:
    """Stop pre-labelling a batch; what is predicted stays."""
    from backend.cli import batches
    from backend.settings import load

    batches.cancel(load(), batch)


def resume(batch: BatchArgument) -> None:
    """Go on with a batch that was cancelled, or try again what failed in one."""
    from backend.cli import batches
    from backend.settings import load

    batches.resume(load(), batch)


def job(job: Annotated[str, typer.Argument(help="A job's id, see `ris jobs`.")]) -> None:
    """Show how a job goes, as JSON."""
    from backend.cli import learning
    from backend.settings import load

    learning.show_job(load(), job)


def versions(project: ProjectOption, json: JsonOption = False) -> None:
    """List a project's versions of the model: what each came from, what the gate said, which is in production."""
    from backend.cli import versions as services
    from backend.settings import load

    services.list_versions(load(), project, json)


def promote(version: VersionArgument, project: ProjectOption) -> None:
    """Put a version into production, whatever the gate said of it."""
    from backend.cli import versions as services
    from backend.settings import load

    services.promote(load(), project, version)


def rollback(project: ProjectOption) -> None:
    """Take the version in production back: the one before it serves again. Once more: the one before that."""
    from backend.cli import versions as services
    from backend.settings import load

    services.rollback(load(), project)


def compare(
    before: VersionArgument,
    after: VersionArgument,
    project: ProjectOption,
    out: Annotated[Optional[Path], typer.Option(help="Folder for pictures of what changed most.")] = None,
    json: JsonOption = False,
) -> None:
    """Compare two versions on the held-out expressions of the newest snapshot."""
    from backend.cli import versions as services
    from backend.settings import load

    services.compare(load(project), project, (before, after), out, json)


def prune(
    project: ProjectOption,
    keep: Annotated[int, typer.Option(min=0, help="Versions to keep beside those that are needed.")] = 3,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only show what would go.")] = False,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Old predictions in Label Studio instead of versions.")
    ] = False,
) -> None:
    """Delete old versions and the snapshots that only they came from; what serves or may serve again stays."""
    from backend.cli import prune
    from backend.cli import versions as services
    from backend.settings import load

    if predictions:
        prune.prune_predictions(load(), project, yes)
    else:
        services.prune(load(), project, keep, yes)


def suspects(
    project: ProjectOption,
    count: Annotated[int, typer.Option(min=1, help="Most that are shown.")] = 20,
    pictures: Annotated[
        Optional[Path], typer.Option(help="Folder for pictures of them: both masks on the photo.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List corrections that are probably wrong: the version in production is sure of something else."""
    from backend.cli import label_errors as services
    from backend.settings import load

    services.show_suspects(load(), project, count, pictures, json)
