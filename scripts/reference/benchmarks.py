"""docs/benchmarks.md: what each script of benchmarks/ measures, and its newest figures, from benchmarks/results."""

from __future__ import annotations

import ast
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference.markdown import table

Entry = Mapping[str, Any]
Figures = Mapping[str, Any]

_HEADER = """\
# Benchmarks
Each is a script of `benchmarks/` and prints what is here; `make bench-NAME` runs it and adds an entry to its file in
`benchmarks/results`, with the date and the machine. Those that need `DATA`, dataset folders, say so at the top of the
script, with what else can be set; such folders don't come with the project: [the card](../weights/card.md#data) says
what `ccp` and `coco_mini` are, and `ris convert` makes them. Some have a short version, `QUICK=1`.

Shown are the newest results. Not all were taken with the weights that are shipped now: where a version is named, they
are that version's. Times hold for the machine that stands beside them, and where others work on it they are longer.

This page is written by `make reference`.
"""


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark's results are shown.

    takes: how long. reads: what a figure is. said: the page that says what they mean. apart: which results stand side
    by side, the newest of each; by default there is one. columns: which figures of a row; by default all. by_colon:
    whether "500 tasks: seconds" means a column and a row. show: for results that are other than the rest.
    """

    takes: str
    reads: str
    said: str = ""
    apart: Callable[[Entry], str] = lambda _: ""
    columns: tuple[str, ...] = ()
    by_colon: bool = False
    show: Callable[[Sequence[Entry]], str] | None = None


def _quality(entries: Sequence[Entry]) -> str:
    """By row the mean over seeds, of the recipe that the card of the script names: twelve passes."""
    runs: dict[str, dict[int, Figures]] = defaultdict(dict)
    for entry in entries:
        if entry["recipe"]["epochs"] == 12:
            runs[entry["row"]][entry["seed"]] = entry["figures"]
    rows = []
    for row, by_seed in runs.items():
        means = [
            statistics.mean(figures[dataset][name] for figures in by_seed.values())
            for dataset in ("ccp", "coco_mini")
            for name in ("mIoU", "T-acc", "N-acc")
        ]
        rows.append((row, str(len(by_seed)), *map(_number, means)))
    named = [f"{dataset}: {name}" for dataset in ("ccp", "coco_mini") for name in ("mIoU", "T-acc", "N-acc")]
    return table(("row", "seeds", *named), rows)


def _told_elsewhere(_entries: Sequence[Entry]) -> str:
    """Nothing: the page that says what the figures mean has them in tables of its own."""
    return ""


def _loop(entries: Sequence[Entry]) -> str:
    """Curves, as mIoU by the number of corrections, and what the gate let through."""
    points: dict[tuple[str, int], list[float]] = defaultdict(list)
    passed: Counter[tuple[int, str, str]] = Counter()
    tried: Counter[tuple[int, str, str]] = Counter()
    for entry in entries:
        if entry["part"] == "curves":
            for point in entry["points"]:
                points[entry["strategy"], point["corrections"]].append(point["mIoU"])
        else:
            kind = (entry["passes"], entry["how"], entry.get("validation", "clean"))
            tried[kind] += 1
            passed[kind] += entry["decision"] == "passed"
    counts = sorted({count for _, count in points})
    strategies = sorted({strategy for strategy, _ in points})
    curves = [
        (strategy, *(_number(statistics.mean(points[strategy, count])) for count in counts)) for strategy in strategies
    ]
    gate = [(str(kind[0]), kind[1], kind[2], str(tried[kind]), str(passed[kind])) for kind in sorted(tried)]
    return "\n\n".join(
        [
            "mIoU after so many corrections, by what chose them, the mean over seeds:",
            table(("chosen by", *map(str, counts)), curves),
            "Loops that the gate let through, by the passes that the base has had:",
            table(("passes", "corrections", "held out", "loops", "promoted"), gate),
        ]
    )


BENCHMARKS: Mapping[str, Benchmark] = {
    "predict": Benchmark("minutes", "Milliseconds, but for the memory."),
    "start": Benchmark("3 minutes, and a network", "Seconds."),
    "load": Benchmark("25 minutes", "", "scale.md#under-load", show=_told_elsewhere),
    "kills": Benchmark("a quarter of an hour", "", "scale.md#killed-all-the-time", show=_told_elsewhere),
    "million": Benchmark("15 minutes", "", "scale.md#a-million-tasks", show=_told_elsewhere),
    "bad_input": Benchmark("10 minutes", "A row a kind of input; failures, tracebacks and hangs should be 0."),
    "samples": Benchmark("a minute", "A mask is found from an IoU of 0.5 on."),
    "clicks": Benchmark("minutes", "Mean IoU.", "models.md#clicks-and-boxes"),
    "written": Benchmark(
        "minutes",
        "",
        "models.md#training-and-measuring",
        lambda entry: f"calibrated {entry['calibrated']}",
    ),
    "derived": Benchmark(
        "minutes",
        "mIoU; the baseline is all of the class; low and high bound the difference.",
        "models.md#choosing-among-several",
        lambda entry: f"{entry['figures']['all']['expressions']} expressions",
    ),
    "choice": Benchmark(
        "minutes",
        "mIoU; the baseline is the surest box; low and high bound the difference.",
        "models.md#choosing-among-several",
        lambda entry: f"{entry['count']} {entry['expressions']} expressions, the detector being {entry['model']}",
    ),
    "finetune": Benchmark(
        "3 minutes", "A column a budget.", "learning.md#what-it-is-worth-and-what-the-gate-keeps-out"
    ),
    "rejections": Benchmark(
        "minutes for each choice of photos",
        "Masks, and the share of them that is wrong.",
        "learning.md#what-deleting-wrong-masks-is-worth",
        lambda entry: f"{entry['photos']}, {entry['tasks']} tasks, passes: {entry['passes']}",
    ),
    "gate": Benchmark(
        "a minute and a half",
        "Share that passes, by how many expressions are held out.",
        "learning.md#how-it-is-compared",
    ),
    "loop": Benchmark("four hours", "", "learning.md#what-it-is-worth-and-what-the-gate-keeps-out", show=_loop),
    "quality": Benchmark(
        "six minutes a row on an H100", "The mean over seeds.", "models.md#how-well-they-learn", show=_quality
    ),
    "models": Benchmark(
        "half an hour or more",
        "",
        "models.md#speed",
        columns=("encoder ms", "decoder ms", "first ms", "n-th ms", "32 at once ms", "photos/s", "memory MB"),
    ),
    "export": Benchmark("minutes", "", "exports.md#how-fast", by_colon=True),
    "codec": Benchmark("minutes", "Milliseconds of processor time.", by_colon=True),
    "picture": Benchmark("a minute", ""),
}
"""In the order of the page."""


def page(folder: Path) -> str:
    """docs/benchmarks.md. folder: benchmarks/."""
    rows = [
        (f"[{name}](#bench-{name})", measured(folder / f"{name}.py"), one.takes) for name, one in BENCHMARKS.items()
    ]
    parts = [_HEADER, table(("`make bench-`", "what it measures", "takes, on two CPU cores"), rows), ""]
    for name, one in BENCHMARKS.items():
        parts += [f"## bench-{name}", *_section(folder, name, one), ""]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def measured(script: Path) -> str:
    """What a benchmark says of itself in the first paragraph of its docstring, but for how it is called."""
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    called, colon, says = " ".join(docstring.partition("\n\n")[0].split()).partition("`: ")
    if not colon or not called.startswith("`"):
        raise ValueError(f"{script} should begin with how it is called: `make bench-X`: what it measures.")
    return says[0].upper() + says[1:]


def _section(folder: Path, name: str, one: Benchmark) -> Iterator[str]:
    file = folder / "results" / f"{name}.json"
    reads = f" {one.reads}" if one.reads else ""
    link = f" [What they mean]({one.said})." if one.said else ""
    if not file.exists():
        yield "It keeps no figures."
        return
    entries = json.loads(file.read_text(encoding="utf-8"))
    if one.show:
        machines = list(dict.fromkeys(entry["machine"] for entry in entries))
        yield f"{len(entries)} run{'' if len(entries) == 1 else 's'}, on {'; '.join(machines)}.{reads}{link}"
        yield one.show(entries)
        return
    newest = {one.apart(entry): entry for entry in entries}
    versions = {_version(entry) for entry in newest.values()}
    yield f"{_taken(list(newest.values()), *(versions if len(versions) == 1 else ()))}{reads}{link}"
    named = {f"{what}, {_version(entry)}" if len(versions) > 1 else what: entry for what, entry in newest.items()}
    yield from _side_by_side({what: entry["figures"] for what, entry in named.items()}, one)


def _taken(entries: Sequence[Entry], version: str = "") -> str:
    """When, where, and of which version."""
    days = " and ".join(sorted({entry["date"] for entry in entries}))
    machines = "; ".join(sorted({entry["machine"] for entry in entries}))
    return f"{days}, on {machines}{f', {version}' if version.startswith('lda-') else ''}."


def _version(entry: Entry) -> str:
    return str(entry.get("version") or entry.get("model") or ", ".join(entry.get("models", ())))


def _side_by_side(results: Mapping[str, Figures], one: Benchmark) -> Iterator[str]:
    """Plain figures in one table, a column a result; rows of figures in a table a result."""
    split = {what: _by_colon(figures) if one.by_colon else figures for what, figures in results.items()}
    if all(not isinstance(value, Mapping) for figures in split.values() for value in figures.values()):
        yield _plain(split)
        return
    for what, figures in split.items():
        if what:
            yield f"**{what}**"
        yield from _nested(figures, one.columns)


def _by_colon(figures: Figures) -> Figures:
    rows: dict[str, Any] = {}
    for name, value in figures.items():
        row, colon, figure = name.partition(": ")
        if colon:
            rows.setdefault(row, {})[figure] = value
        else:
            rows[name] = value
    return rows


def _plain(results: Mapping[str, Figures]) -> str:
    names = list(dict.fromkeys(name for figures in results.values() for name in figures))
    if len(names) == sum(map(len, results.values())):
        # Each result has figures of its own.
        return table(
            ("", ""), [(name, _number(value)) for figures in results.values() for name, value in figures.items()]
        )
    rows = [(name, *(_number(figures.get(name)) for figures in results.values())) for name in names]
    return table(("", *results), rows)


def _nested(figures: Figures, columns: Sequence[str]) -> Iterator[str]:
    """Rows of figures as a table, the longer side downwards; one for each where they are nested once more."""
    rows = {name: value for name, value in figures.items() if isinstance(value, Mapping)}
    alone = [f"{name}: {_number(value)}" for name, value in figures.items() if name not in rows]
    if alone:
        yield "; ".join(alone)
    if any(isinstance(value, Mapping) for row in rows.values() for value in row.values()):
        for name, row in rows.items():
            yield f"**{name}**"
            yield from _nested(row, columns)
        return
    across = list(columns or dict.fromkeys(name for row in rows.values() for name in row))
    if len(across) <= len(rows):
        yield table(("", *across), [(name, *(_number(row.get(one)) for one in across)) for name, row in rows.items()])
    else:
        yield table(("", *rows), [(one, *(_number(row.get(one)) for row in rows.values())) for one in across])


def _number(value: Any) -> str:
    """Three figures that count, all of a whole number."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
