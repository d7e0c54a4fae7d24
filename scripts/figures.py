"""`make figures`: draw docs/figures from the code as it is: block diagrams with the shapes of a run, and attention over
photos by the weights that come with the project.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
from drawing import attention, designs, parts

ROOT = Path(__file__).resolve().parents[1]
DIAGRAMS = {
    "shared": parts.shared,
    "vipa": designs.vipa,
    "maris": designs.maris,
    "haris": designs.haris,
    "lda": designs.lda,
    "clicks": parts.clicks,
    "listener": parts.listener,
    "loop": parts.loop,
}
PHOTOS = {"lda": attention.lda, "vipa": attention.vipa, "maris": attention.maris, "haris": attention.haris}
# Of the JPEG: nothing is lost that can be seen, and each is well under 120 kB.
QUALITY = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures", help="where to draw to")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in DIAGRAMS.items():
        (out / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
    for name, picture in PHOTOS.items():
        cv2.imwrite(str(out / f"{name}.jpg"), picture()[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == "__main__":
    main()
