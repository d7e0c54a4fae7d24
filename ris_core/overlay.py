"""Masks drawn over their photo, with a legend, for people who would rather look than read."""

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ris_core.masks import Mask

Colour: TypeAlias = tuple[int, int, int]

# Okabe and Ito's palette: told apart by colour-blind people too.
PALETTE = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def draw(image: NDArray[np.uint8], masks: Sequence[tuple[str, Mask]]) -> NDArray[np.uint8]:
    """HxWx3 uint8 RGB and (caption, HxW mask) pairs -> the photo with tinted, outlined masks and a legend."""
    canvas = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 300))
    for number, (_, mask) in enumerate(masks):
        colour = PALETTE[number % len(PALETTE)]
        tint(canvas, mask, colour)
        outline(canvas, mask, colour, thickness)
    return _legend(canvas, [caption for caption, _ in masks])


def tint(canvas: NDArray[np.uint8], mask: Mask, colour: Colour) -> None:
    """Mix `colour` half and half into the canvas, in place, where the mask is."""
    canvas[mask] = (0.5 * canvas[mask] + 0.5 * np.array(colour)).astype(np.uint8)


def outline(canvas: NDArray[np.uint8], mask: Mask, colour: Colour, thickness: int) -> None:
    """Draw the mask's edges and its holes' on the canvas, in place, `thickness` pixels wide."""
    edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, edges, -1, colour, thickness)


def _legend(canvas: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.uint8]:
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    size = max(12, round(max(canvas.shape[:2]) / 36))
    font = ImageFont.load_default(size)
    top = size // 2
    for number, caption in enumerate(captions):
        left = size // 2
        box = pen.textbbox((left + size * 1.4, top), caption, font=font)
        pen.rectangle((left - 4, top - 2, box[2] + 6, box[3] + 4), fill=(20, 20, 20))
        pen.rectangle((left, top + size * 0.2, left + size, top + size), fill=PALETTE[number % len(PALETTE)])
        pen.text((left + size * 1.4, top), caption, font=font, fill="white")
        top = round(box[3] + size * 0.6)
    return np.asarray(picture)
