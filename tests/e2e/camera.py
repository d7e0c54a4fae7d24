"""Pictures of what a person sees: stills of a part of a page, and a loop of such frames with a line of words above.

A screenshot shows no pointer, so the loop draws a ring where it is.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page

WIDTH = 900
_QUALITY = 80
_BAND = 42
_INK, _PAPER = (255, 255, 255), (31, 41, 55)


@dataclass(frozen=True)
class Area:
    """The part of a page that is kept, in CSS pixels."""

    left: float
    top: float
    width: float
    height: float


@dataclass
class Camera:
    """Keeps its pictures in `folder`, as WebP, WIDTH pixels wide."""

    folder: Path
    stills: list[Path] = field(default_factory=list)
    _frames: list[Image.Image] = field(default_factory=list)
    _durations: list[int] = field(default_factory=list)

    def still(self, page: Page, name: str, area: Area) -> None:
        """Keep one picture."""
        file = self.folder / f"{name}.webp"
        _shot(page, area).save(file, quality=_QUALITY, method=6)
        self.stills.append(file)

    def frame(
        self, page: Page, area: Area, words: str, duration: int, pointer: tuple[float, float] | None = None
    ) -> None:
        """Add a frame of the loop. words: what is done. duration: in ms. pointer: its place on the page, if any."""
        picture = _shot(page, area)
        if pointer:
            scale = WIDTH / area.width
            _ring(picture, ((pointer[0] - area.left) * scale, (pointer[1] - area.top) * scale))
        self._frames.append(_captioned(picture, words))
        self._durations.append(duration)

    def loop(self, name: str) -> Path:
        """Keep the frames as one animation that begins again and again -> its file."""
        file = self.folder / f"{name}.webp"
        first, *rest = self._frames
        first.save(
            file, save_all=True, append_images=rest, duration=self._durations, loop=0, quality=_QUALITY, method=6
        )
        return file

    @property
    def seconds(self) -> float:
        """How long the loop takes."""
        return sum(self._durations) / 1000


def _shot(page: Page, area: Area) -> Image.Image:
    clip = {"x": area.left, "y": area.top, "width": area.width, "height": area.height}
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")  # type: ignore[arg-type]
    return picture.resize((WIDTH, round(WIDTH * area.height / area.width)), Image.Resampling.LANCZOS)


def _captioned(picture: Image.Image, words: str) -> Image.Image:
    whole = Image.new("RGB", (picture.width, picture.height + _BAND), _PAPER)
    whole.paste(picture, (0, _BAND))
    font = ImageFont.load_default(22)
    ImageDraw.Draw(whole).text((16, _BAND / 2), words, _INK, font, anchor="lm")
    return whole


def _ring(picture: Image.Image, place: tuple[float, float]) -> None:
    draw = ImageDraw.Draw(picture)
    for radius, colour, thickness in ((13, _PAPER, 6), (12, _INK, 3)):
        box = (place[0] - radius, place[1] - radius, place[0] + radius, place[1] + radius)
        draw.ellipse(box, outline=colour, width=thickness)
