"""Models in memory, with the real predictor over random weights: what is loaded, kept, and waited for."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import random_checkpoint
from PIL import Image
from pointers import BrightNetwork, fake_pointer

from backend.inference import model_pool
from backend.inference.model_pool import ImagePrompts, ModelBusy, ModelPool
from backend.registry import Version
from ris_core import checkpoint_files, segmenters
from ris_core.errors import CheckpointError, ImageError, OutOfMemory, PromptError
from ris_core.files import sha256
from ris_core.inference.prediction import Prediction
from ris_core.inference.predictor import Predictor
from ris_core.inference.prompt import Point, Prompt
from ris_core.inference.segmenter import PreparedImage, Segmenter
from ris_core.models.base import best_device, without_gpu


def picture(shade: int, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def segment(
    models: ModelPool, version: Version, image: bytes, prompts: Sequence[str | Prompt], deadline: float
) -> Sequence[Prediction]:
    """The answer for one image; what is wrong with it is raised."""
    (result,) = models.segment_all(version, [ImagePrompts(image, prompts, sha256(image))], deadline)
    if isinstance(result, Exception):
        raise result
    return result


def soon() -> float:
    return time.monotonic() + 30


class Loads:
    """Counts the loads that go through to the real one."""

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self.embeddings = 0

    def __call__(self, folder: Path) -> Predictor:
        self.folders.append(folder)
        predictor = Predictor.load(folder)
        embed_all = predictor.embed_all

        def count(images: Sequence[np.ndarray]) -> object:
            self.embeddings += len(images)
            return embed_all(images)

        predictor.embed_all = count  # type: ignore[method-assign, assignment]
        return predictor


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Version]:
    root = tmp_path_factory.mktemp("versions")
    folders = [random_checkpoint(root / str(seed), seed) for seed in range(3)]
    return [Version(checkpoint_files.version(folder), folder) for folder in folders]


def test_each_prompt_is_answered_at_the_images_size(versions: list[Version]) -> None:
    predictions = segment(ModelPool(), versions[0], picture(1, (40, 30)), ["the cat", "the dog"], soon())
    assert [prediction.prompt for prediction in predictions] == ["the cat", "the dog"]
    assert all(prediction.mask.shape == (30, 40) for prediction in predictions)


def test_a_version_is_loaded_once_and_an_image_embedded_once_a_version(versions: list[Version]) -> None:
    loads = Loads()
    models = ModelPool(load=loads)
    for version in (versions[0], versions[1], versions[0]):
        for _ in range(3):
            segment(models, version, picture(1), ["the cat"], soon())
    assert len(loads.folders) == 2
    assert loads.embeddings == 2


def test_the_limit_of_versions_counts(versions: list[Version]) -> None:
    loads = Loads()
    models = ModelPool(versions=2, load=loads)
    for number in (0, 1, 0, 2, 0, 1):
        segment(models, versions[number], picture(1), ["the cat"], soon())
    assert loads.folders == [versions[number].folder for number in (0, 1, 2, 1)]


def test_the_limit_of_embeddings_counts(versions: list[Version]) -> None:
    loads = Loads()
    models = ModelPool(embeddings=2, load=loads)
    for shade in (1, 2, 1, 3, 1, 2):
        segment(models, versions[0], picture(shade), ["the cat"], soon())
    assert loads.embeddings == 4


def test_the_limit_of_pixels_counts(versions: list[Version]) -> None:
    segment(ModelPool(max_pixels=1200), versions[0], picture(1, (40, 30)), ["the cat"], soon())
    with pytest.raises(ImageError, match="RIS_MAX_IMAGE_PIXELS"):
        segment(ModelPool(max_pixels=1199), versions[0], picture(1, (40, 30)), ["the cat"], soon())


def test_a_damaged_image_costs_itself_alone(versions: list[Version]) -> None:
    models = ModelPool()
    with pytest.raises(ImageError):
        segment(models, versions[0], b"no image", ["the cat"], soon())
    assert segment(models, versions[0], picture(1), ["the cat"], soon())


def test_who_waits_too_long_is_told_so(versions: list[Version]) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(folder: Path) -> Predictor:
        entered.set()
        leave.wait(30)
        return Predictor.load(folder)

    models = ModelPool(load=slow)
    loading = models.warm(versions[0])
    assert entered.wait(10)
    start = time.monotonic()
    with pytest.raises(ModelBusy):
        segment(models, versions[0], picture(1), ["the cat"], start + 0.2)
    assert 0.15 < time.monotonic() - start < 5
    leave.set()
    loading.join(30)
    assert segment(models, versions[0], picture(1), ["the cat"], soon())


def test_a_process_that_ends_while_the_model_loads_waits_for_it(versions: list[Version]) -> None:
    program = textwrap.dedent(
        """
        import pathlib, sys, time
        from backend.inference.model_pool import ModelPool
        from backend.registry import Version
        from ris_core.inference.predictor import Predictor

        def load(folder):
            time.sleep(0.5)
            try:
                return Predictor.load(folder)
            finally:
                print("left")

        ModelPool(load=load).warm(Version("random", pathlib.Path(sys.argv[1])))
        """
    )
    command = [sys.executable, "-c", program, str(versions[0].folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


def test_warming_a_broken_version_is_logged_and_forgiven(
    tmp_path: Path, versions: list[Version], caplog: pytest.LogCaptureFixture
) -> None:
    models, broken = ModelPool(), Version("lda-broken", tmp_path / "nothing")
    models.warm(broken).join(30)
    assert "lda-broken can't be loaded" in caplog.text
    with pytest.raises(CheckpointError):
        segment(models, broken, picture(1), ["the cat"], soon())
    assert segment(models, versions[0], picture(1), ["the cat"], soon())


def test_whoever_asks_one_thread_infers(versions: list[Version]) -> None:
    seen = set()

    class Seen(Predictor):
        def embed_all(self, images: Sequence[np.ndarray]) -> list[PreparedImage]:
            seen.add(threading.get_ident())
            return super().embed_all(images)

    models = ModelPool(load=Seen.load)
    for number in range(3):
        asking = threading.Thread(target=segment, args=(models, versions[0], picture(number), ["the cat"], soon()))
        asking.start()
        asking.join(30)
    assert len(seen) == 1
    assert threading.get_ident() not in seen


def test_threads_share_one_model(versions: list[Version]) -> None:
    loads = Loads()
    models = ModelPool(load=loads)
    answers: list[object] = []

    def ask(shade: int) -> None:
        answers.append(segment(models, versions[0], picture(shade % 3), ["the cat"], soon()))

    threads = [threading.Thread(target=ask, args=(shade,)) for shade in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12
    assert len(loads.folders) == 1
    assert loads.embeddings == 3


NAME = "owlv2+sam2"


def zero_shot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Version:
    folder = fake_pointer(NAME, tmp_path / "cache", monkeypatch)
    return Version(checkpoint_files.version(folder), folder)


def test_embeddings_are_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This segmenter keeps the pixels themselves: 1,000,000 bytes an image here."""
    version, loads = zero_shot(tmp_path, monkeypatch), EncodedImages()
    models = ModelPool(load=loads, size=2)
    for shade in (1, 2, 1, 2, 3, 2, 3, 1):
        segment(models, version, picture(shade, (1000, 333)), ["the cat"], soon())
    assert loads.encoded == [1, 2, 3, 1]
    # One that is larger than all that may be kept is answered and not kept, and costs the others nothing.
    for _ in range(2):
        segment(models, version, picture(9, (1000, 1000)), ["the cat"], soon())
    segment(models, version, picture(1, (1000, 333)), ["the cat"], soon())
    assert loads.encoded == [1, 2, 3, 1, 9, 9]


class EncodedImages:
    """Loads for real, and notes the shade of each image that is encoded."""

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def __call__(self, folder: Path) -> Segmenter:
        segmenter = segmenters.load(folder)
        embed_all = segmenter.embed_all

        def note(images: Sequence[np.ndarray]) -> list[PreparedImage]:
            self.encoded += [int(image[0, 0, 0]) for image in images]
            return embed_all(images)

        segmenter.embed_all = note  # type: ignore[method-assign]
        return segmenter


def test_a_version_that_is_dropped_gives_its_memory_back(
    versions: list[Version], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the next one is loaded; embeddings of a version that stays stay too."""
    loaded: list[weakref.ref[Segmenter]] = []
    alive: list[int] = []

    def load(folder: Path) -> Segmenter:
        alive.append(sum(ref() is not None for ref in loaded))
        segmenter = segmenters.load(folder)
        loaded.append(weakref.ref(segmenter))
        return segmenter

    models = ModelPool(versions=1, load=load)
    for version in (versions[0], zero_shot(tmp_path, monkeypatch), versions[1]):
        segment(models, version, picture(1), ["the cat"], soon())
        assert len(models._embeddings) == 1
    assert alive == [0, 0, 0]


def test_versions_that_differ_in_their_point_alone_share_embeddings(versions: list[Version], tmp_path: Path) -> None:
    point = checkpoint_files.operating_point(versions[0].folder)
    checkpoint_files.with_point(versions[0].folder, replace(point, presence=0.9), tmp_path / "other")
    other = Version(checkpoint_files.version(tmp_path / "other"), tmp_path / "other")
    loads = Loads()
    models = ModelPool(versions=2, load=loads)
    for version in (versions[0], other, versions[1], other):
        segment(models, version, picture(1), ["the cat"], soon())
    assert len(loads.folders) == 3
    assert loads.embeddings == 2


def test_a_version_that_cant_be_loaded_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = zero_shot(tmp_path, monkeypatch)
    for weights in (tmp_path / "cache").glob("facebook*/*.safetensors"):
        weights.unlink()
    with pytest.raises(CheckpointError, match=r"aren't on this machine. Run `ris fetch owlv2\+sam2`"):
        segment(ModelPool(), version, picture(1), ["the cat"], soon())


@pytest.mark.parametrize("step", ["encode", "find", "draw"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()], ids=["gpu", "cpu"])
def test_no_memory_is_an_answer_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    """And what was only kept is given back first."""
    version, models = zero_shot(tmp_path, monkeypatch), ModelPool()
    segment(models, version, picture(1), ["the cat"], soon())
    assert len(models._embeddings) == 1

    def fail(*_: object) -> None:
        raise error

    prompt = Prompt(points=(Point(0.5, 0.5),)) if step == "draw" else "the cat"
    with monkeypatch.context() as patch:
        patch.setattr(BrightNetwork, step, fail)
        with pytest.raises(OutOfMemory, match=r"Memory ran out on a single photo or prompt\. Use a smaller model"):
            segment(models, version, picture(2), [prompt], soon())
    assert len(models._embeddings) == 0
    assert segment(models, version, picture(2), ["the cat"], soon())


def test_a_click_is_answered_on_the_embedding_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, loads = zero_shot(tmp_path, monkeypatch), EncodedImages()
    models = ModelPool(load=loads)
    segment(models, version, picture(7), ["the cat"], soon())
    [answer] = segment(models, version, picture(7), [Prompt(points=(Point(0.5, 0.5),))], soon())
    assert answer.present
    assert loads.encoded == [7]
    monkeypatch.setattr(BrightNetwork, "clickable", False)
    with pytest.raises(PromptError, match=r"owlv2\+sam2-[0-9a-f]{8} answers words alone"):
        segment(models, version, picture(7), [Prompt(points=(Point(0.5, 0.5),))], soon())


class Gpu(Predictor):
    """On a GPU, as far as anybody can tell, that holds not even one photo."""

    device = torch.device("cuda")  # type: ignore[assignment]

    def embed_all(self, images: Sequence[np.ndarray]) -> list[PreparedImage]:
        raise OutOfMemory("Memory ran out on a single photo or prompt. Use a smaller model.")


def test_a_photo_that_the_gpu_cant_hold_is_answered_on_the_cpu(
    versions: list[Version], caplog: pytest.LogCaptureFixture
) -> None:
    """By the same model, loaded beside it once."""
    loaded: list[str] = []

    def load(folder: Path) -> Segmenter:
        loaded.append("gpu" if not loaded else "cpu")
        return (Gpu if len(loaded) == 1 else Predictor).load(folder)

    models = ModelPool(load=load)
    images = [ImagePrompts(picture(shade), ["the cat"], str(shade)) for shade in (1, 2)]
    answers = models.segment_all(versions[0], images, soon())
    expected = ModelPool().segment_all(versions[0], images, soon())
    for [answer], [known] in zip(answers, expected, strict=True):  # type: ignore[misc]
        assert answer.score == pytest.approx(known.score, abs=1e-6)
        assert np.array_equal(answer.mask, known.mask)
    assert loaded == ["gpu", "cpu"]
    assert "it is answered on the CPU, which takes longer." in caplog.text


def test_a_gpu_without_room_for_the_model_is_tried_again_later(
    versions: list[Version], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_full, loaded = [True], []

    def load(folder: Path) -> Segmenter:
        device = best_device().type
        loaded.append(device)
        if device == "cuda" and is_full:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        with without_gpu():
            return Predictor.load(folder)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    models = ModelPool(load=load)
    for _ in range(2):
        assert segment(models, versions[0], picture(1), ["the cat"], soon())
    assert loaded == ["cuda", "cpu"]
    assert f"no room for {versions[0].name}: it answers on the CPU" in caplog.text
    is_full.clear()
    later = time.monotonic() + model_pool.GPU_AGAIN_SECONDS + 1
    monkeypatch.setattr(model_pool.time, "monotonic", lambda: later)
    assert segment(models, versions[0], picture(1), ["the cat"], later + 30)
    assert loaded == ["cuda", "cpu", "cuda"]
