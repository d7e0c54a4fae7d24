"""What `ris versions`, `promote`, `rollback`, `compare` and `prune` do. Knows the registry; knows no Label Studio."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from backend import services
from backend.datasets.snapshots import prune_snapshots, snapshots, spare_snapshots
from backend.errors import Unavailable
from backend.learning.finetune import Comparison, compare_versions, worked_before
from backend.learning.gate import Compared, Verdict, judge
from backend.queue.queue import JobQueue, connect
from backend.registry import Registry, Version
from backend.settings import Settings, SettingsError
from backend.terminal import bar, out
from ris_core.data import Sample
from ris_core.errors import DatasetError
from ris_core.evaluation.contact_sheet import contact_sheet
from ris_core.evaluation.evaluate import answers
from ris_core.images import write_image
from ris_core.inference.predictor import Predictor

# Rows of a comparison that are printed, and expressions on each of its sheets: two answers each, two a row.
_ROWS, _SHOWN = 30, 6
# A snapshot that was used so recently may be in use: an export copies it, a comparison reads it.
_IN_USE_SECONDS = 3600
_MB = 1e6


@dataclass(frozen=True)
class Spare:
    """What a project can do without. bytes: what deleting it frees. named, since: what else may stay, and why."""

    versions: tuple[Version, ...]
    snapshots: tuple[Path, ...]
    bytes: int
    named: frozenset[str]
    since: float


def describe(registry: Registry, project: int) -> dict[str, Any]:
    """A project's versions for JSON, oldest first: where each came from, what the gate said, what serves now."""
    current, served = registry.current(project).name, registry.served(project)
    rows = [_row(version, current, served) for version in registry.versions(project)]
    return {"project": project, "production": current, "since": registry.since(project), "versions": rows}


def list_versions(settings: Settings, project: int, as_json: bool) -> None:
    """Print a project's versions."""
    found = describe(services.registry(settings), project)
    if as_json:
        print(json.dumps(found))
        return
    table = Table(title=f"Project {project}")
    for name in ("version", "added (UTC)", "snapshot", "score (held out)", "gate", "serves"):
        # The name alone is typed again.
        table.add_column(name, no_wrap=name == "version")
    for row in found["versions"]:
        table.add_row(*_cells(row), style="bold" if row["production"] else "")
    out.print(table)


def promote(settings: Settings, project: int, name: str) -> None:
    """Put a version into production, whatever the gate said of it."""
    registry = services.registry(settings)
    before = registry.current(project)
    version = registry.promote(project, _plain(name))
    _look_soon(settings, project)
    if version == before:
        out.print(f"{version.name} is in production in project {project} already.", highlight=False)
        return
    out.print(
        f"{version.name} is in production in project {project} now, in place of {before.name}. "
        f"`ris rollback --project {project}` takes it back.",
        highlight=False,
    )


def rollback(settings: Settings, project: int) -> None:
    """Put the version before the one in production back."""
    registry = services.registry(settings)
    before = registry.production(project)
    # Two people who go back at once mean the same step.
    version = registry.rollback(project, instead_of=before)
    _look_soon(settings, project)
    out.print(f"{version.name} is in production in project {project} again, in place of {before}.", highlight=False)


def compare(settings: Settings, project: int, names: tuple[str, str], folder: Path | None, as_json: bool) -> None:
    """Have two versions answer the held-out expressions of the newest snapshot; draw what changed most to `folder`."""
    registry = services.registry(settings)
    before, after = (registry.version(project, _plain(name)) for name in names)
    snapshot = newest_snapshot(settings.home, project)
    with bar("Comparing", 100) as tell:
        found = compare_versions(before.folder, after.folder, snapshot, lambda _, share: tell(round(100 * share)))
    verdict = judge(found.expressions, settings.finetune_min_validation, worked_before(before))
    pictures = draw(folder, (before, after), found) if folder else []
    if as_json:
        print(json.dumps(_comparison(snapshot, (before, after), found, verdict, pictures)))
        return
    out.print(_table((before, after), found.expressions))
    passes = "would pass" if verdict.passed else "wouldn't pass"
    out.print(f"In place of {before.name}, {after.name} {passes} the gate. {verdict.reason}", highlight=False)
    for path in pictures:
        out.print(f"Look at {path}", highlight=False)


def draw(folder: Path, versions: tuple[Version, Version], found: Comparison) -> list[Path]:
    """Write better.jpg and worse.jpg, what the second version gained and lost most, with both answers side by side.

    One of them is left out where nothing changed that way. Returns the files.
    """
    predictors = [Predictor.load(version.folder) for version in versions]
    written = []
    for name, samples in _changed_most(found).items():
        shown = [answer for sample in samples for each in predictors for answer in answers(each, [sample])]
        if shown:
            path = folder / f"{name}.jpg"
            title = f"{name}: each first by {versions[0].name}, then by {versions[1].name}"
            write_image(path, contact_sheet(shown, title))
            written.append(path)
    return written


def prune(settings: Settings, project: int, keep: int, delete: bool) -> None:
    """Show which versions and snapshots nothing needs any more; delete them if that is wanted."""
    registry = services.registry(settings)
    busy = (
        f"Project {project} is learning, and may need what would be deleted. "
        "Nothing was deleted; try again when it has ended."
    )
    with registry.learning(project, busy):
        spare = find_spare(registry, settings.home, project, keep)
        if delete:
            registry.prune(project, keep)
            prune_snapshots(settings.home, project, spare.named, spare.since)
    for each in spare.versions:
        out.print(f"{each.name}, added {_day(each.card)}", highlight=False)
    counts = f"{len(spare.versions)} versions and {len(spare.snapshots)} snapshots, {spare.bytes / _MB:.1f} MB"
    if delete:
        out.print(f"Deleted: {counts}.", highlight=False)
    else:
        advice = " --yes deletes them." if spare.versions or spare.snapshots else ""
        out.print(f"Not needed any more: {counts}.{advice}", highlight=False)


def find_spare(registry: Registry, home: Path, project: int, keep: int) -> Spare:
    """What `prune` would delete: see `Registry.prune`, and the snapshots that no version left was made from.

    The newest snapshot stays, and so does one that was used within the last hour.
    """
    versions = registry.prunable(project, keep)
    left = [version for version in registry.versions(project) if version not in versions]
    named = frozenset(str(version.card.get("snapshot")) for version in left)
    since = time.time() - _IN_USE_SECONDS
    unnamed = spare_snapshots(home, project, named, since)
    freed = sum(map(_bytes, [*(version.folder for version in versions), *unnamed]))
    return Spare(tuple(versions), tuple(unnamed), freed, named, since)


def _look_soon(settings: Settings, project: int) -> None:
    """Have predictions refreshed at once. Where there is no queue, workers see to it within a minute of theirs."""
    with suppress(SettingsError, Unavailable):
        JobQueue(connect(settings.secret("redis_url"))).refresh(project)


def _plain(name: str) -> str:
    """Label Studio shows a version's name with a digest of the prompts behind a dot; the registry knows the first."""
    return name.partition(".")[0] or name


def _row(version: Version, current: str, served: Sequence[str]) -> dict[str, Any]:
    names = ("added", "origin", "base", "snapshot", "decision", "reason", "gate", "before", "after")
    return {
        "name": version.name,
        **{name: version.card.get(name) for name in names},
        "production": version.name == current,
        "served": version.name in served,
    }


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    gate = row["gate"] or {}
    numbers = gate.get("numbers") or {}
    score = "{before:.3f}→{after:.3f} ({expressions})".format(**numbers) if "after" in numbers else ""
    serves = "now" if row["production"] else "before" if row["served"] else ""
    added = "shipped" if row["added"] is None else _day(row)[5:]
    return row["name"], added, str(row["snapshot"] or "")[:8], score, str(gate.get("decision", "")), serves


def _day(card: Mapping[str, Any]) -> str:
    return str(card.get("added"))[:16].replace("T", " ")


def newest_snapshot(home: Path, project: int) -> Path:
    """The folder of a project's newest snapshot. Raises DatasetError if it has none."""
    found = snapshots(home, project)
    if not found:
        raise DatasetError(
            f"Project {project} has no snapshot to compare on. Annotate, then `ris finetune --project {project}` "
            "or `ris export` makes one."
        )
    return found[0]


def _comparison(
    snapshot: Path, versions: tuple[Version, Version], found: Comparison, verdict: Verdict, pictures: Sequence[Path]
) -> dict[str, Any]:
    return {
        "snapshot": snapshot.name,
        "before": {"version": versions[0].name, **found.before.figures},
        "after": {"version": versions[1].name, **found.after.figures},
        "gate": verdict.as_json(),
        "expressions": [each.as_json() for each in found.expressions],
        "pictures": [str(path) for path in pictures],
    }


def _table(versions: tuple[Version, Version], expressions: Sequence[Compared]) -> Table:
    names = [version.name for version in versions]
    changed = [each for each in _by_change(expressions) if each.before != each.after]
    rest = len(expressions) - len(changed[:_ROWS])
    table = Table("task", "prompt", *names, "change", title="IoU on held-out corrections")
    for each in changed[:_ROWS]:
        scores = f"{each.before:.2f}", f"{each.after:.2f}", f"{each.after - each.before:+.2f}"
        table.add_row(str(each.task), each.prompt, *scores)
    if rest:
        table.caption = f"and {rest} that changed less or not at all"
    return table


def _by_change(expressions: Sequence[Compared]) -> list[Compared]:
    return sorted(expressions, key=lambda each: (-abs(each.after - each.before), each.task, each.prompt))


def _changed_most(found: Comparison) -> dict[str, list[Sample]]:
    gains = [each.after - each.before for each in found.expressions]
    order = sorted(range(len(gains)), key=gains.__getitem__)
    better = [number for number in reversed(order) if gains[number] > 0][:_SHOWN]
    worse = [number for number in order if gains[number] < 0][:_SHOWN]
    return {name: [found.before.samples[n] for n in chosen] for name, chosen in (("better", better), ("worse", worse))}


def _bytes(folder: Path) -> int:
    """A file that has another name elsewhere, such as a picture, stays on the disk."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(each.st_size for each in stats if each.st_nlink == 1)
