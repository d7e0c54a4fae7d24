"""Nobody waits for a GPU before the answers are fetched, and those are fetched together.

Without a GPU this is held in two ways: tensors of the device "meta" have shapes and no values, so whatever asks for one
fails; and what reads values or changes the device is counted by the operations that do so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import tiny
from models.encoders import Small
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.encoders.base import ImageEncoder
from ris_core.inference import predictor as module
from ris_core.inference.canvas import on_canvas
from ris_core.inference.casting import cast
from ris_core.inference.frame import Frame
from ris_core.inference.predictor import Predictor
from ris_core.inference.prompt import Point, Prompt
from ris_core.models import MODELS, OPTIONS
from ris_core.models.base import RISModel
from ris_core.models.interactive import VisualPrompts

META = torch.device("meta")
SENTENCES = ["the cat", "a red cup on the table", "x"]
DESIGNS = [*((name, {}) for name in MODELS), ("vipa", {"fusion": "early"}), ("maris", {"relevance": 0.0})]


def build(name: str, encoder: ImageEncoder | None = None, **options: object) -> RISModel:
    torch.manual_seed(5)
    model = MODELS[name](encoder or Small(), text_encoder("minilm"), OPTIONS[name](width=32, **options))
    model.add_interactive()
    return model.eval()


def photos(*sizes: tuple[int, int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("name", "options"), DESIGNS)
def test_no_design_asks_the_device_for_a_value(name: str, options: dict[str, object], dtype: torch.dtype) -> None:
    """Pixels, words and clicks to logits."""
    assert_nothing_waits(cast(build(name, **options), dtype, META))


@pytest.mark.parametrize("name", tiny.IMAGE)
def test_no_image_encoder_asks_the_device_for_a_value(name: str, tmp_path: Path) -> None:
    assert_nothing_waits(cast(build("lda", tiny.image(name, tmp_path)), torch.float16, META))


@pytest.mark.parametrize("name", tiny.TEXT)
def test_no_text_encoder_asks_the_device_for_a_value(name: str, tmp_path: Path) -> None:
    model = MODELS["lda"](Small(), tiny.text(name, tmp_path))
    with torch.inference_mode():
        for sentences in (SENTENCES, SENTENCES[:1]):
            features = cast(model, torch.float16, META).encode_text(sentences)
            assert features.words.device == META
            assert [len(one.words[0]) for one in features.each()] == list(features.lengths)
            assert len(features.lengths) == len(sentences)


def assert_nothing_waits(model: RISModel) -> None:
    images = photos((64, 48), (60, 64))
    frames = [Frame((64, 64), image.shape[:2], image.shape[:2]) for image in images]
    clicks = ((3, 2, 2), (3, 2), (3, 4), (3, 1, 16, 16))
    with torch.inference_mode(), Arrivals() as arrivals, Made() as made:
        pixels, valid = on_canvas(images, frames, META)
        levels, embedding = model.encode_levels(pixels, valid), model.encode_image(pixels, valid)
        index = torch.zeros(3, dtype=torch.long, device=META)
        output = model(embedding, model.encode_text(SENTENCES), index)
        prompts = VisualPrompts(*(torch.empty(shape, device=META) for shape in clicks))
        clicked = model.interactive(model.interactive.read_levels(levels, valid), prompts, index)
    dtype = next(model.parameters()).dtype
    assert output.mask.shape == clicked.mask.shape == (3, 1, 16, 16)
    for part in (*output[:3], *clicked):
        assert part.device == META
        assert part.dtype == dtype
    # Photos, their sizes, words and what is seen of them.
    assert arrivals.waiting == made.waiting == 0
    assert arrivals.count <= 6


class Arrivals(TorchDispatchMode):
    """Counts copies from the CPU to another device, and those of them that the CPU would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.waiting = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name, source = func._overloadpacket.__name__, next((one for one in args if isinstance(one, Tensor)), None)
        if name in {"_to_copy", "copy_"} and isinstance(result, Tensor) and source is not None:
            source = args[1] if name == "copy_" else source
            if source.device.type == "cpu" and result.device.type != "cpu":
                self.count += 1
                self.waiting += not (kwargs or {}).get("non_blocking", len(args) > 2 and args[2])
        return result


def test_meta_tells_who_asks() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        bool(torch.ones(2, device=META).any())


class Made(TorchFunctionMode):
    """Counts tensors made of Python's numbers on a device, where they arrive by a copy that the CPU waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in {torch.tensor, torch.as_tensor, Tensor.new_tensor}:
            self.waiting += result.device.type != "cpu"
        return result


def test_who_waits_at_the_door_is_counted() -> None:
    with Arrivals() as arrivals, Made() as made:
        torch.ones(2, device=META).new_tensor([1.0, 2.0])
        torch.tensor([1.0], device=META)
        torch.ones(3).to(META)
        torch.ones(3).to(META, non_blocking=True)
    assert (arrivals.count, arrivals.waiting, made.waiting) == (2, 1, 2)


class Operations(TorchDispatchMode):
    """Counts what torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func._overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def counted(action: Callable[[], object]) -> Counter[str]:
    with Operations() as operations:
        action()
    return operations.counts


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """As on a GPU, but that it lies on the CPU."""
    point = OperatingPoint(side=64, mask=0.5, presence=0.3, names=["the cat"])
    predictor = Predictor(build("lda"), point, "test", "float32")
    predictor.masks_on_device = True
    monkeypatch.setattr(module, "_CPU_PIXELS", 1 << 30)
    return predictor


def sentences(count: int) -> list[str]:
    return [f"thing number {number}" for number in range(count)]


def fetches(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> int:
    """How often values are read from tensors: each is a wait on a GPU."""
    seen: list[str] = []
    for name in ("tolist", "item", "cpu", "__bool__", "__int__", "__float__", "numpy", "__array__"):
        monkeypatch.setattr(Tensor, name, noted(getattr(Tensor, name), seen, name))
    action()
    monkeypatch.undo()
    # A tensor that was fetched is read for nothing.
    return sum(seen.count(name) for name in ("tolist", "item", "cpu", "__bool__", "__int__", "__float__"))


def noted(method: Callable[..., Any], seen: list[str], name: str) -> Callable[..., Any]:
    def call(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        return method(self, *args, **kwargs)

    return call


def test_a_request_fetches_twice_however_much_is_asked(predictor: Predictor) -> None:
    """Its scores, then its masks; all else that is read are words' lengths, which never left the CPU."""
    images = predictor.embed_all(photos((48, 64), (64, 48), (40, 50)))
    predictor.distances(["x"], predictor.point.names)
    counts = []
    for many in (1, 40):
        asked = sentences(many)
        predictor.vectors(asked)
        with pytest.MonkeyPatch.context() as patch:
            counts.append(
                fetches(patch, lambda asked=asked: predictor.segment_all([(image, asked) for image in images]))
            )
    assert counts == [2, 2]


def test_clicks_fetch_twice_however_many(predictor: Predictor) -> None:
    images = predictor.embed_all(photos((48, 64), (64, 48)))
    counts = []
    for many in (1, 20):
        clicks = [Prompt(points=[Point((number + 0.5) / many, 0.5)]) for number in range(many)]
        with pytest.MonkeyPatch.context() as patch:
            counts.append(
                fetches(patch, lambda clicks=clicks: predictor.segment_all([(image, clicks) for image in images]))
            )
    assert counts == [2, 2]


def test_photos_are_encoded_without_a_fetch(predictor: Predictor) -> None:
    images = photos((48, 64), (64, 48), (40, 50))
    with pytest.MonkeyPatch.context() as patch:
        assert fetches(patch, lambda: predictor.embed_all(images)) == 0


def test_prompts_share_their_operations(predictor: Predictor) -> None:
    """Sixteen prompts at once cost a few operations each beside those of one: no pass of their own."""
    [image] = predictor.embed_all(photos((48, 64)))
    asked = sentences(17)
    predictor.vectors(asked)
    one = counted(lambda: predictor.segment(image, asked[:1])).total()
    many = counted(lambda: predictor.segment(image, asked[1:])).total()
    assert many < one + 16 * 16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("many", [1, 40])
def test_a_gpu_is_waited_for_a_few_times_a_request(many: int) -> None:
    predictor = Predictor(build("lda", image_encoder("efficientnet-lite0")), OperatingPoint(side=384), "test")
    images, asked = photos((480, 640), (480, 640)), sentences(many)

    def answer() -> None:
        predictor.segment_all([(image, asked) for image in predictor.embed_all(images)])

    answer()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        answer()
    names = Counter(event.name for event in profile.events())
    assert names["cudaStreamSynchronize"] <= 4
    assert names["cudaLaunchKernel"] < 3000
