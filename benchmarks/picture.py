"""`make bench-picture`: draw the README's picture, docs/masks.jpg, from what the shipped model answers right now."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from backend.projects.samples import photos
from ris_core.images import read_image
from ris_core.inference.predictor import Predictor
from ris_core.overlay import draw

# None of these photos was trained on.
TYPED = {
    "chelsea.png": ["the cat"],
    "flower.jpg": ["the flower"],
    "camera.png": ["person"],
    "astronaut.png": ["person"],
}
HEIGHT = 360
OUT = Path(__file__).parents[1] / "docs" / "masks.jpg"


def main() -> None:
    predictor = Predictor.load()
    pictures = dict(photos())
    tiles = []
    for name, prompts in TYPED.items():
        image = read_image(pictures[name])
        answers = [answer for answer in predictor.segment(predictor.embed(image), prompts) if answer.present]
        drawn = draw(image, [(f"{answer.prompt}  {answer.score:.2f}", answer.mask) for answer in answers])
        width = round(drawn.shape[1] * HEIGHT / drawn.shape[0])
        tiles.append(cv2.resize(drawn, (width, HEIGHT), interpolation=cv2.INTER_AREA))
    OUT.parent.mkdir(exist_ok=True)
    Image.fromarray(np.hstack(tiles)).save(OUT, quality=88)
    print(f"{OUT.name}: {predictor.version}")


if __name__ == "__main__":
    main()
