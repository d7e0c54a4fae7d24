"""SAM 3 beside the library's own passes: the detector's in one, the tracker's as the model for videos encodes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Sam3Model, Sam3TrackerModel, Sam3TrackerVideoModel
from zero_shot import tiny_whole
from zero_shot.photos import photo

from ris_core.errors import CheckpointError
from ris_core.zero_shot.network import Pointed, Published
from ris_core.zero_shot.sam3 import Sam3

SENTENCES = ["the dog", "Two CATS on the left, behind it", "犬", "y"]
LONG = "the very small brown dog beside " * 16
CLOSE = {"atol": 1e-4, "rtol": 1e-4}
EMPTY = torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sam3") / "files"
    torch.manual_seed(0)
    tiny_whole.sam3(made)
    return made


@pytest.fixture(scope="module")
def network(folder: Path) -> Sam3:
    return Sam3.load(folder).eval()


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def pixels(*size: int) -> torch.Tensor:
    """(1, 3, S, S). The library's processor needs torchvision; this is its resizing, and its constants."""
    side = tiny_whole.SIDE_3
    image = torch.from_numpy(photo(*size)).permute(2, 0, 1)[None].float()
    stretched = torch.nn.functional.interpolate(image, (side, side), mode="bilinear", antialias=True)
    return (stretched.round() / 255 - 0.5) / 0.5


@pytest.mark.parametrize("size", [(60, 90), (224, 224), (1, 300)])
@pytest.mark.parametrize("sentence", [*SENTENCES, LONG])
def test_finds_what_the_library_finds(folder: Path, network: Sam3, size: tuple[int, int], sentence: str) -> None:
    tokens = AutoTokenizer.from_pretrained(folder)(
        sentence, padding="max_length", max_length=32, truncation=True, return_tensors="pt"
    )
    theirs = Sam3Model.from_pretrained(folder).eval()(pixel_values=pixels(*size), **tokens)
    presence = theirs.presence_logits[0, 0].sigmoid()
    scores = theirs.pred_logits[0].sigmoid() * presence
    least = float(scores.median())
    [image] = network.encode([photo(*size)])
    [found] = network.find(image, [sentence], least)
    # Of pixels that antialiasing rounds the other way here and there.
    loose = {"atol": 0.05, "rtol": 0.05}
    assert found.presence == pytest.approx(float(presence), abs=0.01)
    assert found.apart and 0 < len(found.scores) < len(scores) and (found.qualities == 1).all()
    [all_found] = network.find(image, [sentence], 0.0)
    torch.testing.assert_close(all_found.scores, scores, **loose)
    assert ((all_found.masks > 0) == (theirs.pred_masks[0] > 0)).float().mean() > 0.98


def test_exactly_on_the_same_pixels(folder: Path, network: Sam3) -> None:
    same = photo(tiny_whole.SIDE_3, tiny_whole.SIDE_3)
    tokens = AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    [image] = network.encode([same])
    together = network.find(image, SENTENCES, 0.0)
    model = Sam3Model.from_pretrained(folder).eval()
    theirs = model(pixel_values=pixels(*same.shape[:2]).expand(len(SENTENCES), -1, -1, -1), **tokens)
    for number, found in enumerate(together):
        torch.testing.assert_close(found.masks, theirs.pred_masks[number], **CLOSE)
        scores = theirs.pred_logits[number].sigmoid() * theirs.presence_logits[number].sigmoid()
        torch.testing.assert_close(found.scores, scores, **CLOSE)


def test_sentences_together_as_alone(network: Sam3, monkeypatch: pytest.MonkeyPatch) -> None:
    [image] = network.encode([photo(60, 90)])
    alone = network.find(image, SENTENCES, 0.0)
    monkeypatch.setattr(Published, "photos_together", 4)
    for one, other in zip(network.find(image, SENTENCES, 0.0), alone, strict=True):
        torch.testing.assert_close(one.masks, other.masks, **CLOSE)
        torch.testing.assert_close(one.scores, other.scores, **CLOSE)


def click(column: float, row: float) -> Pointed:
    return Pointed(torch.tensor([[column, row]]), torch.tensor([1]))


@pytest.mark.parametrize(
    "pointed",
    [click(100, 80), Pointed(*EMPTY, box=torch.tensor([20.0, 30, 150, 200])), Pointed(*EMPTY, mask=torch.ones(56, 56))],
)
def test_draws_what_the_library_draws(folder: Path, network: Sam3, pointed: Pointed) -> None:
    same = photo(tiny_whole.SIDE_3, tiny_whole.SIDE_3)
    # The library's model for photos leaves `no_memory_embedding` out of what the decoder reads.
    video = Sam3TrackerVideoModel.from_pretrained(folder).eval()
    embeddings = video.get_image_embeddings(pixels(*same.shape[:2]))
    [image] = network.encode([same])
    for own, level in zip(network.clicks.levels(image.levels[0][0]), embeddings, strict=True):
        torch.testing.assert_close(own, level, **CLOSE)
    tracker = Sam3TrackerModel.from_pretrained(folder).eval()
    clicks = {"input_points": pointed.points[None, None], "input_labels": pointed.labels[None, None]}
    theirs = tracker(
        image_embeddings=embeddings,
        input_boxes=None if pointed.box is None else pointed.box[None, None],
        input_masks=None if pointed.mask is None else pointed.mask[None, None],
        multimask_output=len(pointed.points) == 1,
        **(clicks if len(pointed.points) else {}),
    )
    best = int(theirs.iou_scores[0, 0].argmax())
    [drawn] = network.draw(image, [pointed])
    torch.testing.assert_close(drawn.mask, theirs.pred_masks[0, 0, best], **CLOSE)
    assert drawn.quality == pytest.approx(float(theirs.iou_scores[0, 0, best]), abs=1e-4)


def test_the_tracker_of_photos_still_lacks_what_videos_have(folder: Path) -> None:
    """If this fails, the library has mended it, and `Sam3TrackerModel` may make the levels."""
    tracker = Sam3TrackerModel.from_pretrained(folder).eval()
    before = tracker.get_image_embeddings(pixels(50, 50))[-1]
    tracker.no_memory_embedding.add_(3.0)
    assert torch.equal(tracker.get_image_embeddings(pixels(50, 50))[-1], before)
    assert Sam3TrackerVideoModel.from_pretrained(folder).no_memory_embedding.abs().max() > 0


def test_words_then_clicks_take_one_pass_of_the_vision_transformer(network: Sam3) -> None:
    backbone, seen = network.detector.vision_encoder.backbone, []
    assert backbone is network.clicks.network.vision_encoder.backbone
    necks = [network.detector.vision_encoder.neck, network.clicks.network.vision_encoder.neck]
    with mock.patch.object(backbone, "forward", lambda x, run=backbone.forward: seen.append(len(x)) or run(x)):
        made: list[int] = []
        patches = [
            mock.patch.object(neck, "forward", lambda x, run=neck.forward, own=number: made.append(own) or run(x))
            for number, neck in enumerate(necks)
        ]
        with patches[0], patches[1]:
            image, other = (network.encode([photo(60, 90, seed)])[0] for seed in (1, 2))
            network.find(image, ["a dog", "a cat"], 0.0)
            network.find(image, ["a bird"], 0.0)
            network.draw(image, [click(100, 80)])
            network.draw(image, [click(50, 80)])
            again = network.find(image, ["a bird"], 0.0)[0]
            assert (seen, made) == ([1, 1], [0, 1])
            assert not torch.equal(network.find(other, ["a bird"], 0.0)[0].masks, again.masks)
            torch.testing.assert_close(network.find(image, ["a bird"], 0.0)[0].masks, again.masks)
            assert (seen, made) == ([1, 1], [0, 1, 0, 0])


def test_a_fifth_of_the_levels_is_kept(network: Sam3) -> None:
    for image in network.encode([photo(60, 90), photo(3, 7)]):
        [(seen,)] = image.levels
        assert seen.untyped_storage().nbytes() == seen.nbytes and not image.interactive


def test_features_are_what_was_seen(network: Sam3) -> None:
    [image] = network.encode([photo(60, 90)])
    assert network.features(image).shape == (32, 16, 16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(folder: Path, network: Sam3, dtype: torch.dtype) -> None:
    half = Sam3.load(folder).eval().to(dtype)
    answers: list[Any] = []
    for own in (half, network):
        [image] = own.encode([photo(60, 90)])
        answers.append((own.find(image, SENTENCES, 0.0), own.draw(image, [click(100, 80)])))
    for one, other in zip(answers[0][0], answers[1][0], strict=True):
        assert one.masks.dtype == one.scores.dtype == torch.float32
        assert one.presence == pytest.approx(other.presence, abs=0.05)
        assert ((one.masks > 0) == (other.masks > 0)).float().mean() > 0.9
    assert torch.isfinite(answers[0][1][0].mask).all()


@pytest.mark.parametrize("half", ["detector_model", "tracker_model", "tracker_neck"])
def test_a_half_that_is_missing_is_refused(folder: Path, tmp_path: Path, half: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(half)}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="is missing"):
        Sam3.load(tmp_path)
