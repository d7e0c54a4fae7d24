"""The folder of a training run: what was trained, how it goes, and a picture of that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ris_core.files import atomic_write
from ris_core.overlay import PALETTE

CONFIG, METRICS, CURVES = "config.json", "metrics.jsonl", "curves.png"
_WIDTH, _HEIGHT, _MARGIN = 900, 260, 56
# Drawn as curves; other figures are in the metrics alone.
_DRAWN = ("loss", "mIoU", "N-acc", "T-acc")


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

    def draw(self) -> None:
        """The learning curves as a picture."""
        if not self._active:
            return
        metrics = read_metrics(self._folder)
        series = {name: [(line["step"], line[name]) for line in metrics if name in line] for name in _DRAWN}
        drawn = zip(series.items(), PALETTE, strict=False)
        panels = [_panel(name, points, colour) for (name, points), colour in drawn if len(points) > 1]
        if panels:
            picture = Image.fromarray(np.concatenate([np.asarray(panel) for panel in panels]))
            picture.save(self._folder / CURVES)


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
