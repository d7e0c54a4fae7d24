"""Detectors beside the library's own pipeline: processor, one forward pass, post-processing."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    Owlv2ForObjectDetection,
    Owlv2Processor,
)
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
from zero_shot import tiny
from zero_shot.photos import photo

from ris_core.errors import CheckpointError, OutOfMemory
from ris_core.zero_shot.detector import Boxes, Detector, corners
from ris_core.zero_shot.grounding_dino import GroundingDino
from ris_core.zero_shot.owlv2 import Owlv2

SIZES = [(60, 90), (90, 60), (64, 64), (200, 50)]
SENTENCES = ["the dog", "Two CATS on the left, behind it", "x"]
ODD = ["the. dog? no. 3", "die Straße 犬 🐕", "?", "...", "[SEP]", "a photo of a <|endoftext|>"]
LONG = "the very small brown dog beside " * 60
DETECTORS = {"grounding-dino": (GroundingDino, tiny.grounding_dino), "owlv2": (Owlv2, tiny.owlv2)}
CLOSE = {"atol": 2e-4, "rtol": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, (_, make) in DETECTORS.items():
        made[name] = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        make(made[name])
    return made


@pytest.fixture(scope="module")
def detectors(folders: dict[str, Path]) -> dict[str, Detector]:
    return {name: kind.load(folders[name]).eval() for name, (kind, _) in DETECTORS.items()}


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.inference_mode():
        yield


def found(detector: Detector, size: tuple[int, int], sentence: str) -> Boxes:
    [kept] = detector.encode([photo(*size)])
    return detector.detect(kept, [sentence])[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_grounding_dino_finds_what_the_library_finds(
    folders: dict[str, Path], detectors: dict[str, Detector], size: tuple[int, int], sentence: str
) -> None:
    model = GroundingDinoForObjectDetection.from_pretrained(folders["grounding-dino"]).eval()
    bounds = {"shortest_edge": GroundingDino.shortest, "longest_edge": GroundingDino.longest}
    words = AutoTokenizer.from_pretrained(folders["grounding-dino"])
    processor = GroundingDinoProcessor(GroundingDinoImageProcessorPil(size=bounds), words)
    inputs = processor(images=photo(*size), text=f"{sentence.lower()}.", return_tensors="pt")
    theirs = model(**inputs)
    own = found(detectors["grounding-dino"], size, sentence)
    count = len(words(sentence, add_special_tokens=False)["input_ids"])
    expected = theirs.logits[0, :, 1 : 1 + count].sigmoid().amax(dim=1)
    torch.testing.assert_close(own.scores, expected, **CLOSE)
    [post] = processor.post_process_grounded_object_detection(
        theirs, inputs.input_ids, threshold=0, target_sizes=[size]
    )
    height, width = size
    pixels = own.boxes * torch.tensor([width, height, width, height])
    torch.testing.assert_close(
        pixels, torch.minimum(post["boxes"].clamp_min(0), torch.tensor([width, height] * 2)), atol=0.05, rtol=0
    )


@pytest.mark.parametrize("size", SIZES)
def test_owlv2_finds_what_the_library_finds(
    folders: dict[str, Path], detectors: dict[str, Detector], size: tuple[int, int]
) -> None:
    model = Owlv2ForObjectDetection.from_pretrained(folders["owlv2"]).eval()
    words = AutoTokenizer.from_pretrained(folders["owlv2"])
    processor = Owlv2Processor(Owlv2ImageProcessorPil(size={"height": 96, "width": 96}), words)
    asked = ["the dog", "two cats", "x", "one too long to be read"]
    inputs = processor(
        images=photo(*size), text=[asked], return_tensors="pt", padding="max_length", truncation=True, max_length=16
    )
    theirs = model(**inputs)
    [kept] = detectors["owlv2"].encode([photo(*size)])
    own = detectors["owlv2"].detect(kept, asked)
    torch.testing.assert_close(torch.stack([one.scores for one in own], dim=1), theirs.logits[0].sigmoid(), **CLOSE)
    [post] = processor.post_process_grounded_object_detection(theirs, threshold=0, target_sizes=torch.tensor([size]))
    height, width = size
    pixels = own[0].boxes * torch.tensor([width, height, width, height])
    torch.testing.assert_close(
        pixels, torch.minimum(post["boxes"].clamp_min(0), torch.tensor([width, height] * 2)), atol=0.05, rtol=0
    )


@pytest.mark.parametrize("name", DETECTORS)
def test_together_as_alone_and_kept_as_often_as_asked(
    detectors: dict[str, Detector], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = detectors[name]
    monkeypatch.setattr(Detector, "photos_together", 3)
    images = [photo(*size, seed=seed) for seed, size in enumerate([*SIZES, SIZES[0], SIZES[0]])]
    for image, kept in zip(images, detector.encode(images), strict=True):
        [alone] = detector.encode([image])
        together, again = detector.detect(kept, SENTENCES), detector.detect(kept, SENTENCES)
        for sentence, one, same in zip(SENTENCES, together, again, strict=True):
            [single] = detector.detect(alone, [sentence])
            torch.testing.assert_close(one.boxes, single.boxes, **CLOSE)
            torch.testing.assert_close(one.scores, single.scores, **CLOSE)
            assert torch.equal(one.scores, same.scores)


@pytest.mark.parametrize("name", DETECTORS)
def test_any_sentence_and_any_photo(detectors: dict[str, Detector], name: str) -> None:
    for size in [(1, 1), (2, 300), (300, 2)]:
        [kept] = detectors[name].encode([photo(*size)])
        for boxes, scores in detectors[name].detect(kept, [LONG, *ODD]):
            assert len(boxes) == len(scores)
            assert torch.isfinite(scores).all() and ((boxes >= 0) & (boxes <= 1)).all()


def test_words_see_each_other_in_a_sentence_that_is_cut(detectors: dict[str, Detector]) -> None:
    # Without the full stop at its end every word would see itself alone.
    detector = detectors["grounding-dino"]
    assert isinstance(detector, GroundingDino)
    seen = []
    hook = detector.network.register_forward_pre_hook(
        lambda module, args, options: seen.append(options), with_kwargs=True
    )
    found(detector, (60, 90), LONG)
    hook.remove()
    ids = seen[0]["input_ids"][0].tolist()
    assert len(ids) == detector.network.config.max_text_len and ids[0] == 101 and ids[-2:] == [1012, 102]


def test_a_full_stop_within_a_sentence_does_not_part_it(detectors: dict[str, Detector]) -> None:
    one, other = (found(detectors["grounding-dino"], (60, 90), text) for text in ("the dog. left?", "The dog left"))
    assert torch.equal(one.scores, other.scores)
    assert not len(found(detectors["grounding-dino"], (60, 90), " ?. ").scores)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(folders: dict[str, Path], name: str, dtype: torch.dtype) -> None:
    detector = DETECTORS[name][0].load(folders[name]).eval()
    full = found(detector, (60, 90), "the dog")
    half = found(detector.to(dtype), (60, 90), "the dog")
    assert half.boxes.dtype == half.scores.dtype == torch.float32
    assert torch.isfinite(half.boxes).all() and torch.isfinite(half.scores).all()
    assert abs(float(half.scores.max() - full.scores.max())) < 0.05


@pytest.mark.parametrize("name", DETECTORS)
def test_less_memory_takes_smaller_steps_and_none_says_so(
    detectors: dict[str, Detector], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, sizes = detectors[name], []
    monkeypatch.setattr(Detector, "photos_together", 4)
    encode = type(detector)._encode

    def limited(self: Detector, items: Any, most: int = 1) -> Any:
        sizes.append(len(items))
        if len(items) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, items)

    monkeypatch.setattr(type(detector), "_encode", limited)
    assert len(detector.encode([photo(40, 40)] * 3)) == 3 and sizes == [3, 1, 1, 1]
    monkeypatch.setattr(type(detector), "_encode", lambda self, items: limited(self, items, 0))
    with pytest.raises(OutOfMemory, match="smaller model"):
        detector.encode([photo(40, 40)] * 3)


@pytest.mark.parametrize("name", DETECTORS)
def test_damaged_files_are_refused(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    shutil.copytree(folders[name], tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="doesn't hold the weights"):
        DETECTORS[name][0].load(tmp_path)


def test_corners() -> None:
    assert corners(torch.tensor([[0.5, 0.25, 0.5, 0.5]], dtype=torch.float16)).tolist() == [[0.25, 0.0, 0.75, 0.5]]
