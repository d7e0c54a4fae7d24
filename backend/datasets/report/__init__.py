"""What a person needs to sign for a dataset: `report.html`, one file that opens anywhere, and `report.json`.

Neither says when, where or by whom it was written: the same dataset gives the same bytes.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from backend.datasets.dataset import Dataset, Json
from backend.datasets.near_duplicates import NearDuplicates
from backend.datasets.problems import Problem
from backend.datasets.report.figures import Figures
from backend.datasets.report.page import render
from backend.datasets.report.selection import Selection
from backend.datasets.report.sign_off import checks
from backend.datasets.report.thumbnails import card

PAGE, DOCUMENT = "report.html", "report.json"
_NOTHING: Mapping[str, int] = MappingProxyType({})


def write_report(
    dataset: Dataset,
    out: Path,
    *,
    problems: Sequence[Problem] = (),
    agreement: Mapping[str, Any] | None = None,
    duplicates: NearDuplicates | None = None,
    left_out: Mapping[str, int] = _NOTHING,
    format_name: str = "",
    polygon_tolerance: float | None = None,
) -> Json:
    """Write both into the folder `out`, and return what the second holds.

    It goes through the pictures twice. agreement: what `backend.datasets.agreement` says; None: nobody measured it.
    duplicates: None: nobody looked for them. left_out: how many things the format can't say, by what they are.
    polygon_tolerance: how far the export's polygons may be off an outline, in pixels; None: it has none. Raises
    ImageError if a picture that is shown can't be read.
    """
    figures = Figures(dataset.categories, polygon_tolerance)
    leaks = {task for pair in duplicates.listed if pair.leaks for task in pair.tasks} if duplicates else set()
    selection = Selection({problem.task for problem in problems}, leaks)
    for image in dataset.images():
        selection.add(image, figures.add(image))
    report = {
        "description": dataset.description,
        "format": format_name,
        **figures.as_json(),
        "duplicates": duplicates.as_json() if duplicates else None,
        "problems": dict(sorted(Counter(problem.kind for problem in problems).items())),
        "listed_problems": [asdict(problem) for problem in problems],
        "left_out": dict(sorted(left_out.items())),
        "agreement": dict(agreement) if agreement is not None else None,
    }
    report["checks"] = [asdict(check) for check in checks(report)]
    chosen, names = selection.chosen(), {category.number: category.name for category in dataset.categories}
    shown = {
        image.number: card(image, names, chosen[image.number]) for image in dataset.images() if image.number in chosen
    }
    page = render(report, [shown[task] for task in chosen])
    # A lone half of a surrogate pair, which JSON lets through, is no text of a file.
    (out / PAGE).write_bytes(page.encode("utf-8", "replace"))
    (out / DOCUMENT).write_bytes(json.dumps(report, ensure_ascii=False, indent=1).encode("utf-8", "replace") + b"\n")
    return report
