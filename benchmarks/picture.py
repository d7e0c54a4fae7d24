"""`make bench-picture`: draw docs/masks.jpg and docs/clicks.jpg from what the shipped model answers right now."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from backend.projects.samples import photos
from ris_core.images import read_image
from ris_core.inference.frame import Image
from ris_core.inference.predictor import Predictor
from ris_core.inference.prompt import Box, Point, Prompt
from ris_core.overlay import draw

# None of these photos was trained on.
TYPED = {
    "chelsea.png": ["the cat"],
    "flower.jpg": ["the flower"],
    "camera.png": ["person"],
    "astronaut.png": ["person"],
}
# Shares of the photo. A click, one more that takes away, a box.
POINTED = (
    ("chelsea.png", Prompt(points=[Point(0.5, 0.5)])),
    ("chelsea.png", Prompt(points=[Point(0.5, 0.5), Point(0.36, 0.37, positive=False)])),
    ("coffee.png", Prompt(box=Box(0.1, 0.0, 0.84, 0.99))),
)
HEIGHT = 360
DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    predictor = Predictor.load()
    pictures = dict(photos())
    typed = []
    for name, prompts in TYPED.items():
        image = read_image(pictures[name])
        answers = [answer for answer in predictor.segment(predictor.embed(image), prompts) if answer.present]
        typed.append(draw(image, [(f"{answer.prompt}  {answer.score:.2f}", answer.mask) for answer in answers]))
    save(typed, DOCS / "masks.jpg")
    save([pointed(predictor, read_image(pictures[name]), prompt) for name, prompt in POINTED], DOCS / "clicks.jpg")
    print(f"masks.jpg, clicks.jpg: {predictor.version}")


def pointed(predictor: Predictor, image: Image, prompt: Prompt) -> Image:
    """The answer, and what was drawn for it: green on the thing, red beside it."""
    (answer,) = predictor.segment(predictor.embed(image), [prompt])
    drawn = draw(image, [(f"{answer.score:.2f}", answer.mask)]).copy()
    height, width = image.shape[:2]
    for point in prompt.points:
        place = round(point.x * width), round(point.y * height)
        cv2.circle(drawn, place, height // 40, (255, 255, 255), -1)
        cv2.circle(drawn, place, height // 60, (20, 160, 60) if point.positive else (210, 30, 30), -1)
    if box := prompt.box:
        first = round(box.left * width), round(box.top * height)
        last = round(box.right * width), round(box.bottom * height)
        cv2.rectangle(drawn, first, last, (20, 160, 60), max(2, height // 120))
    return drawn


def save(drawn: list[Image], file: Path) -> None:
    """Side by side, as high as each other."""
    tiles = [
        cv2.resize(picture, (round(picture.shape[1] * HEIGHT / picture.shape[0]), HEIGHT), interpolation=cv2.INTER_AREA)
        for picture in drawn
    ]
    file.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(np.hstack(tiles)).save(file, quality=88)


if __name__ == "__main__":
    main()
