"""`ris versions`, `promote`, `rollback`, `compare` and `prune`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from backend.cli.options import JsonOption, ProjectOption, VersionArgument, label_studio
from backend.terminal import bar, out, say, stage_bar

if TYPE_CHECKING:
    from backend.learning.comparison import VersionComparison
    from backend.queue.queue import JobQueue
    from backend.settings import Settings

# Rows of a comparison that are printed.
_ROWS = 30
_MB = 1e6


def versions(project: ProjectOption, as_json: JsonOption = False) -> None:
    """List a project's versions of the model: what each came from, what the gate said, which is in production."""
    from backend import services
    from backend.learning.versions import describe
    from backend.settings import load

    described = describe(services.registry(load()), project)
    if as_json:
        print(json.dumps(described))
        return
    table = Table(title=f"Project {project}")
    for name in ("version", "added (UTC)", "snapshot", "score (held out)", "gate", "serves"):
        # The name alone is typed again.
        table.add_column(name, no_wrap=name == "version")
    for row in described["versions"]:
        table.add_row(*_cells(row), style="bold" if row["production"] else "")
    out.print(table)


def promote(version: VersionArgument, project: ProjectOption, as_json: JsonOption = False) -> None:
    """Put a version into production, whatever the gate said of it."""
    from backend import services
    from backend.learning import versions
    from backend.settings import load

    settings = load()
    change = versions.promote(services.registry(settings), project, version, _queue(settings))
    if as_json:
        print(json.dumps(asdict(change)))
    elif change.changed:
        say(
            f"{change.version} is in production in project {project} now, in place of {change.before}. "
            f"`ris rollback --project {project}` takes it back."
        )
    else:
        say(f"{change.version} is in production in project {project} already.")


def rollback(project: ProjectOption, as_json: JsonOption = False) -> None:
    """Take the version in production back: the one before it serves again. Once more: the one before that."""
    from backend import services
    from backend.learning import versions
    from backend.settings import load

    settings = load()
    change = versions.rollback(services.registry(settings), project, _queue(settings))
    if as_json:
        print(json.dumps(asdict(change)))
    else:
        say(f"{change.version} is in production in project {project} again, in place of {change.before}.")


def compare(
    before: VersionArgument,
    after: VersionArgument,
    project: ProjectOption,
    pictures: Annotated[Optional[Path], typer.Option("--out", help="Folder for pictures of what changed most.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions on the held-out expressions of the newest snapshot."""
    from backend import services
    from backend.learning import comparison
    from backend.settings import load

    settings = load(project)
    registry, needed = services.registry(settings), settings.finetune_min_validation
    with stage_bar("loading") as on_progress:
        compared = comparison.compare(registry, settings.home, project, (before, after), needed, pictures, on_progress)
    if as_json:
        print(json.dumps(compared.as_json()))
        return
    out.print(_table(compared))
    first, second = compared.versions
    passes = "would pass" if compared.verdict.passed else "wouldn't pass"
    say(f"In place of {first.name}, {second.name} {passes} the gate. {compared.verdict.reason}")
    for path in compared.pictures:
        say(f"Look at {path}")


def prune(
    project: ProjectOption,
    keep: Annotated[int, typer.Option(min=0, help="Versions to keep beside those that are needed.")] = 3,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only show what would go.")] = False,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Old predictions in Label Studio instead of versions.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete old versions and the snapshots that only they came from; what serves or may serve again stays."""
    from backend import services
    from backend.learning import versions
    from backend.settings import load

    if predictions:
        _prune_predictions(project, yes, as_json)
        return
    settings = load()
    spare = versions.prune(
        services.registry(settings), settings.home, project, keep, yes, services.versions_in_use(settings, project)
    )
    if as_json:
        print(json.dumps({"project": project, "deleted": yes, **spare.as_json()}))
        return
    for version in spare.versions:
        say(f"{version.name}, added {_day(version.card)}")
    counts = f"{len(spare.versions)} versions and {len(spare.snapshots)} snapshots, {spare.bytes / _MB:.1f} MB"
    _say_pruned(counts, yes, bool(spare.versions or spare.snapshots))


def _prune_predictions(project: int, delete: bool, as_json: bool) -> None:
    from backend import services
    from backend.batches.prune import delete_old, find_old

    with label_studio() as (settings, client):
        old = find_old(client, project, services.registry(settings).pointer(project).version)
        if delete:
            with bar("Deleting", None) as on_progress:
                delete_old(client, project, old, on_progress)
    if as_json:
        versions = [{**asdict(version), "predictions": len(version.predictions)} for version in old]
        print(json.dumps({"project": project, "deleted": delete, "versions": versions}))
        return
    for version in old:
        kept = f"; {version.parents} that annotations were made from stay" if version.parents else ""
        say(f"{version.name}: {len(version.predictions)} predictions{kept}")
    total = sum(len(version.predictions) for version in old)
    _say_pruned(f"{total} predictions", delete, total > 0)


def _say_pruned(counts: str, deleted: bool, any_spare: bool) -> None:
    what_to_do = " --yes deletes them." if any_spare else ""
    say(f"Deleted: {counts}." if deleted else f"Not needed any more: {counts}.{what_to_do}")


def _queue(settings: Settings) -> JobQueue | None:
    from backend.queue.queue import JobQueue

    return JobQueue.from_settings(settings) if settings.redis_url else None


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    gate = row["gate"] or {}
    numbers = gate.get("numbers") or {}
    score = "{before:.3f}→{after:.3f} ({expressions})".format(**numbers) if "after" in numbers else ""
    serves = "now" if row["production"] else "before" if row["served"] else ""
    added = str(row["origin"]) if row["added"] is None else _day(row)[5:]
    # One that nobody can tell yet whether it is better is there to be tried.
    decision = "trial" if gate.get("decision") == "not yet" else str(gate.get("decision", ""))
    return row["name"], added, str(row["snapshot"] or "")[:8], score, decision, serves


def _day(card: Mapping[str, Any]) -> str:
    return str(card.get("added"))[:16].replace("T", " ")


def _table(comparison: VersionComparison) -> Table:
    shown = comparison.changed[:_ROWS]
    rest = len(comparison.answered.expressions) - len(shown)
    names = [version.name for version in comparison.versions]
    table = Table("task", "prompt", *names, "change", title="IoU on held-out corrections")
    for row in shown:
        scores = f"{row.before:.2f}", f"{row.after:.2f}", f"{row.after - row.before:+.2f}"
        table.add_row(str(row.task), escape(row.prompt), *scores)
    if rest:
        table.caption = f"and {rest} that changed less or not at all"
    return table
