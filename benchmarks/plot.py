"""Lines with a legend, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ris_core.images import write_image
from ris_core.overlay import PALETTE

_WIDTH, _HEIGHT, _LEFT, _TOP, _LEGEND, _BOTTOM = 900, 480, 60, 40, 170, 50
_TICKS = 5


def plot(path: Path, title: str, across: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """`lines`: (x, y) points by name, y from 0 up."""
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    points = [point for line in lines.values() for point in line]
    right, top = max(x for x, _ in points), max(y for _, y in points) * 1.05

    def at(x: float, y: float) -> tuple[float, float]:
        width, height = _WIDTH - _LEFT - _LEGEND, _HEIGHT - _TOP - _BOTTOM
        return _LEFT + x / right * width, _HEIGHT - _BOTTOM - y / top * height

    for number in range(_TICKS + 1):
        y = top * number / _TICKS
        pen.line([at(0, y), at(right, y)], fill="lightgray")
        pen.text((8, at(0, y)[1] - 8), f"{y:.2f}", fill="gray", font=font)
    for x in sorted({x for x, _ in points}):
        pen.text((at(x, 0)[0] - 8, _HEIGHT - _BOTTOM + 6), f"{x:g}", fill="gray", font=font)
    for number, (name, line) in enumerate(lines.items()):
        colour = PALETTE[number % len(PALETTE)]
        pen.line([at(*point) for point in line], fill=colour, width=3)
        pen.text((_WIDTH - _LEGEND + 14, _TOP + 24 * number), name, fill=colour, font=font)
    pen.text((_LEFT, 10), title, fill="black", font=font)
    pen.text((_LEFT, _HEIGHT - 24), across, fill="gray", font=font)
    write_image(path, np.asarray(picture))
