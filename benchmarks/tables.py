"""The tables of docs/scale.md, made of benchmarks/results: the newest whole run of each part, with its date.

`python benchmarks/tables.py` prints them; `--write` puts them into the document, between the comments that name them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "scale.md"
RESULTS = ROOT / "benchmarks" / "results"

Entry = Mapping[str, Any]


def load(entries: Sequence[Entry]) -> Iterator[str]:
    """Figures by part."""
    yield from _heading("part", "figure", "value", "measured")
    for entry in newest_by_part(entries):
        for figure, value in entry["figures"].items():
            yield _row(entry["part"], figure, _number(value), entry["date"])


def million(entries: Sequence[Entry]) -> Iterator[str]:
    """Figures by part, those that were reckoned beside those that were measured."""
    yield from _heading("part", "figure", "value", "")
    for entry in newest_by_part(entries):
        for figure, value in entry["figures"].items():
            how = "reckoned" if "reckoned" in figure else "measured"
            yield _row(entry["part"], figure.replace(", reckoned", ""), _number(value), how)


def kills(entries: Sequence[Entry]) -> Iterator[str]:
    """What was killed how often, and how soon the batch went on; then what came of the tasks."""
    entry = next(entry for entry in reversed(entries) if not entry["quick"])
    yield from _heading("killed", "times", "went on after, s: median", "longest")
    by_name: dict[str, list[float]] = {}
    for kill in entry["kills"]:
        by_name.setdefault(kill["what"], []).append(kill["seconds"])
    for name, seconds in sorted(by_name.items()):
        yield _row(f"`{name}`", str(len(seconds)), _number(round(median(seconds), 1)), _number(max(seconds)))
    figures = entry["figures"]
    told = ("tasks", "kills", "lost", "doubled", "failed", "seconds")
    yield ""
    yield f"On {entry['date']}: " + ", ".join(f"{name} {_number(figures[name])}" for name in told) + "."


TABLES: dict[str, Callable[[Sequence[Entry]], Iterator[str]]] = {"load": load, "kills": kills, "million": million}


def newest_by_part(entries: Sequence[Entry]) -> list[Entry]:
    """The last whole run of each part, in the order in which parts came first."""
    newest = {entry["part"]: entry for entry in entries if not entry["quick"]}
    return list(newest.values())


def table(name: str) -> str:
    """A table in Markdown."""
    file = RESULTS / f"{name}.json"
    entries = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    machines = sorted({entry["machine"] for entry in entries if not entry["quick"]})
    if not machines:
        return f"No whole run is kept yet: `make bench-{name}`."
    return "\n".join([*TABLES[name](entries), "", f"{'; '.join(machines)}."])


def updated(document: str) -> str:
    """The document with its tables as the results have them."""
    for name in TABLES:
        marks = rf"(<!-- {name}: [^\n]* -->\n).*?(\n<!-- end -->)"
        document, count = re.subn(marks, lambda match: f"{match[1]}{table(name)}{match[2]}", document, flags=re.DOTALL)  # noqa: B023 - called at once
        if count != 1:
            raise SystemExit(f"{DOCUMENT} has {count} places for the table {name!r}: it needs one.")
    return document


def _heading(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield "|" + "---|" * len(names)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    return f"{value:,}"


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        DOCUMENT.write_text(updated(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    elif sys.argv[1:]:
        raise SystemExit("Usage: python benchmarks/tables.py [--write]")
    else:
        print("\n\n".join(table(name) for name in TABLES))


if __name__ == "__main__":
    main()
