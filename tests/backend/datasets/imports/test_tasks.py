"""What a labelling interface makes of a picture's objects and sentences, read back as people's annotations are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import CONFIG
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.datasets.annotations import Correction, read_task
from backend.datasets.edits import compare
from backend.datasets.imports.folders import FoundObject, FoundPicture, FoundSentence
from backend.datasets.imports.tasks import PictureResult, build_task, task_data
from backend.errors import ConfigError
from backend.labelstudio.label_config import LabelConfig, parse
from backend.labelstudio.region_checks import validate
from backend.prompts.text import clean
from ris_core.masks import encode_rle

SIZE = 9, 11
PLAIN = '<View><Image name="img" value="$image"/>{}</View>'
LABELS = '<Label value="cat"/><Label value="big dog"/>'
BRUSH = f'<BrushLabels name="brush" toName="img">{LABELS}</BrushLabels>'
BITMASK = f'<BitmaskLabels name="bits" toName="img">{LABELS}</BitmaskLabels>'
POLYGON = f'<PolygonLabels name="poly" toName="img" tolerance="2">{LABELS}</PolygonLabels>'
BOXES = f'<RectangleLabels name="boxes" toName="img">{LABELS}</RectangleLabels>'
SAYING = '<TextArea name="prompt" toName="img"/><Choices name="absent" toName="img"><Choice value="No"/></Choices>'
INTERFACES = [(BRUSH,), (BRUSH, SAYING), (BITMASK,), (BITMASK, SAYING), (POLYGON, SAYING), (BOXES, BRUSH, SAYING)]
MASKS = st.lists(arrays(np.bool_, SIZE).filter(np.any), min_size=0, max_size=4)
WORDS = st.sampled_from(["the cat", "The dog!", "both of them", "left", "a unicorn", "cat", "nothing; not this", "no"])


def interface(*parts: str) -> LabelConfig:
    return parse(PLAIN.format("".join(parts)))


def thing(number: int, mask: np.ndarray | None = None, category: str = "cat", **more: Any) -> FoundObject:
    return FoundObject(number, category, None if mask is None else encode_rle(mask), **more)


def block(top: int, left: int, down: int = 3, across: int = 3) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[top : top + down, left : left + across] = True
    return mask


def picture(objects: Sequence[FoundObject], sentences: Sequence[FoundSentence] = ()) -> FoundPicture:
    return FoundPicture("a.png", Path("a.png"), SIZE, tuple(objects), tuple(sentences), is_annotated=True)


def read(result: PictureResult, config: LabelConfig) -> Correction:
    task = {"id": 1, "data": {"image": "a"}, "annotations": [{"id": 1, "result": result.regions}]}
    correction = read_task(task, config)
    assert correction is not None
    return compare(correction, None)


def said(correction: Correction) -> dict[str, set[bytes]]:
    masks = {drawn.region: drawn.mask().tobytes() for drawn in correction.objects}
    return {said.cleaned: {masks[region] for region in said.regions} for said in correction.expressions}


@settings(max_examples=150, deadline=None)
@given(
    masks=MASKS,
    labels=st.lists(st.sampled_from(["cat", "big dog", "unlabelled"]), min_size=4, max_size=4),
    meant=st.dictionaries(WORDS, st.sets(st.integers(0, 3)), max_size=5),
    parts=st.sampled_from(INTERFACES),
    origins=st.lists(st.sampled_from(["manual", "prediction", "prediction-changed"]), min_size=4, max_size=4),
)
def test_whatever_is_drawn_and_said_comes_back_or_is_told(
    masks: list[np.ndarray],
    labels: list[str],
    meant: dict[str, set[int]],
    parts: tuple[str, ...],
    origins: list[str],
) -> None:
    config = interface(*parts)
    objects = [
        thing(n, mask, labels[n], provenance={"region": f"r{n}", "origin": origins[n]}) for n, mask in enumerate(masks)
    ]
    sentences = [
        FoundSentence(text, tuple(sorted(number for number in numbers if number < len(masks))))
        for text, numbers in meant.items()
    ]
    result = build_task(picture(objects, sentences), SIZE, config, "annotations")
    correction = read(result, config)
    if result.findings:
        # A second answer to a sentence, much like the first; or what isn't there beside things without a label.
        reasons = [finding.reason for finding in result.findings]
        assert all(any(part in reason for part in ("otherwise", "too", "add <")) for reason in reasons)
        return
    drawn = {one.region: one for one in correction.objects}
    assert {name: one.mask().tobytes() for name, one in drawn.items()} == {
        f"r{n}": mask.tobytes() for n, mask in enumerate(masks)
    }
    assert all(drawn[f"r{n}"].origin == origins[n] for n in range(len(masks)))
    assert all(drawn[f"r{n}"].label == labels[n] for n in range(len(masks)) if labels[n] != "unlabelled")
    expected = {clean(text): {masks[n].tobytes() for n in numbers if n < len(masks)} for text, numbers in meant.items()}
    assert said(correction) == expected


@settings(max_examples=80, deadline=None)
@given(masks=MASKS, meant=st.dictionaries(WORDS, st.sets(st.integers(0, 3)), max_size=5))
def test_in_the_sample_interface_nothing_is_lost(masks: list[np.ndarray], meant: dict[str, set[int]]) -> None:
    """Labelled, drawn by hand and different from each other: there every sentence comes back."""
    masks = list({mask.tobytes(): mask for mask in masks}.values())
    objects = [thing(n, mask, "cat") for n, mask in enumerate(masks)]
    sentences = [FoundSentence(text, tuple(n for n in numbers if n < len(masks))) for text, numbers in meant.items()]
    result = build_task(picture(objects, sentences), SIZE, CONFIG, "annotations")
    assert result.findings == []
    assert len(said(read(result, CONFIG))) == len(meant) and result.counts["sentences"] == len(meant)


def test_the_exact_tag_is_chosen_and_predictions_are_valid() -> None:
    config = interface(POLYGON, BOXES, BRUSH)
    objects = [thing(1, block(0, 0), score=0.25), thing(2, block(4, 4), "big dog", score=0.75)]
    result = build_task(picture(objects, [FoundSentence("it", (1,))]), SIZE, config, "predictions")
    assert result.regions is not None and result.score == 0.25
    assert [region["type"] for region in result.regions] == ["brushlabels"] * 2
    assert {region["origin"] for region in result.regions} == {"prediction"}
    validate(result.regions, config)


def test_boxes_become_rectangles_or_filled_masks() -> None:
    box = [1.5, 2.0, 4.25, 3.0]
    one = picture([FoundObject(1, "cat", None, box)])
    result = build_task(one, SIZE, interface(BRUSH, BOXES), "annotations")
    (region,) = result.regions or []
    assert region["type"] == "rectanglelabels" and +result.counts == {"rectangles": 1}
    value = region["value"]
    sides = [value["x"] * 11, value["y"] * 9, value["width"] * 11, value["height"] * 9]
    assert sides == pytest.approx([100 * side for side in box])
    result = build_task(one, SIZE, interface(BRUSH), "annotations")
    (drawn,) = read(result, interface(BRUSH)).objects
    assert (drawn.mask() == block(2, 1, 3, 5)).all() and result.counts["boxes as masks"] == 1


def test_shapes_of_an_export_are_rectangles_where_they_are_boxes() -> None:
    rectangle, ellipse = ({"region": name, "shape": name} for name in ("rectangle", "ellipse"))
    notch = block(0, 0)
    notch[0, 0] = False
    objects = [thing(1, block(4, 4), provenance=rectangle), thing(2, notch, provenance=ellipse)]
    result = build_task(picture(objects), SIZE, interface(BRUSH, BOXES), "annotations")
    assert [region["type"] for region in result.regions or []] == ["rectanglelabels", "brushlabels"]
    assert result.counts["shapes as masks"] == 1 and result.findings == []
    result = build_task(picture(objects), SIZE, interface(BRUSH), "annotations")
    assert result.counts["shapes as masks"] == 2 and result.counts["rectangles"] == 0


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [9, 12], "counts": [108]}, "its image 9 x 11"),
        ({"size": [9, 11], "counts": [98]}, "cover 98 pixels"),
        ({"size": [9, 11], "counts": [-1, 100]}, ""),
        ({"size": [9, 11], "counts": "hello"}, ""),
        ({"size": [9, 11], "counts": [99]}, "covers no pixel"),
        ({"counts": "x"}, ""),
        ([[1, 2, 3, 4, 5]], "odd number"),
        ([[1e12, 0, 1e12, 5, 0, 5]], "far outside"),
        ([[float("nan")] * 6], "far outside"),
        ([["a", "b", "c", "d", "e", "f"]], ""),
        ([1, 2, 3], ""),
        ([[0, 0, 1, 1]], "covers no pixel"),
        ("text", ""),
        (7, ""),
        (None, "neither a mask nor a box"),
    ],
)
def test_a_damaged_mask_costs_itself_and_its_sentences(segmentation: Any, reason: str) -> None:
    objects = [FoundObject(1, "cat", segmentation), thing(2, block(0, 0))]
    sentences = [FoundSentence("it", (1,)), FoundSentence("that", (2,)), FoundSentence("!", (2,))]
    result = build_task(picture(objects, sentences), SIZE, CONFIG, "annotations")
    told = [finding.reason for finding in result.findings]
    assert len(told) == 3 and "annotation 1" in told[0] and reason in told[0]
    assert told[1:] == ['"it" means an annotation that isn\'t imported', '"!" has no word']
    assert len(said(read(result, CONFIG))) == 1


def test_one_sentence_of_two_things_is_told() -> None:
    objects = [thing(1, block(0, 0)), thing(2, block(4, 4))]
    sentences = [FoundSentence("a cat", (1,)), FoundSentence("A cat!", (2,)), FoundSentence("a cat", (1,))]
    result = build_task(picture(objects, sentences), SIZE, CONFIG, "annotations")
    assert "said of different things" in result.findings[0].reason
    assert len(said(read(result, CONFIG))["a cat"]) == 2


def test_what_is_not_there_needs_a_way_to_say_it() -> None:
    config = interface(POLYGON)
    result = build_task(picture([], [FoundSentence("a unicorn", ())]), SIZE, config, "annotations")
    (finding,) = result.findings
    assert finding.kind == "sentence" and 'add <Choices name="absent"' in finding.reason


def test_provenance_that_makes_no_sense_is_passed_over() -> None:
    strange = {"region": ["x"], "origin": 5, "score": "high", "ground_truth": "yes", "shape": None}
    objects = [thing(1, block(0, 0), provenance=strange), thing(2, block(3, 3), provenance={**strange})]
    result = build_task(picture(objects), SIZE, CONFIG, "annotations")
    assert not result.is_ground_truth and result.findings == []
    assert len({drawn.region for drawn in read(result, CONFIG).objects}) == 2


@pytest.mark.parametrize(
    ("key", "data"),
    [("image", {"image": "a"}), ("photo.url", {"photo": {"url": "a"}}), ("images[0]", {"images": ["a"]})],
)
def test_the_address_is_where_the_interface_looks(key: str, data: dict[str, Any]) -> None:
    config = parse(PLAIN.replace("$image", f"${key}").format(BRUSH))
    assert task_data(config, "a", "k") == {**data, "ris_import": "k"}


def test_a_place_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="can't be put"):
        task_data(parse(PLAIN.replace("$image", "$images[3]").format(BRUSH)), "a", "k")
    with pytest.raises(ConfigError, match="rectangles"):
        build_task(picture([thing(1, block(0, 0))]), SIZE, interface(BOXES), "annotations")
