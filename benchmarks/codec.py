"""`make bench-codec`: brush masks to Label Studio's run lengths and back, against label-studio-sdk and pycocotools.

Milliseconds of processor time, the least and the median of the repeats; all run on one core. The SDK runs in the
environment that Label Studio is in, and takes its turns between ours, so that what slows the machine for a while slows
all alike: compare within one run.
pycocotools writes COCO's run lengths, another format: it shows what compiled code needs. Every mask is compared.
QUICK=1 repeats less often. The result is appended to benchmarks/results/codec.json.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from record import record

from backend.errors import BrushError
from backend.labelstudio.masks import brush
from ris_core.masks import Mask, decode_rle, encode_rle

REPEATS = 3 if os.environ.get("QUICK") else 15
PYTHON = Path(__file__).parents[1] / ".venv-label-studio" / "bin" / "python"

# Reads a line, answers a line: it keeps what it was given last, and says how long it took and what came of it.
SDK = """
import json, sys, time
import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle

for line in sys.stdin:
    task, argument = json.loads(line)
    if task == "load":
        mask = np.load(argument).astype(np.uint8) * 255
        rle = mask2rle(mask)
        result = 0
    started = time.process_time()
    if task == "encode":
        result = mask2rle(mask)
    elif task == "decode":
        result = int(np.count_nonzero(decode_rle(rle).reshape(*mask.shape, 4)[:, :, 3] > 0))
    print(json.dumps([time.process_time() - started, result]), flush=True)
"""


def masks() -> dict[str, Mask]:
    """The cases by name: smooth drawings as answers are, and one whose edges are noise."""
    noise = np.random.default_rng(0)
    five = [(0.2, 0.25, 0.12), (0.5, 0.2, 0.1), (0.8, 0.35, 0.15), (0.3, 0.75, 0.18), (0.7, 0.75, 0.14)]
    noisy = ellipses(1080, 1920, five)
    edge = cv2.dilate(noisy, np.ones((25, 25))) != cv2.erode(noisy, np.ones((25, 25)))
    return {
        "one object, 1024x1024": ellipses(1024, 1024, [(0.5, 0.5, 0.3)]) > 0,
        "five objects, 1920x1080": ellipses(1080, 1920, five) > 0,
        "five objects, 3840x2160": ellipses(2160, 3840, five) > 0,
        "noisy edges, 1920x1080": (noisy > 0) ^ (edge & (noise.random(noisy.shape) < 0.5)),
    }


def ellipses(height: int, width: int, places: list[tuple[float, float, float]]) -> np.ndarray:
    """Centres and sizes as shares of the image -> HxW uint8, 1 inside; the size is that of the longer half axis."""
    mask = np.zeros((height, width), np.uint8)
    for number, (x, y, size) in enumerate(places):
        axes = (int(size * height), int(0.7 * size * height))
        cv2.ellipse(mask, (int(x * width), int(y * height)), axes, 25 * number, 0, 360, 1, -1)
    return mask


@contextmanager
def sdk() -> Iterator[Callable[[str, Any], tuple[float, Any]]]:
    """Asks label-studio-sdk: (task, argument) -> seconds, result."""
    with subprocess.Popen([PYTHON, "-c", SDK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(task: str, argument: Any = None) -> tuple[float, Any]:
            process.stdin.write(json.dumps([task, argument]) + "\n")
            process.stdin.flush()
            seconds, result = json.loads(process.stdout.readline())
            return seconds, result

        yield ask
        process.stdin.close()


def timed(action: Callable[[], object]) -> tuple[float, Any]:
    started = time.process_time()
    result = action()
    return time.process_time() - started, result


def compare(mask: Mask, ask: Callable[..., tuple[float, Any]], folder: Path) -> dict[str, list[float]]:
    """Seconds of each repeat, by who did what."""
    path = folder / "mask.npy"
    np.save(path, mask)
    ask("load", str(path))
    coco = encode_rle(mask)
    actions: Mapping[str, Callable[[], tuple[float, Any]]] = {
        "encode": lambda: timed(lambda: brush.encode(mask)),
        "encode, SDK": lambda: ask("encode"),
        "encode, pycocotools": lambda: timed(lambda: encode_rle(mask)),
        "decode": lambda: timed(lambda: brush.decode(rle, *mask.shape)),
        "decode, SDK": lambda: ask("decode"),
        "decode, pycocotools": lambda: timed(lambda: decode_rle(coco)),
    }
    rle = brush.encode(mask)
    theirs, pixels = ask("encode")[1], ask("decode")[1]
    # It appends a byte where the bits fill the last one.
    assert theirs[: len(rle)] == rle
    assert pixels == np.count_nonzero(mask)
    assert (brush.decode(theirs, *mask.shape) == mask).all()
    rounds = [[action()[0] for action in actions.values()] for _ in range(REPEATS)]
    return dict(zip(actions, map(list, zip(*rounds, strict=True)), strict=True))


def refusal() -> list[float]:
    """Seconds to refuse masks that say they hold more than their image, a short one and one of a million bytes."""
    bombs = [[255] * size for size in (900, 1_000_000)]
    return [timed(functools.partial(refused, bomb))[0] for bomb in bombs for _ in range(REPEATS)]


def refused(rle: list[int]) -> None:
    try:
        brush.decode(rle, 480, 640)
    except BrushError:
        return
    raise SystemExit("A mask bomb was decoded.")


def summary(name: str, seconds: Mapping[str, list[float]]) -> dict[str, float]:
    figures = {}
    for what, repeats in seconds.items():
        figures[f"{name}: {what}, least"] = round(1000 * min(repeats), 3)
        figures[f"{name}: {what}, median"] = round(1000 * statistics.median(repeats), 3)
    for what in ("encode", "decode"):
        ratio = statistics.median(seconds[f"{what}, SDK"]) / statistics.median(seconds[what])
        figures[f"{name}: {what}, times as fast as the SDK"] = round(ratio, 1)
    return figures


def main() -> None:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, sdk() as ask:
        for name, mask in masks().items():
            figures |= summary(name, compare(mask, ask, Path(folder)))
    seconds = refusal()
    figures |= {
        "mask bomb refused, median": round(1000 * statistics.median(seconds), 4),
        "mask bomb refused, most": round(1000 * max(seconds), 4),
    }
    record("codec", figures, repeats=REPEATS)


if __name__ == "__main__":
    main()
