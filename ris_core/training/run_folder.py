"""The folder of a training run: what was trained, how it goes, and pictures of that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ris_core.files import atomic_write
from ris_core.images import write_image
from ris_core.overlay import PALETTE

CONFIG, METRICS, CURVES, OVERLAYS = "config.json", "metrics.jsonl", "curves.png", "overlays"
# Sheets of overlays that are kept, the newest.
_SHEETS = 20
_WIDTH, _HEIGHT, _MARGIN = 900, 260, 56
# Drawn as curves; other figures are in the metrics alone.
_DRAWN = ("loss", "mIoU", "N-acc", "T-acc")


class Validation(NamedTuple):
    """How a model does while it is trained. figures: by name. sheet: uint8 RGB, some of its answers as overlays."""

    figures: Mapping[str, float | int]
    sheet: NDArray[np.uint8]


class Run:
    """Writes a run's folder; `active` is False in all processes of a run but one, which then write nothing."""

    def __init__(self, folder: Path, config: Mapping[str, object], active: bool = True) -> None:
        self._folder, self._active = folder, active
        if active:
            atomic_write(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())

    def log(self, **figures: float | int) -> None:
        """One more line of the metrics."""
        if self._active:
            # A line cut off by a kill is left out by whoever reads, see `read_metrics`.
            with (self._folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")

    def forget(self, after: int) -> None:
        """Drop what was logged after a step: a run that died goes on from an earlier one, and logs those again."""
        if self._active and (self._folder / METRICS).exists():
            kept = [line for line in read_metrics(self._folder) if line["step"] <= after]
            atomic_write(self._folder / METRICS, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def show(self, epoch: int, sheet: NDArray[np.uint8]) -> None:
        """Keep the overlays of a pass, in the place of those of a pass long gone."""
        if self._active:
            folder = self._folder / OVERLAYS
            write_image(folder / f"pass-{epoch + 1:03d}.jpg", sheet)
            for old in sorted(folder.glob("pass-*.jpg"))[:-_SHEETS]:
                old.unlink()

    def draw(self) -> None:
        """The learning curves as a picture."""
        if not self._active:
            return
        metrics = read_metrics(self._folder)
        series = {name: [(line["step"], line[name]) for line in metrics if name in line] for name in _DRAWN}
        drawn = zip(series.items(), PALETTE, strict=False)
        panels = [_panel(name, points, colour) for (name, points), colour in drawn if len(points) > 1]
        if panels:
            write_image(self._folder / CURVES, np.concatenate([np.asarray(panel) for panel in panels]))


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines that a run logged, whole ones alone."""
    lines = []
    for line in (folder / METRICS).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def _panel(name: str, points: Sequence[tuple[float, float]], colour: tuple[int, int, int]) -> Image.Image:
    """One curve over the steps, faint as logged, strong as a running mean."""
    steps, values = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    window = max(1, len(values) // 50)
    smooth = np.convolve(np.pad(values, (window - 1, 0), mode="edge"), np.ones(window) / window, mode="valid")
    low, high = float(np.quantile(values, 0.0)), float(np.quantile(values, 0.99))
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)

    def at(step: float, value: float) -> tuple[float, float]:
        across = (step - steps[0]) / max(1e-9, steps[-1] - steps[0])
        up = min(1.0, max(0.0, (value - low) / max(1e-9, high - low)))
        return _MARGIN + across * (_WIDTH - 2 * _MARGIN), _HEIGHT - 34 - up * (_HEIGHT - 70)

    pale = tuple((each + 2 * 255) // 3 for each in colour)
    pen.line([at(*point) for point in zip(steps, values, strict=True)], fill=pale, width=1)
    pen.line([at(*point) for point in zip(steps, smooth, strict=True)], fill=colour, width=3)
    pen.text((_MARGIN, 8), f"{name}: {values[-1]:.3f} at step {steps[-1]:.0f}", fill="black", font=font)
    pen.text((4, 36), f"{high:.3f}", fill="gray", font=font)
    pen.text((4, _HEIGHT - 44), f"{low:.3f}", fill="gray", font=font)
    return picture
