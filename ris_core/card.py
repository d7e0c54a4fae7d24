"""The card beside a checkpoint: what it was trained on, by which command, and how well it does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ris_core.checkpoint import CARD, OperatingPoint, parameters, version
from ris_core.models.lda import LDA
from ris_core.training import Recipe

Figures = Mapping[str, float | int]


def write_card(
    model: LDA,
    point: OperatingPoint,
    recipe: Recipe,
    datasets: Sequence[Path],
    figures: Mapping[tuple[str, str], Figures],
    start: Path | None = None,
) -> str:
    """Markdown; `figures` by (dataset, split), `start` the checkpoint whose training went on."""
    config = model.config()
    lines = [
        f"# {config['model']} over {config['image_encoder']} and {config['text_encoder']}",
        "",
        f"{parameters(model):,} parameters of its own; the encoders are frozen and come from their packages.",
        f"Operating point, fixed on the validation splits: a thing is there from P = {point.presence}, "
        f"a pixel belongs to it from P = {point.mask}, photos are read at {point.side} pixels.",
        "",
        "## Figures",
        "At the photos' full resolution, at the operating point; a refused target counts as IoU 0.",
        "",
        *_table(figures),
        "",
        "## Data",
        *(f"- {_describe(dataset)}" for dataset in datasets),
        "",
        "Splits are by photo: SHA-256 of the file name, modulo 100; below 10 test, below 20 val, else train.",
        "",
        "## Commands",
        "```",
        *_commands(recipe, datasets, start),
        "```",
        "",
    ]
    return "\n".join(lines)


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
    info = json.loads((dataset / "instances.json").read_text(encoding="utf-8")).get("info", {})
    return f"`{dataset.name}`: {info.get('description', 'no description')} Licence: {info.get('license', 'not given')}"


def _commands(recipe: Recipe, datasets: Sequence[Path], start: Path | None) -> list[str]:
    """What it takes to make this checkpoint: the commands of the one it started from, then its own."""
    words = ["ris train", *(f"--dataset {dataset.name}" for dataset in datasets)]
    if start:
        words.append(f"--from {version(start)}")
    words += [f"--epochs {recipe.epochs}", f"--photos {recipe.photos}", f"--present {recipe.present}"]
    words += [f"--absent {recipe.absent}", f"--rate {recipe.rate}", f"--seed {recipe.seed}"]
    return [*(_earlier(start / CARD) if start else []), " ".join(words)]


def _earlier(card: Path) -> list[str]:
    return [line for line in card.read_text(encoding="utf-8").splitlines() if line.startswith("ris train")]
