"""The page of a report. Everything that people typed is escaped, and the page itself forbids scripts and addresses."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from backend.datasets.dataset import Json
from backend.datasets.report.figures import AREA_EDGES
from backend.datasets.report.thumbnails import Card

_MOST_ROWS = 200
_WORST_TASKS, _SHOWN_PAIRS = 20, 12
_ORIGINS = {
    "manual": "drawn by hand",
    "prediction": "accepted",
    "prediction-changed": "changed",
    "unknown": "not known",
}
_TARGETS = {"one": "one object", "several": "several objects", "none": "nothing there"}


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart. share: of the longest bar, 0..1."""

    name: str
    count: int
    share: float


@dataclass(frozen=True)
class Table:
    """Of an agreement. rows: as many cells as there are columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def render(report: Json, cards: Sequence[Card]) -> str:
    """The page of a report, see `write_report`, and of the pictures that it shows."""
    environment = Environment(
        loader=PackageLoader("backend.datasets.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=_number, share=_share, iou=_iou)
    prompts, masks = report["prompts"], report["masks"]
    return environment.get_template("report.html.j2").render(
        report=report,
        cards=cards,
        most=_MOST_ROWS,
        shown=_SHOWN_PAIRS,
        labels=sorted(report["labels"], key=lambda label: (-label["instances"], label["name"])),
        areas=_between(AREA_EDGES, _share),
        origins=bars((_ORIGINS.get(name, name), count) for name, count in masks["origins"].items()),
        words=bars(zip(_words(prompts["word_edges"]), prompts["words"], strict=True)),
        ious=bars(zip(_between(prompts["iou_edges"], str), prompts["ious"], strict=True)),
        targets=bars((_TARGETS[what], count) for what, count in prompts["targets"].items()),
        agreement=agreement_tables(report["agreement"] or {}),
        looks=sum(check["status"] == "look" for check in report["checks"]),
    )


def bars(rows: Iterable[tuple[str, int]]) -> list[Bar]:
    """The rows of a bar chart."""
    known = list(rows)
    longest = max((count for _, count in known), default=0) or 1
    return [Bar(name, count, count / longest) for name, count in known]


def agreement_tables(agreement: Mapping[str, Any]) -> dict[str, Table]:
    """Tables of what an agreement says by label, by pair of people and of the tasks where it is least."""
    tables = {"By label": agreement.get("by_label"), "By pair of people": agreement.get("by_pair")}
    made = {title: _table(_records(value)) for title, value in tables.items() if value}
    worst = _records(agreement.get("worst") or [])
    return made | ({"Tasks that agree least": _table(worst[:_WORST_TASKS])} if worst else {})


def _records(value: Any) -> list[Mapping[str, Any]]:
    """A list of objects, or an object of them or of numbers by name, as a list of objects."""
    if not isinstance(value, Mapping):
        return [row for row in value if isinstance(row, Mapping)]
    return [{"": name, **(row if isinstance(row, Mapping) else {"mean": row})} for name, row in value.items()]


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key, cell in row.items() if not isinstance(cell, Mapping)))
    return Table(
        [column.replace("_", " ").replace("iou", "IoU").replace("dice", "Dice") for column in columns],
        [[_cell(row.get(column)) for column in columns] for row in rows],
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return _iou(value)
    if isinstance(value, list | tuple):
        return " and ".join(map(_cell, value))
    return "" if value is None else str(value)


def _between(edges: Sequence[float], text: Any) -> list[str]:
    """What the counts of a histogram are of."""
    inner = [f"{text(low)} to {text(high)}" for low, high in pairwise(edges)]
    return [f"below {text(edges[0])}", *inner, f"{text(edges[-1])} or more"]


def _words(edges: Sequence[int]) -> list[str]:
    """The same of whole numbers."""
    inner = [str(low) if high == low + 1 else f"{low} to {high - 1}" for low, high in pairwise(edges)]
    return [*(["none"] if edges[0] == 1 else [f"below {edges[0]}"]), *inner, f"{edges[-1]} or more"]


def _number(value: float | None) -> str:
    """1234 -> 1,234; what isn't known is a dash."""
    return "–" if value is None else f"{value:,.10g}"


def _share(value: float | None) -> str:
    """0.0312 -> 3.1 %."""
    return "–" if value is None else f"{100 * value:.2g} %" if value < 0.995 else "100 %"


def _iou(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
