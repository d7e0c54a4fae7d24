"""Florence-2 beside the library's own pipeline: processor, generation with pixels, post-processing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL.Image import fromarray
from transformers import AutoTokenizer, Florence2ForConditionalGeneration, Florence2Processor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from zero_shot import tiny_whole
from zero_shot.photos import photo

from ris_core.inference.frame import Image
from ris_core.zero_shot.florence2 import Florence2
from ris_core.zero_shot.network import Found, Published
from ris_core.zero_shot.polygons import BINS, Polygon, filled

SENTENCES = ["the dog", "zebra", "a cat on the left", "die Straße 犬", "two birds"]
SIZES = [(60, 90), (90, 60), (1, 1), (2, 300)]
TASK = "<REFERRING_EXPRESSION_SEGMENTATION>"
PLACES = 10
# How the authors have it written, and no longer than here.
WAY = {"num_beams": 3, "do_sample": False, "early_stopping": True, "no_repeat_ngram_size": 3}
ENDS = {"forced_bos_token_id": 0, "forced_eos_token_id": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("florence-2")
    torch.manual_seed(0)
    tiny_whole.florence2(made)
    return made


@pytest.fixture(scope="module")
def network(folder: Path) -> Florence2:
    return Florence2.load(folder).eval()


@pytest.fixture(scope="module")
def processor(folder: Path) -> Florence2Processor:
    words = AutoTokenizer.from_pretrained(folder)
    words.image_token, words.image_token_id = "<mask>", 4
    side = {"height": Florence2.side, "width": Florence2.side}
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = CLIPImageProcessorPil(
        size=side, crop_size=side, do_center_crop=False, resample=3, image_mean=mean, image_std=deviation
    )
    images.image_seq_length = PLACES
    return Florence2Processor(images, words, post_processor_config={"polygons": {}})


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def found(network: Florence2, image: Image, sentences: list[str]) -> list[Found]:
    [prepared] = network.encode([image])
    return network.find(prepared, sentences, 0.99)


def inputs_of(processor: Florence2Processor, image: Image, sentence: str) -> Any:
    return processor(text=TASK + sentence, images=fromarray(image), return_tensors="pt")


@pytest.mark.parametrize("size", SIZES)
def test_photos_are_taken_as_the_processor_takes_them(
    network: Florence2, processor: Florence2Processor, size: tuple[int, int]
) -> None:
    taken: list[torch.Tensor] = []
    run = network.network.get_image_features
    with mock.patch.object(network.network, "get_image_features", lambda x: taken.append(x) or run(x)):
        [image] = network.encode([photo(*size)])
    theirs = inputs_of(processor, photo(*size), "x").pixel_values
    torch.testing.assert_close(taken[0], theirs.float(), atol=5e-6, rtol=0)
    assert image.frame.size == size and image.levels[0][0].shape == (1, PLACES, 32)


@pytest.mark.parametrize("sentence", [*SENTENCES, "</s><image> <loc_3>"])
def test_requests_are_the_processors(network: Florence2, processor: Florence2Processor, sentence: str) -> None:
    numbers = inputs_of(processor, photo(9, 9), sentence).input_ids[0].tolist()
    assert numbers[:PLACES] == [4] * PLACES and network.request(sentence, PLACES) == numbers[PLACES:]


@pytest.mark.parametrize("sentence", ["x" * 500, "犬" * 500, "the dog " * 60])
def test_too_long_a_sentence_is_cut_not_the_request(network: Florence2, sentence: str) -> None:
    request = network.request(sentence, PLACES)
    assert len(request) + PLACES == network.network.config.text_config.max_position_embeddings
    text = network._words.decode(request)
    assert text.startswith("<s>Locate ") and text.endswith(" in the image with mask</s>")
    [own] = found(network, photo(60, 90), [sentence])
    assert own.presence in (0.0, 1.0)


@pytest.mark.parametrize("size", SIZES)
def test_finds_what_the_library_writes(
    folder: Path, network: Florence2, processor: Florence2Processor, size: tuple[int, int]
) -> None:
    model = Florence2ForConditionalGeneration.from_pretrained(folder).eval()
    for sentence, own in zip(SENTENCES, found(network, photo(*size), SENTENCES), strict=True):
        inputs = inputs_of(processor, photo(*size), sentence)
        numbers = model.generate(**inputs, max_new_tokens=Florence2.most_words, **WAY, **ENDS)
        text = processor.batch_decode(numbers, skip_special_tokens=False)[0]
        things = processor.post_process_generation(text, task=TASK, image_size=(BINS, BINS))[TASK]["polygons"]
        drawn = [mask for thing in things if (mask := _outline(thing)).any()]
        assert len(own.masks) == len(drawn) and own.presence == float(bool(drawn)) and own.apart
        for mask, expected in zip(own.masks, drawn, strict=True):
            assert set(mask.unique().tolist()) <= {-10.0, 10.0} and np.array_equal((mask > 0).numpy(), expected)


def _outline(thing: list[list[int]]) -> np.ndarray:
    """Of corners in bins, column and row after each other; `test_polygons` compares filling with Pillow's."""
    polygons = [Polygon(np.array(corners).reshape(-1, 2), (0, 0)) for corners in thing]
    return filled(polygons, (Florence2.side, Florence2.side))


def test_some_answers_have_things_and_they_differ(network: Florence2) -> None:
    answers = [own for size in SIZES for own in found(network, photo(*size), SENTENCES)]
    masks = [own.masks for own in answers if len(own.masks)]
    assert len(masks) > len(answers) // 2 and not all(torch.equal(own, masks[0]) for own in masks)


def test_scores_are_the_mean_likelihood_of_a_polygons_words(folder: Path, network: Florence2) -> None:
    """As `compute_transition_scores` has them, where nothing is forced and nothing forbidden."""
    model = Florence2ForConditionalGeneration.from_pretrained(folder).eval()
    [image] = network.encode([photo(60, 90)])
    seen = image.levels[0][0]
    states, attended = network._read(seen, [network.request("the dog", PLACES)])
    from transformers.modeling_outputs import BaseModelOutput

    output = model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        attention_mask=attended,
        max_new_tokens=9,
        num_beams=3,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    theirs = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices).exp()
    ours = network._likelihoods(output.sequences[0], states, attended)
    # The end is forced, since there is room for no more.
    torch.testing.assert_close(ours[:-1], theirs[0, :-1], atol=1e-5, rtol=1e-4)
    written = network._words.convert_tokens_to_ids(
        ["<loc_5>", "<loc_100>", "<loc_900>", "<loc_100>", "<loc_900>", "<loc_900>"]
    )
    [mask, *others] = (own := network._found(torch.tensor([2, 0, *written, 2]), torch.arange(8) / 10)).masks
    assert mask.shape == (96, 96) and not others and own.qualities.tolist() == [1.0]
    assert own.scores.tolist() == pytest.approx([0.35])


def test_nothing_written_is_nothing_found(network: Florence2) -> None:
    own = network._found(torch.tensor([2, 0, 2]), torch.ones(2))
    assert own.masks.shape == (0, 96, 96) and own.scores.shape == (0,) and own.presence == 0.0


def test_sentences_together_as_alone(network: Florence2, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = found(network, photo(60, 90), SENTENCES)
    monkeypatch.setattr(Published, "photos_together", 4)
    for one, other in zip(found(network, photo(60, 90), SENTENCES), alone, strict=True):
        assert torch.equal(one.masks, other.masks)
        torch.testing.assert_close(one.scores, other.scores, atol=1e-4, rtol=1e-3)


def test_photos_together_as_alone(network: Florence2) -> None:
    images = [photo(60, 90), photo(5, 200), photo(1, 1)]
    for image, together in zip(images, network.encode(images), strict=True):
        [alone] = network.encode([image])
        torch.testing.assert_close(together.levels[0][0], alone.levels[0][0], atol=1e-4, rtol=1e-4)
        assert together.levels[0][0].untyped_storage().nbytes() == together.levels[0][0].nbytes
        assert network.features(together).shape == (32, 3, 3)


def test_a_photo_is_seen_once(network: Florence2) -> None:
    [image] = network.encode([photo(60, 90)])
    with mock.patch.object(network.network.model.vision_tower, "forward", side_effect=AssertionError):
        assert len(network.find(image, SENTENCES, 0.0)) == len(SENTENCES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(folder: Path, dtype: torch.dtype) -> None:
    half = Florence2.load(folder).eval().to(dtype)
    for own in found(half, photo(60, 90), SENTENCES):
        assert own.masks.dtype == own.scores.dtype == torch.float32 and torch.isfinite(own.scores).all()
