"""What somebody who signs for a dataset has to know: one line a check, from the figures alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backend.datasets.dataset import Json
from backend.datasets.report.figures import SPLITS

_NAMED = 8


@dataclass(frozen=True)
class Check:
    """status: "ok"; "look", there is something to look at; "unknown", it wasn't looked for. result: for people."""

    name: str
    status: Literal["ok", "look", "unknown"]
    result: str


def checks(report: Json) -> list[Check]:
    """The checks of a report, see `write_report`."""
    return [
        *_splits(report),
        *_duplicates(report["duplicates"]),
        *_labels(report["labels"]),
        _problems(report["problems"]),
        *_masks(report),
        _predictions(report["prompts"], report["findings"], report["thresholds"]),
        _left_out(report["left_out"]),
    ]


def _splits(report: Json) -> Iterator[Check]:
    counts = report["by_split"]
    empty = [split for split in SPLITS if not counts.get(split, {}).get("images")]
    says = f"nothing in {_listed(empty)}" if empty else "pictures in train, val and test"
    yield Check("Splits", "look" if empty else "ok", says)


def _duplicates(duplicates: Json | None) -> Iterator[Check]:
    if duplicates is None:
        yield Check("Photos in two splits", "unknown", "near duplicates weren't looked for")
        return
    leaks, pairs = duplicates["leaks"], duplicates["pairs"]
    yield _counted(
        "Photos in two splits", leaks, "pairs of near duplicates across splits, by which held-out figures flatter"
    )
    yield _counted("Photos twice in a split", pairs - leaks, "pairs of near duplicates within one split")


def _labels(labels: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    unused = [label["name"] for label in labels if not label["instances"]]
    yield Check("Labels in use", "look" if unused else "ok", f"no object of {_listed(unused)}" if unused else "all")
    for split in SPLITS:
        missing = [label["name"] for label in labels if label["instances"] and not label["by_split"].get(split)]
        if missing:
            yield Check(f"Labels in {split}", "look", f"no object of {_listed(missing)}")


def _problems(problems: Mapping[str, int]) -> Check:
    total = sum(problems.values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in problems.items())
    return Check(
        "Problems of annotations", "look" if total else "ok", f"{total:,} in all: {kinds}" if total else "none"
    )


def _masks(report: Json) -> Iterator[Check]:
    findings, thresholds = report["findings"], report["thresholds"]
    named = {
        "empty": ("Empty masks", "masks of no pixel"),
        "tiny": ("Tiny masks", f"masks of fewer than {thresholds['tiny']} pixels"),
        "specks": ("Specks", f"masks with parts of fewer than {thresholds['tiny']} pixels"),
        "duplicate": ("Things drawn twice", f"pairs of one label with an IoU of {thresholds['duplicate']} or more"),
        "overlap": ("Overlaps", f"other pairs that share at least {thresholds['overlap']:g} of the smaller mask"),
    }
    for kind, (name, says) in named.items():
        yield _counted(name, findings.get(kind, {"count": 0})["count"], says)
    filled = {shape: count for shape, count in report["masks"]["shapes"].items() if shape not in ("mask", "unknown")}
    if filled:
        kinds = ", ".join(f"{count:,} {shape}" for shape, count in filled.items())
        yield Check("Filled shapes", "look", f"not outlines of things: {kinds}")


def _predictions(prompts: Json, findings: Json, thresholds: Json) -> Check:
    if not prompts["compared"]:
        return Check("Predictions far off", "unknown", "no prompt has a prediction that is still known")
    low = findings.get("low IoU", {"count": 0})["count"]
    says = f"IoU below {thresholds['low_iou']:g} with what was submitted, of {prompts['compared']:,} that are known"
    return _counted("Predictions far off", low, says)


def _left_out(left_out: Mapping[str, int]) -> Check:
    says = "; ".join(f"{count:,} {what}" for what, count in left_out.items())
    return Check("Left out by the format", "look" if says else "ok", says or "nothing")


def _counted(name: str, count: int, says: str) -> Check:
    return Check(name, "look" if count else "ok", f"{says}: {count:,}" if count else "none")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
