"""The card beside a checkpoint: what it was trained on, by which command, and how well it does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ris_core.checkpoint import CARD, OperatingPoint, version
from ris_core.data.readers import dataset_name, parse_dataset
from ris_core.evaluation import ACCEPTED
from ris_core.models import OPTIONS, RISModel
from ris_core.training import Recipe

Figures = Mapping[str, float | int]

_TUNED = {
    "frozen": "The encoders are frozen and come from their packages.",
    "adapters": "The encoders come from their packages; adapters in their last stages are among its parameters.",
    "full": "The encoders were trained along and are among its parameters.",
}
# The commands that a checkpoint can come from.
_MAKERS = ("ris train", "ris calibrate")


def write_card(
    model: RISModel,
    point: OperatingPoint,
    recipe: Recipe,
    datasets: Sequence[Path],
    figures: Mapping[tuple[str, str], Figures],
    start: Path | None = None,
    accepted: float = ACCEPTED,
) -> str:
    """Markdown; `figures` by (dataset, split), `start` the checkpoint whose training went on."""
    config = model.config()
    lines = [
        f"# {config['model']} over {config['image_encoder']} and {config['text_encoder']}",
        "",
        f"{sum(tensor.numel() for tensor in model.own_state().values()):,} parameters of its own. "
        f"{_TUNED[model.tuning.encoders]}",
        _operating_point(point),
        "",
        *_figures(figures),
        "## Data",
        *(f"- {_describe(dataset)}" for dataset in datasets),
        "",
        "Folders are split by photo: SHA-256 of the file name, modulo 100; below 10 test, below 20 val, else train.",
        "",
        "## Commands",
        "```",
        *_commands(model, recipe, datasets, start, accepted),
        "```",
        "",
    ]
    return "\n".join(lines)


def refit_card(card: str, point: OperatingPoint, figures: Mapping[tuple[str, str], Figures], command: str) -> str:
    """A card with another operating point, its figures, and the command that fixed it; the rest stays as it is."""
    card = _put(card, r"^Operating point[^\n]*\n", f"{_operating_point(point)}\n")
    card = _put(card, r"^## Figures\n.*?(?=^## |\Z)", "\n".join([*_figures(figures), ""]))
    closed = f"{command}\n```\n"
    return _put(card, r"^```\n\Z", closed, f"## Commands\n```\n{closed}")


def _put(card: str, pattern: str, text: str, instead: str | None = None) -> str:
    """The card with `text` in the place of what `pattern` finds; where it finds nothing, with `instead` at the end."""
    new, found = re.subn(pattern, lambda _: text, card, count=1, flags=re.MULTILINE | re.DOTALL)
    return new if found else f"{card.rstrip()}\n\n{instead or text}"


def _operating_point(point: OperatingPoint) -> str:
    return (
        f"Operating point, fixed on the validation splits: a thing is there from P = {point.presence}, "
        f"a pixel belongs to it from P = {point.mask}, photos are read at {point.side} pixels."
    )


def _figures(figures: Mapping[tuple[str, str], Figures]) -> list[str]:
    return [
        "## Figures",
        "At the photos' full resolution, at the operating point; a refused target counts as IoU 0.",
        "",
        *_table(figures),
        "",
    ]


def _table(figures: Mapping[tuple[str, str], Figures]) -> list[str]:
    names = list(dict.fromkeys(name for values in figures.values() for name in values))
    rows = ["| dataset | split | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for (dataset, split), values in figures.items():
        cells = [_cell(values.get(name)) for name in names]
        rows.append(f"| {dataset} | {split} | " + " | ".join(cells) + " |")
    return rows


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
        words += [
            f"--encoders {model.tuning.encoders}",
            f"--stages {model.tuning.stages}",
            f"--text-stages {model.tuning.text_stages}",
            f"--rank {model.tuning.rank}",
        ]
    words += [f"--epochs {recipe.epochs}", f"--photos {recipe.photos}", f"--present {recipe.present}"]
    words += [f"--absent {recipe.absent}", f"--rate {recipe.rate}", f"--side {recipe.side}"]
    words += [f"--views {recipe.views}", f"--seed {recipe.seed}"]
    words.append(f"--accepted {accepted}")
    return [*(_earlier(start / CARD) if start else []), " ".join(words)]


def _design(model: RISModel) -> list[str]:
    usual, chosen = asdict(OPTIONS[model.name]()), asdict(model.options)
    words = [f"--model {model.name}", f"--image-encoder {model.image_encoder.name}"]
    words.append(f"--text-encoder {model.text_encoder.name}")
    return words + [f"--option {name}={json.dumps(each)}" for name, each in chosen.items() if each != usual[name]]


def _earlier(card: Path) -> list[str]:
    return [line for line in card.read_text(encoding="utf-8").splitlines() if line.startswith(_MAKERS)]
