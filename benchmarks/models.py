"""`make bench-models`: what each design costs over each encoder, and what a user would pick instead, on this machine.

A 640x480 photo, the embedded MiniLM for the words, and medians of three, of nine over the small encoders. Encoders
whose weights aren't at hand have random ones, with denormals flushed; that takes the same time. Each row is measured in
a process of its own, whose peak memory it reports:

    encoder, decoder        the bare forward passes: photo, words of one sentence, mask
    first                   a photo and a sentence never seen before -> a mask at the photo's size
    outside                 what of that is neither of those passes, and its share
    n-th                    another sentence about that photo
    32 one by one, at once  32 more sentences on one embedding
    photos/s                photos with one sentence each, several in one call

For comparison CLIPSeg, and GroundingDINO with SAM and one box, from `transformers` at their standard configurations
with random weights. On a GPU also bfloat16, `torch.compile`, and the share of the time that the GPU is busy.
QUICK=1 measures the embedded encoders alone, ONLY="maris sam-vit-b;clipseg" those rows. Results go to
benchmarks/results/models.json.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, product
from typing import Any

import cv2
import numpy as np
import torch
from record import keep, machine
from rich.console import Console
from rich.table import Table

from backend.projects.samples import photos
from ris_core import encoders
from ris_core.checkpoint_files import OperatingPoint
from ris_core.images import read_image
from ris_core.inference.predictor import Image, Precision, Predictor
from ris_core.models import MODELS

REPEATS, OFTEN = 3, 9
# The longer side at which each encoder reads a photo, and how many photos go into one call.
SIDES = {"swin-base": (480, 4), "sam-vit-b": (1024, 1)}
USUAL = (384, 8)
EMBEDDED = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
OTHERS = ("clipseg", "groundingdino+sam")
COLUMNS = (
    *("encoder ms", "decoder ms", "first ms", "outside ms", "outside %", "n-th ms", "first / n-th"),
    *("32 one by one ms", "32 at once ms", "gain", "photos/s", "memory MB"),
)


def photo(width: int = 640, height: int = 480) -> Image:
    pixels = read_image(dict(photos())["chelsea.png"])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def timed(*actions: Callable[[], object], repeats: int = REPEATS) -> list[list[float]]:
    """Milliseconds of each action, a row a repeat; one after the other: what slows the machine slows all alike."""
    for action in actions:
        action()
    return [[1000 * seconds(action) for action in actions] for _ in range(repeats)]


def medians(rounds: Iterable[Sequence[float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def measure(design: str, encoder: str, precision: Precision = "float32", compiled: bool = False) -> dict[str, float]:
    side, together = SIDES.get(encoder, USUAL)
    predictor = build(design, encoder, side, precision, compiled)
    image, numbers = photo(), count()
    embedding = predictor.embed(image)

    def fresh(many: int = 1) -> list[str]:
        # Sentences that were never said before: nothing of them is kept from the last repeat.
        return [f"the cat number {next(numbers)} on the left" for _ in range(many)]

    def first() -> None:
        predictor.segment(predictor.embed(image), fresh())

    def one_by_one() -> None:
        for sentence in fresh(32):
            predictor.segment(embedding, [sentence])

    def many() -> None:
        embeddings = predictor.embed_all([image] * together)
        predictor.segment_all([(prepared, fresh()) for prepared in embeddings])

    encode, words, decode = passes(predictor, image)
    rounds = timed(
        encode, words, decode, first, lambda: predictor.segment(embedding, fresh()),
        one_by_one, lambda: predictor.segment(embedding, fresh(32)), many,
        repeats=OFTEN if encoder in EMBEDDED else REPEATS,
    )  # fmt: skip
    at_encode, at_words, at_decode, at_first, at_nth, at_singles, at_once, at_many = medians(rounds)
    outside, share = medians((times[3] - sum(times[:3]), 100 - 100 * sum(times[:3]) / times[3]) for times in rounds)
    figures = (
        *(at_encode, at_words + at_decode, at_first, outside, share, at_nth, at_first / at_nth),
        *(at_singles, at_once, at_singles / at_once, 1000 * together / at_many, memory()),
    )
    row = {name: round(value, 2) for name, value in zip(COLUMNS, figures, strict=True)}
    return row | ({"GPU busy %": busy(first)} if torch.cuda.is_available() else {})


def build(design: str, encoder: str, side: int, precision: Precision, compiled: bool) -> Predictor:
    if encoder in EMBEDDED:
        image_encoder = encoders.image_encoder(encoder)
    else:
        image_encoder = encoders.find_entry(encoders.IMAGE_ENCODERS, encoder).untrained()
    model = MODELS[design](image_encoder, encoders.text_encoder("minilm"))
    if compiled:
        model.compile()
        image_encoder.compile()
    # Whatever is asked for is found: a refusal would cost less than a mask.
    return Predictor(model, OperatingPoint(side, mask=0.0, presence=0.0), "benchmark", precision)


def passes(predictor: Predictor, image: Image) -> tuple[Callable[[], object], ...]:
    """The floor: the model's own passes on tensors that are ready."""
    model, embedding = predictor.model, predictor.embed(image)
    device, (height, width) = model.device, embedding.frame.canvas
    pixels, valid = torch.rand(1, 3, height, width, device=device) * 255, torch.ones(1, 1, height, width, device=device)
    index = torch.zeros(1, dtype=torch.long, device=device)
    sentence = ["the cat number 0 on the left"]

    def bare(run: Callable[[], object]) -> Callable[[], object]:
        def action() -> None:
            with torch.inference_mode():
                run()

        return action

    with torch.inference_mode():
        text = model.encode_text(sentence)
    return (
        bare(lambda: model.encode_image(pixels, valid)),
        bare(lambda: model.encode_text(sentence)),
        bare(lambda: model(embedding.levels, text, index)),
    )


def clipseg() -> dict[str, float]:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation  # noqa: PLC0415

    # 352 pixels is what the published checkpoint's processor asks for.
    model = CLIPSegForImageSegmentation(CLIPSegConfig()).eval()
    words = {"input_ids": torch.randint(1, 40_000, (1, 8)), "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    pixels = torch.rand(1, 3, 352, 352)
    ask = torch.inference_mode()(lambda: model(pixel_values=pixels, interpolate_pos_encoding=True, **words))
    (at_first,) = medians(timed(ask))
    return {"first ms": round(at_first, 2), "n-th ms": round(at_first, 2), "memory MB": memory()}


def groundingdino_and_sam() -> dict[str, float]:
    from transformers import (  # noqa: PLC0415
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        SamConfig,
        SamModel,
    )

    finder, drawer = GroundingDinoForObjectDetection(GroundingDinoConfig()).eval(), SamModel(SamConfig()).eval()
    words = {"input_ids": torch.randint(1000, 30_000, (1, 8)), "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    pixels, square = torch.rand(1, 3, 800, 1066), torch.rand(1, 3, 1024, 1024)
    inference = torch.inference_mode()
    embedding = inference(drawer.get_image_embeddings)(square)
    box = torch.tensor([[[100.0, 100.0, 500.0, 500.0]]])
    rounds = timed(
        inference(lambda: finder(pixel_values=pixels, **words)),
        inference(lambda: drawer.get_image_embeddings(square)),
        inference(lambda: drawer(image_embeddings=embedding, input_boxes=box, multimask_output=False)),
    )
    at_find, at_encode, at_draw = medians(rounds)
    # Text and photo are fused early: every further prompt is found from the start.
    row = {"first ms": at_find + at_encode + at_draw, "n-th ms": at_find + at_draw, "memory MB": memory()}
    return {name: round(value, 2) for name, value in row.items()}


def memory() -> float:
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def busy(action: Callable[[], object]) -> float:
    """Share of the time that the GPU works, in percent."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        wall = seconds(action)
    return round(100 * sum(event.device_time for event in profile.events()) / 1e6 / wall, 1)


def rows() -> Iterator[tuple[str, ...]]:
    """What is measured: names as the command line of a row's process takes them."""
    heavy = () if os.environ.get("QUICK") else tuple(SIDES)
    variants: tuple[tuple[str, ...], ...] = ((),)
    if torch.cuda.is_available():
        variants = (("float32",), ("bfloat16",), ("float16",), ("float16", "compiled"))
    for encoder, design, variant in product((*EMBEDDED, *heavy), MODELS, variants):
        yield (design, encoder, *variant)
    if heavy:
        yield from ((name,) for name in OTHERS)


def one(names: list[str]) -> dict[str, float]:
    torch.set_flush_denormal(True)
    torch.set_num_threads(2)
    torch.manual_seed(0)
    if names == ["clipseg"]:
        return clipseg()
    if names == ["groundingdino+sam"]:
        return groundingdino_and_sam()
    design, encoder, *variant = names
    precision: Any = variant[0] if variant else "float32"
    return measure(design, encoder, precision, "compiled" in variant)


def main() -> None:
    if names := sys.argv[1:]:
        print(json.dumps(one(names)))
        return
    console, results = Console(width=200), {}
    only = os.environ.get("ONLY", "").split(";")
    for names in [names for names in rows() if only == [""] or " ".join(names) in only]:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, *names], check=True, stdout=subprocess.PIPE, text=True
        )
        results[" ".join(names)] = json.loads(done.stdout)
        console.print(" ".join(names), results[" ".join(names)])
    table = Table("design and encoder", *COLUMNS, title=f"models: {machine()}")
    for name, figures in results.items():
        table.add_row(name, *(str(figures.get(column, "")) for column in COLUMNS))
    console.print(table)
    keep("models", results, repeats=REPEATS)


if __name__ == "__main__":
    main()
