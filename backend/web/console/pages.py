"""What each page shows, as values for its template. Reads, and changes nothing; never loads a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend.batches.store import Batch
from backend.datasets.acceptance import ORIGINS, figures
from backend.datasets.history import Moment, SnapshotExpression, by_label, by_prompt, history, read_expressions
from backend.datasets.snapshots import snapshots
from backend.doctor import CHAIN
from backend.learning import notice
from backend.learning.progress import training_curve
from backend.learning.versions import describe
from backend.queue.wording import project_of
from backend.web.console.charts import Chart, Series, line_chart
from backend.web.console.parts import ConsoleParts

PAGE = 12
# Sentences that are listed, the most frequent.
_PROMPTS = 50
# Jobs and batches that are listed.
_LISTED = 40
# Values from which on a chart says more than its table.
_LINE = 2
_OPEN = ("queued", "started", "deferred", "scheduled")
# Figures of a version and numbers of the gate, in the order of a table; all others come after them.
_PRECISIONS = tuple(f"Prec@{threshold}" for threshold in (0.5, 0.6, 0.7, 0.8, 0.9))
FIGURES = ("expressions", "mIoU", "oIoU", *_PRECISIONS, "gIoU", "cIoU", "N-acc", "T-acc", "ECE")
NUMBERS = ("needed", "expressions", "photos", "targets", "target_photos", "accepted", "before", "after", "difference")

Values = dict[str, Any]


@dataclass(frozen=True)
class ProjectRow:
    """A project in the list. tasks, annotated: None where Label Studio doesn't say."""

    number: int
    title: str
    tasks: int | None
    annotated: int | None
    version: str
    running: int
    is_known: bool


def projects(parts: ConsoleParts) -> Values:
    """All projects, those that the backend knows first."""
    studio, known, running = parts.studio(), parts.known, Counter(parts.running())
    rows = [
        ProjectRow(
            number,
            str(studio.projects.get(number, {}).get("title") or f"Project {number}"),
            studio.projects.get(number, {}).get("task_number"),
            studio.projects.get(number, {}).get("num_tasks_with_annotations"),
            parts.registry.pointer(number).version,
            running[number],
            number in known,
        )
        for number in sorted({*studio.projects, *known})
    ]
    rows.sort(key=lambda row: not row.is_known)
    return {"rows": rows, "problem": studio.problem, "workers": parts.queue.workers()}


def project(parts: ConsoleParts, number: int) -> Values:
    """A project: how learning goes, its versions, and what runs."""
    described = describe(parts.registry, number)
    curve = training_curve(parts.settings.home, number)
    return {
        **head(parts, number),
        "versions": list(reversed(described["versions"])),
        "since": described["since"],
        "previous": parts.registry.previous(number),
        "learning": _learning(parts, number),
        "scores": _scores(described["versions"]),
        "curve": _curve(curve),
        "step": curve[-1] if curve else None,
        "running": [job for job in parts.queue.recent() if project_of(job) == number and job["status"] in _OPEN],
        "batches": [batch for batch in parts.batches.all() if batch.spec.project == number and is_open(batch)],
    }


def version(parts: ConsoleParts, number: int, name: str) -> Values:
    """One version: what it came from, and all that the gate went by. Raises NotFound."""
    card = parts.registry.version(number, name).card
    before, after = card.get("before") or {}, card.get("after") or {}
    numbers = (card.get("gate") or {}).get("numbers") or {}
    expressions = sorted(card.get("expressions") or [], key=lambda row: row["after"] - row["before"])
    return {
        **head(parts, number),
        "name": name,
        "card": card,
        "figures": [(name, before.get(name), value) for name, value in _ordered(after, FIGURES).items()],
        "numbers": _ordered(numbers, NUMBERS),
        "expressions": expressions,
    }


def acceptance(parts: ConsoleParts, number: int) -> Values:
    """How people took the predictions: in all, over time, by label and by sentence."""
    folder = newest(parts, number)
    if folder is None:
        return {**head(parts, number), "folder": None}
    expressions, moments = read_expressions(folder), history(parts.settings.home, number)
    prompts = by_prompt(expressions)
    return {
        **head(parts, number),
        "folder": folder,
        "figures": figures([expression.answered for expression in expressions]),
        "origins": ORIGINS,
        "moments": list(reversed(moments)),
        "chart": _acceptance_chart(moments),
        "labels": by_label(expression for expression in expressions if expression.instances),
        "prompts": dict(list(prompts.items())[:_PROMPTS]),
        "further": max(0, len(prompts) - _PROMPTS),
    }


def corrections(parts: ConsoleParts, number: int, origin: str, page: int) -> Values:
    """A page of the gallery: what was predicted beside what was submitted, the worst first."""
    folder = newest(parts, number)
    expressions = list(read_expressions(folder)) if folder else []
    counts = Counter(expression.answered.origin for expression in expressions)
    chosen = [expression for expression in expressions if origin in ("", expression.answered.origin)]
    chosen.sort(key=_rank)
    pages = max(1, -(-len(chosen) // PAGE))
    page = min(max(1, page), pages)
    return {
        **head(parts, number),
        "folder": folder,
        "shown": chosen[(page - 1) * PAGE : page * PAGE],
        "total": len(chosen),
        "counts": {name: counts[name] for name in ORIGINS if counts[name]},
        "all": len(expressions),
        "origin": origin,
        "page": page,
        "pages": pages,
    }


def jobs(parts: ConsoleParts) -> Values:
    """What is pre-labelled in the background, and the workers' jobs; what runs comes first."""
    batches, recent = parts.batches.all(), parts.queue.recent()
    batches.sort(key=lambda batch: (not is_open(batch), -batch.created))
    recent.sort(key=lambda job: str(job.get("queued") or ""), reverse=True)
    recent.sort(key=lambda job: job["status"] not in _OPEN)
    titles = {row: view["title"] for row, view in parts.studio().projects.items()}
    return {
        "batches": batches[:_LISTED],
        "jobs": recent[:_LISTED],
        "titles": titles,
        "workers": parts.queue.workers(),
        "is_live": any(map(is_open, batches)) or any(job["status"] in _OPEN for job in recent),
    }


def job(parts: ConsoleParts, identity: str) -> Values:
    """One job. Raises NotFound."""
    described = parts.queue.describe(identity)
    return {"job": described, "number": project_of(described), "is_live": described["status"] in _OPEN}


def batch(parts: ConsoleParts, identity: str) -> Values:
    """One batch, with the reasons of what was left out. Raises NotFound."""
    found = parts.batches.get(identity)
    return {"batch": found, "number": found.spec.project, "is_live": is_open(found)}


def doctor(parts: ConsoleParts) -> Values:
    """The last examination."""
    last = parts.examiner.last
    return {
        "last": last,
        "links": len(CHAIN),
        "titles": {row: view["title"] for row, view in parts.studio().projects.items()},
        "counts": Counter(finding.state for finding in last.findings) if last else Counter(),
        "is_live": last is not None and last.ended is None,
    }


def head(parts: ConsoleParts, number: int) -> Values:
    """What all pages of a project begin with. Raises NotFound if there is no such project."""
    studio = parts.studio_project(number)
    return {
        "number": number,
        "title": str(studio.projects.get(number, {}).get("title") or f"Project {number}"),
        "problem": studio.problem,
        "production": parts.registry.pointer(number).version,
        "studio_url": f"{parts.settings.label_studio_url}/projects/{number}/data",
    }


def newest(parts: ConsoleParts, number: int) -> Path | None:
    """The folder of a project's newest snapshot."""
    return next(iter(snapshots(parts.settings.home, number)), None)


def is_open(batch: Batch) -> bool:
    """Whether a batch isn't at its end."""
    return batch.state in ("listing", "running")


def _ordered(values: Mapping[str, Any], first: Sequence[str]) -> dict[str, Any]:
    return {name: values[name] for name in dict.fromkeys((*first, *values)) if name in values}


def _learning(parts: ConsoleParts, number: int) -> str:
    settings = parts.settings.of_project(number)
    return notice.current(number, parts.events, parts.registry, settings).removeprefix("RIS: ")


def _scores(versions: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The gate's score of each version that was compared, and of the one in production then."""
    scored = [(row, numbers) for row in versions if "after" in (numbers := (row["gate"] or {}).get("numbers") or {})]
    if len(scored) < _LINE:
        return None
    series = [
        Series("this version", [numbers["after"] for _, numbers in scored]),
        Series("in production then", [numbers["before"] for _, numbers in scored]),
    ]
    return line_chart([str(row["name"]) for row, _ in scored], series)


def _curve(curve: Sequence[tuple[int, float]]) -> Chart | None:
    if len(curve) < _LINE:
        return None
    losses = [loss for _, loss in curve]
    return line_chart([str(step) for step, _ in curve], [Series("loss", losses)], min(0.0, *losses), max(losses))


def _acceptance_chart(moments: Sequence[Moment]) -> Chart | None:
    if len(moments) < _LINE:
        return None
    days = [f"{datetime.fromtimestamp(moment.time, UTC):%m-%d %H:%M}" for moment in moments]
    series = [
        Series("submitted without a change", [moment.figures["accepted_share"] for moment in moments]),
        Series("mean IoU", [moment.figures["iou"] for moment in moments]),
    ]
    return line_chart(days, series)


def _rank(expression: SnapshotExpression) -> tuple[float, int, int]:
    """What was predicted worst comes first, what nothing is known of last."""
    iou = expression.answered.edit.iou
    return (2.0 if iou is None else iou), expression.image.number, expression.ref.number
