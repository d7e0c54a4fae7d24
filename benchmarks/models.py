"""`make bench-models`: what each design costs over each encoder, and what a user would pick instead, on this machine.

A 640x480 photo, the embedded MiniLM for the words, and medians of three, of nine over the small encoders. Encoders
whose weights aren't at hand have random ones, with denormals flushed; that takes the same time. Each row is measured in
a process of its own, whose peak memory it reports; on a GPU the rows of an encoder share one:

    encoder, decoder        the bare forward passes: photo, words of one sentence, mask
    first                   a photo and a sentence never seen before -> a mask at the photo's size
    outside                 what of that is neither of those passes, and its share
    n-th                    another sentence about that photo
    32 one by one, at once  32 more sentences on one embedding
    photos/s                photos with one sentence each, several in one call
    files/s                 the same from JPEG files to Label Studio's run lengths, files read ahead in threads
    GPU busy                share of the time that a GPU works on such a call
    half                    IoU of the masks with those of single precision; half of the photo is in them

For comparison CLIPSeg, and GroundingDINO with SAM and one box, from `transformers` at their standard configurations
with random weights. On a GPU each also in half precision, ours in bfloat16 and with `torch.compile` as well.
QUICK=1 measures the embedded encoders alone, ONLY="maris sam-vit-b;clipseg" those rows: all of the GPU's are
`make bench-models`, one is `ONLY="lda efficientnet-lite2 float16" make bench-models`. Results go to
benchmarks/results/models.json.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count, groupby, product
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from record import keep, machine
from rich.console import Console
from rich.table import Table

from backend.labelstudio.masks.brush import encode
from backend.projects.samples import photos
from ris_core import encoders
from ris_core.checkpoint_files import OperatingPoint
from ris_core.images import read_image
from ris_core.inference.predictor import Image, Precision, Predictor
from ris_core.models import MODELS
from ris_core.models.base import best_device

Network = TypeVar("Network", bound=torch.nn.Module)
DEVICE = best_device()
REPEATS, OFTEN = 3, 9
# The longer side at which each encoder reads a photo, and how many photos go into one call.
SIDES = {"swin-base": (480, 4), "sam-vit-b": (1024, 1)}
USUAL = (384, 8)
EMBEDDED = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
OTHERS = ("clipseg", "groundingdino+sam")
COLUMNS = (
    *("encoder ms", "decoder ms", "first ms", "outside ms", "outside %", "n-th ms", "first / n-th"),
    *("32 one by one ms", "32 at once ms", "gain", "photos/s", "files/s", "GPU busy %", "half IoU", "memory MB"),
)
ON_GPU = {"GPU busy %", "half IoU"}
# Calls' worth of files that go from files to regions.
CALLS = 4
# Imported once, before the processes of the rows part; what they load they load themselves.
IMPORTS = (
    *("torch", "cv2", "ris_core.inference.predictor", "peft", "efficientnet_lite_pytorch"),
    *(f"transformers.models.{name}" for name in ("bert.modeling_bert", "sam.modeling_sam", "swin.modeling_swin")),
)


def photo(width: int = 640, height: int = 480) -> Image:
    pixels = read_image(dict(photos())["chelsea.png"])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    if DEVICE.type == "cuda":
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
    full = None if precision == "float32" else build(design, encoder, side, "float32", False)
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
    files = CALLS * together / statistics.median(seconds(lambda: from_files(predictor, fresh)) for _ in range(REPEATS))
    outside, share = medians((times[3] - sum(times[:3]), 100 - 100 * sum(times[:3]) / times[3]) for times in rounds)
    figures = (
        *(at_encode, at_words + at_decode, at_first, outside, share, at_nth, at_first / at_nth),
        *(at_singles, at_once, at_singles / at_once, 1000 * together / at_many, files),
        *(busy(many), agreement(full, predictor) if full else 1.0, memory()),
    )
    row = {name: round(value, 2) for name, value in zip(COLUMNS, figures, strict=True)}
    return row if DEVICE.type == "cuda" else {name: row[name] for name in row if name not in ON_GPU}


def build(design: str, encoder: str, side: int, precision: Precision, compiled: bool) -> Predictor:
    torch.manual_seed(0)
    if encoder in EMBEDDED:
        image_encoder = encoders.image_encoder(encoder)
    else:
        image_encoder = encoders.find_entry(encoders.IMAGE_ENCODERS, encoder).untrained()
    model = MODELS[design](image_encoder, encoders.text_encoder("minilm"))
    # Whatever is asked for is found: a refusal would cost less than a mask.
    predictor = Predictor(model, OperatingPoint(side, mask=0.0, presence=0.0), "benchmark", precision)
    if compiled:
        predictor.model.compile()
        for stage in predictor.model.image_encoder.stages:
            stage.compile()
    return predictor


def from_files(predictor: Predictor, fresh: Callable[[], list[str]]) -> None:
    """JPEG files -> regions, as a batch does: files are read ahead, and regions are written while the model goes on."""
    together = SIDES.get(predictor.model.image_encoder.name, USUAL)[1]
    data = cv2.imencode(".jpg", photo()[..., ::-1])[1].tobytes()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        reading = [pool.submit(read_image, data) for _ in range(CALLS * together)]
        writing: list[Future[list[int]]] = []
        for start in range(0, len(reading), together):
            images = predictor.embed_all([file.result() for file in reading[start : start + together]])
            answers = predictor.segment_all([(image, fresh()) for image in images])
            writing += [pool.submit(encode, answer.mask) for [answer] in answers]
        for region in writing:
            region.result()


def agreement(full: Predictor, half: Predictor) -> float:
    """Mean IoU of what either takes for the likelier half of a photo: random decoders find nothing of their own."""
    prompts = ["the cat", "the eyes", "something red on the left"]
    ious = []
    for one, other in zip(*(by.predict_raw([(by.embed(photo()), prompts)]) for by in (full, half)), strict=True):
        first, second = one.probability >= np.median(one.probability), other.probability >= np.median(other.probability)
        ious.append((first & second).sum() / (first | second).sum())
    return float(np.mean(ious))


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


def at_random(kind: Callable[..., Network], config: object, precision: str) -> Network:
    """A network of `transformers` on the device, without the minute that its own way to begin takes."""
    from transformers.initialization import no_init_weights  # noqa: PLC0415

    with no_init_weights():
        network = kind(config)
    for weight in network.parameters():
        torch.nn.init.uniform_(weight, -0.02, 0.02)
    return network.to(DEVICE, getattr(torch, precision)).eval()


def clipseg(precision: str) -> dict[str, float]:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation  # noqa: PLC0415

    # 352 pixels is what the published checkpoint's processor asks for.
    model = at_random(CLIPSegForImageSegmentation, CLIPSegConfig(), precision)
    words, pixels = spoken(40_000), seen(model, 352, 352)
    ask = torch.inference_mode()(lambda: model(pixel_values=pixels, interpolate_pos_encoding=True, **words))
    (at_first,) = medians(timed(ask))
    row = {"first ms": at_first, "n-th ms": at_first, "GPU busy %": busy(ask), "memory MB": memory()}
    return {name: round(value, 2) for name, value in row.items()}


def groundingdino_and_sam(precision: str) -> dict[str, float]:
    from transformers import (  # noqa: PLC0415
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        SamConfig,
        SamModel,
    )

    finder = at_random(GroundingDinoForObjectDetection, GroundingDinoConfig(), precision)
    drawer = at_random(SamModel, SamConfig(), precision)
    words, pixels, square = spoken(30_000), seen(finder, 800, 1066), seen(drawer, 1024, 1024)
    inference = torch.inference_mode()
    embedding = inference(drawer.get_image_embeddings)(square)
    box = torch.tensor([[[100.0, 100.0, 500.0, 500.0]]], device=DEVICE)
    find = inference(lambda: finder(pixel_values=pixels, **words))
    rounds = timed(
        find,
        inference(lambda: drawer.get_image_embeddings(square)),
        inference(lambda: drawer(image_embeddings=embedding, input_boxes=box, multimask_output=False)),
    )
    at_find, at_encode, at_draw = medians(rounds)
    # Text and photo are fused early: every further prompt is found from the start.
    row = {"first ms": at_find + at_encode + at_draw, "n-th ms": at_find + at_draw}
    row |= {"GPU busy %": busy(find), "memory MB": memory()}
    return {name: round(value, 2) for name, value in row.items()}


def spoken(most: int) -> dict[str, torch.Tensor]:
    """A sentence of eight words."""
    words = torch.randint(1000, most, (1, 8), device=DEVICE)
    return {"input_ids": words, "attention_mask": torch.ones_like(words)}


def seen(network: torch.nn.Module, height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, device=DEVICE, dtype=next(network.parameters()).dtype)


def memory() -> float:
    if DEVICE.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def busy(action: Callable[[], object]) -> float:
    """Share of the time that the GPU works, in percent; 0 without one."""
    if DEVICE.type != "cuda":
        return 0.0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        wall = seconds(action)
    return 100 * sum(event.device_time for event in profile.events()) / 1e6 / wall


def rows() -> Iterator[tuple[str, ...]]:
    """What is measured: a design and its encoder, or another's model; then how."""
    heavy = () if os.environ.get("QUICK") else tuple(SIDES)
    on_gpu = DEVICE.type == "cuda"
    variants: tuple[tuple[str, ...], ...] = ((),)
    if on_gpu:
        variants = (("float32",), ("bfloat16",), ("float16",), ("float16", "compiled"))
    for encoder, design, variant in product((*EMBEDDED, *heavy), MODELS, variants):
        yield (design, encoder, *variant)
    if heavy:
        yield from product(OTHERS, ("float32", "float16")) if on_gpu else ((name,) for name in OTHERS)


def one(names: Sequence[str]) -> dict[str, float]:
    torch.set_flush_denormal(True)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    torch.manual_seed(0)
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    others = {"clipseg": clipseg, "groundingdino+sam": groundingdino_and_sam}
    if names[0] in others:
        return others[names[0]](names[1] if names[1:] else "float32")
    design, encoder, *variant = names
    precision: Any = variant[0] if variant else "float32"
    return measure(design, encoder, precision, "compiled" in variant)


def measured(chosen: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, dict[str, float]]]:
    """Each row's name and figures, from processes that begin with everything imported."""
    context = get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTS))
    # A GPU's context takes seconds to make, and its memory is counted by the row anyway.
    share = None if DEVICE.type == "cuda" else 1
    for _, rows_of_one in groupby(chosen, lambda names: names[1] if names[0] in MODELS else names[0]):
        with ProcessPoolExecutor(1, context, max_tasks_per_child=share) as pool:
            for names in rows_of_one:
                yield " ".join(names), pool.submit(one, names).result()


def main() -> None:
    console, results = Console(width=220), {}
    only = os.environ.get("ONLY", "").split(";")
    for name, figures in measured(names for names in rows() if only == [""] or " ".join(names) in only):
        results[name] = figures
        console.print(name, figures)
    table = Table("design and encoder", *COLUMNS, title=f"models: {machine()}")
    for name, figures in results.items():
        table.add_row(name, *(str(figures.get(column, "")) for column in COLUMNS))
    console.print(table)
    keep("models", results, repeats=REPEATS)


if __name__ == "__main__":
    main()
