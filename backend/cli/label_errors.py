"""Probable label errors: corrections on which the version in production is sure, and says something else.

A correction's suspicion is the score of the version's own answer times 1 - what the correction makes of it: the IoU
where both have a mask, 0 where one of them says that the thing isn't there. So another mask, a mask of what is absent
and a missing mask are told by one number, [0, 1] (ours). With the masks of 10 in 100 corrections exchanged, 8 of the
first 10 were such on photos of clothes, and 5 on COCO's, where the shipped model is less sure. A version that learnt
from an error may have taken it over: among held-out corrections errors are told more surely.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from backend import services
from backend.cli.versions import newest_snapshot
from backend.settings import Settings
from backend.terminal import bar, out
from ris_core.data import Sample, read_folder
from ris_core.evaluation.contact_sheet import contact_sheet
from ris_core.evaluation.evaluate import answers, evaluate
from ris_core.evaluation.metrics import Score
from ris_core.images import write_image
from ris_core.inference.predictor import Predictor

SHOWN = 20
# Below it there is nothing to tell a person about.
LEAST = 0.3
_A_SHEET = 12


@dataclass(frozen=True)
class Suspect:
    """A correction that wants a second look.

    says: what the version says instead, "another mask", "absent" or "there". iou: of both masks, None where one of them
    has none. score: how sure the version is. suspicion: see above.
    """

    task: int
    prompt: str
    says: str
    iou: float | None
    score: float
    suspicion: float


def find_suspects(
    predictor: Predictor, samples: Sequence[Sample], progress: Callable[[int], None] | None = None
) -> list[tuple[Suspect, Sample]]:
    """All corrections of a snapshot, the most suspicious first.

    Raises:
        ImageError, DatasetError: the snapshot is damaged.
    """
    report = evaluate(predictor, samples, progress)
    found = [(_judge(*pair), pair[0]) for pair in zip(report.samples, report.scores, strict=True)]
    return sorted(found, key=lambda pair: (-pair[0].suspicion, pair[0].task, pair[0].prompt))


def _judge(sample: Sample, score: Score) -> Suspect:
    says = "absent" if score.refused else "another mask" if score.has_target else "there"
    iou = score.correct if says == "another mask" else None
    return Suspect(sample.image_id, sample.sentence, says, iou, score.expected, score.expected * (1 - score.correct))


def show_suspects(settings: Settings, project: int, count: int, pictures: Path | None, as_json: bool) -> None:
    """Print the most suspicious corrections of the newest snapshot; draw them into a folder, if one is given."""
    snapshot = newest_snapshot(settings.home, project)
    version = services.registry(settings).current(project)
    predictor, samples = Predictor.load(version.folder), read_folder(snapshot)
    with bar("Looking", len(samples)) as tell:
        ranked = find_suspects(predictor, samples, tell)
    chosen = [pair for pair in ranked if pair[0].suspicion >= LEAST][:count]
    drawn = _draw(pictures, predictor, [sample for _, sample in chosen]) if pictures else []
    suspects = [{**asdict(suspect), "link": _link(settings, project, suspect.task)} for suspect, _ in chosen]
    if as_json:
        found = {"project": project, "version": version.name, "snapshot": snapshot.name, "corrections": len(samples)}
        print(json.dumps({**found, "suspects": suspects, "pictures": [str(path) for path in drawn]}))
        return
    if not suspects:
        out.print(f"None of {len(samples)} corrections looks wrong to {version.name}.", highlight=False)
        return
    table = Table("task", "prompt", f"{version.name} says", "IoU", "score", title="Corrections to look at again")
    for each in suspects:
        iou = "" if each["iou"] is None else f"{each['iou']:.2f}"
        table.add_row(str(each["task"]), each["prompt"], each["says"], iou, f"{each['score']:.2f}")
    out.print(table)
    # Below the table: a link that a narrow column breaks leads nowhere.
    for link in dict.fromkeys(each["link"] for each in suspects):
        out.print(f"Look at {link}", highlight=False, soft_wrap=True)
    for path in drawn:
        out.print(f"Look at {path}", highlight=False)


def _link(settings: Settings, project: int, task: int) -> str:
    return f"{settings.label_studio_url}/projects/{project}/data?task={task}"


def _draw(folder: Path, predictor: Predictor, samples: Sequence[Sample]) -> list[Path]:
    """Sheets of the corrections with the version's masks over theirs, the worst first. Returns the files."""
    written = []
    for start in range(0, len(samples), _A_SHEET):
        shown = [answer for sample in samples[start : start + _A_SHEET] for answer in answers(predictor, [sample])]
        path = folder / f"suspects-{start // _A_SHEET + 1}.jpg"
        write_image(path, contact_sheet(shown, f"{predictor.version}: corrections to look at again"))
        written.append(path)
    return written
