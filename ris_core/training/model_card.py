"""The card beside a checkpoint: what it was trained on, by which command, and how well it does."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ris_core.checkpoint_files import CARD, OperatingPoint, version
from ris_core.data.readers.registry import dataset_name, parse_dataset
from ris_core.evaluation.convention import ACCEPTED
from ris_core.evaluation.evaluate import Report
from ris_core.evaluation.metrics import Figures
from ris_core.models import OPTIONS
from ris_core.models.base import RISModel
from ris_core.training.recipe import Recipe
from ris_core.tuning import Tuning

Reports = Mapping[tuple[str, str], Report]
"""By (dataset, split)."""

# What is shown of each kind of expression; the rest is for all of them together.
BRIEF = ("expressions", "mIoU", "oIoU", "Prec@0.5", "N-acc", "ECE")

_TUNED = {
    "frozen": "The encoders are frozen and come from their packages.",
    "adapters": "The encoders come from their packages; adapters in their last stages are among its parameters.",
    "full": "The encoders were trained along and are among its parameters.",
}
_IMAGE_ALONE = "The image encoder was trained along and is among its parameters; the text encoder is frozen."
# The commands that a checkpoint can come from.
_MAKERS = ("ris train", "ris train-clicks", "ris calibrate", "ris average")
# What each command says of a recipe even where it is as usual.
_CLICKS = {name: name for name in ("epochs", "photos", "rate", "side", "precision", "seed")} | {"objects": "present"}
_ALWAYS = ("epochs", "photos", "present", "absent", "rate", "side", "views", "seed")


def write_card(
    model: RISModel,
    point: OperatingPoint,
    recipe: Recipe,
    datasets: Sequence[Path],
    reports: Reports,
    start: Path | None = None,
    accepted: float = ACCEPTED,
) -> str:
    """Markdown; `start` is the checkpoint whose training went on."""
    config = model.config()
    lines = [
        f"# {config['model']} over {config['image_encoder']} and {config['text_encoder']}",
        "",
        f"{sum(tensor.numel() for tensor in model.own_state().values()):,} parameters of its own. "
        f"{_tuned(model.tuning)}",
        _operating_point(point),
        "",
        *_figures(reports),
        *_data(f"- {_describe(dataset)}" for dataset in datasets),
        *_made_by(_commands(model, recipe, datasets, start, accepted)),
    ]
    return "\n".join(lines)


def mean_card(folders: Sequence[Path]) -> str:
    """Of the mean of checkpoints, which nobody has measured yet."""
    cards = [(folder / CARD).read_text(encoding="utf-8") for folder in folders]
    data = dict.fromkeys(line for card in cards for line in card.splitlines() if line.startswith("- `"))
    commands = dict.fromkeys(command for card in cards for command in _earlier(card))
    versions = " ".join(version(folder) for folder in folders)
    lines = [
        f"# Mean of {versions}",
        "",
        "Every weight is the mean of theirs. The operating point is the first one's: `ris calibrate` fixes it anew.",
        "",
        *_data(data),
        *_made_by([*commands, f"ris average {versions}"]),
    ]
    return "\n".join(lines)


def clicks_card(
    source: Path,
    recipe: Recipe,
    datasets: Sequence[Path],
    reports: Mapping[tuple[str, ...], Figures],
    often: Mapping[Path, float],
) -> str:
    """The card of the checkpoint `source` after its interactive decoder was trained, with that one's figures."""
    card = (source / CARD).read_text(encoding="utf-8")
    names = list(dict.fromkeys(name for figures in reports.values() for name in figures))
    section = [
        "## Clicks and boxes",
        "Mean IoU of single objects of at least 0.5 % of their photo, after clicks where the answer was most wrong.",
        "",
        *_table(("dataset", "split"), reports, names),
        "",
    ]
    words = ["ris train-clicks", f"--model {version(source)}"]
    words += [f"--dataset {dataset_name(dataset)}" for dataset in datasets]
    words += [f"--often {dataset_name(dataset)}={share}" for dataset, share in often.items()]
    chosen = asdict(recipe)
    words += [f"--{option} {chosen[name]}" for option, name in _CLICKS.items()]
    card = _with_command(card, " ".join(words))
    # In the place of an earlier one, else before what a card ends with.
    return _put(card, r"^## Clicks and boxes\n.*?(?=^## )|^(?=## (?:Data|Commands)\n)", "\n".join(section) + "\n")


def refit_card(card: str, point: OperatingPoint, reports: Reports, command: str) -> str:
    """A card with another operating point, its figures, and the command that fixed it; the rest stays as it is."""
    card = _put(card, r"^Operating point[^\n]*\n", f"{_operating_point(point)}\n")
    card = _put(card, r"^## Figures\n.*?(?=^## |\Z)", "\n".join([*_figures(reports), ""]))
    return _with_command(card, command)


def _with_command(card: str, command: str) -> str:
    """The card with one more command at its end."""
    closed = f"{command}\n```\n"
    return _put(card, r"^```\n\Z", closed, f"## Commands\n```\n{closed}")


def _put(card: str, pattern: str, text: str, instead: str | None = None) -> str:
    """The card with `text` in the place of what `pattern` finds; where it finds nothing, with `instead` at the end."""
    refitted, replaced = re.subn(pattern, lambda _: text, card, count=1, flags=re.MULTILINE | re.DOTALL)
    return refitted if replaced else f"{card.rstrip()}\n\n{instead or text}"


def _tuned(tuning: Tuning) -> str:
    return _IMAGE_ALONE if tuning.encoders == "full" and not tuning.text_stages else _TUNED[tuning.encoders]


def _operating_point(point: OperatingPoint) -> str:
    return (
        f"Operating point, fixed on the validation splits: a thing is there from P = {point.presence}, "
        f"a pixel belongs to it from P = {point.mask}, photos are read at {point.side} pixels."
    )


def _figures(reports: Reports) -> list[str]:
    figures: dict[tuple[str, ...], Figures] = {key: report.figures for key, report in reports.items()}
    names = list(dict.fromkeys(name for values in figures.values() for name in values))
    lines = [
        "## Figures",
        "At the photos' full resolution, at the operating point; a refused target counts as IoU 0.",
        "",
        *_table(("dataset", "split"), figures, names),
        "",
    ]
    kinds: dict[tuple[str, ...], Figures] = {
        (*key, kind): values for key, report in reports.items() for kind, values in report.kinds.items()
    }
    # Of a set whose expressions are all of one kind nothing new would be said.
    return [*lines, *_table(("dataset", "split", "kind"), kinds, BRIEF), ""] if len(kinds) > len(figures) else lines


def _table(heads: Sequence[str], figures: Mapping[tuple[str, ...], Figures], names: Sequence[str]) -> list[str]:
    rows = [(*heads, *names), ("---",) * (len(heads) + len(names))]
    rows += [(*key, *(_cell(values.get(name)) for name in names)) for key, values in figures.items()]
    return [f"| {' | '.join(row)} |" for row in rows]


def _data(lines: Iterable[str]) -> list[str]:
    split = "Folders are split by photo: SHA-256 of the file name, modulo 100; below 10 test, below 20 val, else train."
    return ["## Data", *lines, "", split, ""]


def _made_by(commands: Iterable[str]) -> list[str]:
    return ["## Commands", "```", *commands, "```", ""]


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _describe(dataset: Path) -> str:
    kind, folder = parse_dataset(dataset)
    if kind:
        return f"`{kind}`: as published, in its own splits."
    info = json.loads((folder / "instances.json").read_text(encoding="utf-8")).get("info", {})
    return f"`{dataset.name}`: {info.get('description', 'no description')} Licence: {info.get('license', 'not given')}"


def _commands(
    model: RISModel, recipe: Recipe, datasets: Sequence[Path], start: Path | None, accepted: float
) -> list[str]:
    """What it takes to make this checkpoint: the commands of the one it started from, then its own."""
    words = ["ris train", *(f"--dataset {dataset_name(dataset)}" for dataset in datasets)]
    words += [f"--from {version(start)}"] if start else _design(model)
    if model.tuning.encoders != "frozen":
        words += [f"--{name.replace('_', '-')} {value}" for name, value in asdict(model.tuning).items()]
    usual, chosen = asdict(Recipe()), asdict(recipe)
    names = [*_ALWAYS, *(name for name in ("precision", "accumulate", "paste") if chosen[name] != usual[name])]
    words += [*(f"--{name} {chosen[name]}" for name in names), f"--accepted {accepted}"]
    return [*(_earlier((start / CARD).read_text(encoding="utf-8")) if start else []), " ".join(words)]


def _design(model: RISModel) -> list[str]:
    usual, chosen = asdict(OPTIONS[model.name]()), asdict(model.options)
    words = [f"--model {model.name}", f"--image-encoder {model.image_encoder.name}"]
    words.append(f"--text-encoder {model.text_encoder.name}")
    return words + [f"--option {name}={json.dumps(value)}" for name, value in chosen.items() if value != usual[name]]


def _earlier(card: str) -> list[str]:
    return [line for line in card.splitlines() if line.startswith(_MAKERS)]
