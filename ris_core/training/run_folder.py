"""The folder of a training run: what was trained, how it goes, and pictures of that."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ris_core.evaluation.metrics import Figures
from ris_core.files import atomic_write
from ris_core.images import Pixels, write_image
from ris_core.overlay import PALETTE

CONFIG, METRICS, CURVES, OVERLAYS = "config.json", "metrics.jsonl", "curves.png", "overlays"
# Sheets of overlays that are kept, the newest.
_SHEETS = 20
_WIDTH, _HEIGHT, _MARGIN = 900, 260, 56
# Drawn as curves; other figures are in the metrics alone.
_DRAWN = ("loss", "mIoU", "N-acc", "T-acc")


class Validation(NamedTuple):
    """How a model does while it is trained. figures: by name. sheet: uint8 RGB, some of its answers as overlays."""

    figures: Figures
    sheet: Pixels


class RunFolder:
    """Writes a run's folder; `active` is False in all processes of a run but one, which then write nothing."""

    def __init__(self, folder: Path, config: Mapping[str, object], step: int = 0, active: bool = True) -> None:
        """`step`: what was logged after it is dropped, since a run that died goes on from there and logs it again."""
        self._folder, self._active = folder, active
        if not active:
            return
        atomic_write(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
        if (folder / METRICS).exists():
            kept = [json.dumps(line) + "\n" for line in read_metrics(folder) if line["step"] <= step]
            atomic_write(folder / METRICS, "".join(kept).encode())

    def log(self, **figures: float | int) -> None:
        """One more line of the metrics."""
        if self._active:
            # A line cut off by a kill is left out by whoever reads, see `read_metrics`.
            with (self._folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")

    def keep_sheet(self, epoch: int, sheet: Pixels) -> None:
        """Keep the overlays of a pass, in the place of those of a pass long gone."""
        if self._active:
            folder = self._folder / OVERLAYS
            write_image(folder / f"pass-{epoch + 1:03d}.jpg", sheet)
            for old in sorted(folder.glob("pass-*.jpg"))[:-_SHEETS]:
                old.unlink()

    def draw_curves(self) -> None:
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
        with suppress(ValueError):
            lines.append(json.loads(line))
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

    pale = tuple((channel + 2 * 255) // 3 for channel in colour)
    pen.line([at(*point) for point in zip(steps, values, strict=True)], fill=pale, width=1)
    pen.line([at(*point) for point in zip(steps, smooth, strict=True)], fill=colour, width=3)
    pen.text((_MARGIN, 8), f"{name}: {values[-1]:.3f} at step {steps[-1]:.0f}", fill="black", font=font)
    pen.text((4, 36), f"{high:.3f}", fill="gray", font=font)
    pen.text((4, _HEIGHT - 44), f"{low:.3f}", fill="gray", font=font)
    return picture
