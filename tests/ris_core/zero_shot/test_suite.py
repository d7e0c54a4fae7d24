"""What every zero-shot segmenter of the catalogue has to do, whatever it is made of; weights are tiny and random."""

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import shapes
from PIL import Image
from zero_shot import tiny
from zero_shot.photos import photo

from backend.inference.model_pool import ImagePrompts, ModelPool
from backend.registry import Version
from ris_core import checkpoint_files, segmenters
from ris_core.checkpoint_files import OperatingPoint
from ris_core.data.datasets import Datasets
from ris_core.errors import CheckpointError, PromptError
from ris_core.evaluation.evaluate import evaluate
from ris_core.files import sha256
from ris_core.inference.prediction import Prediction, RawPrediction
from ris_core.inference.prompt import Box, Point, Prompt
from ris_core.inference.segmenter import PreparedImage, decide
from ris_core.inference.uncertainty import assess
from ris_core.training.pipeline import calibrate_checkpoint
from ris_core.zero_shot.loading import NETWORKS
from ris_core.zero_shot.pointer import fetched
from ris_core.zero_shot.segmenter import ZeroShotSegmenter
from ris_core.zero_shot_catalogue import CATALOGUE

Load = Callable[[str], ZeroShotSegmenter]
every = pytest.mark.parametrize("name", CATALOGUE)
clickable = pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry.clicks])
wordy = pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if not entry.clicks])

SENTENCES = ["the dog", "two cats on the left", "das rote Fahrrad 犬 🐕", "x", "the very small brown dog beside " * 16]
SIZES = [(60, 90), (90, 60), (1, 1), (2, 300), (64, 64)]
CLICK = Prompt(points=[Point(0.4, 0.5)])


@pytest.fixture(autouse=True)
def _known(request: pytest.FixtureRequest) -> None:
    if "name" in request.fixturenames and request.getfixturevalue("name") not in NETWORKS:
        pytest.skip("isn't built in yet")


@pytest.fixture
def fresh(tmp_path: Path, tiny_cache: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what fetching left, to be damaged; `RIS_CACHE` while the test runs."""
    tiny.pointer(name, tiny_cache)
    own = tmp_path / "cache"
    for part in [source["folder"] for source in _sources(tiny_cache, name).values()]:
        shutil.copytree(tiny_cache / part, own / part, dirs_exist_ok=True)
    pointer = Path("zero-shot") / name
    shutil.copytree(tiny_cache / pointer, own / pointer)
    monkeypatch.setenv("RIS_CACHE", str(own))
    return own


def _sources(cache: Path, name: str) -> dict[str, Any]:
    sources: dict[str, Any] = checkpoint_files.read_config(cache / "zero-shot" / name)["sources"]
    return sources


def alike(one: RawPrediction, other: RawPrediction) -> None:
    np.testing.assert_allclose(one.probability, other.probability, atol=2e-3)
    assert (one.presence, one.quality) == pytest.approx((other.presence, other.quality), abs=1e-3)
    assert len(one.things) == len(other.things)
    for thing, same in zip(one.things, other.things, strict=True):
        assert np.mean(thing ^ same) < 0.01


@every
def test_the_catalogue_says_whether_it_takes_clicks(segmenter: Load, name: str) -> None:
    assert segmenter(name).network.clickable == CATALOGUE[name].clicks
    assert name in checkpoint_files.ZERO_SHOT and len(checkpoint_files.ZERO_SHOT) == len(CATALOGUE)


@every
def test_many_prompts_at_once_as_one_by_one(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    image = own.embed(photo(60, 90))
    for sentence, together in zip(SENTENCES, own.predict_raw([(image, SENTENCES)]), strict=True):
        [alone] = own.predict_raw([(own.embed(photo(60, 90)), [sentence])])
        alike(together, alone)


@every
def test_photos_of_all_sizes_at_once_as_alone(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    images = [photo(*size, seed=number) for number, size in enumerate(SIZES)]
    requests = [(image, SENTENCES[:2]) for image in own.embed_all(images)]
    together = own.predict_raw(requests)
    for number, image in enumerate(images):
        answers = together[2 * number : 2 * number + 2]
        for answer, alone in zip(answers, own.predict_raw([(own.embed(image), SENTENCES[:2])]), strict=True):
            alike(answer, alone)
            assert answer.probability.shape == image.shape[:2]
            assert 0 <= answer.presence <= 1 and 0 <= answer.quality <= 1


@every
def test_things_make_up_the_mask(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    for raw in own.predict_raw([(own.embed(photo(60, 90)), SENTENCES)]):
        if raw.things:
            mask = raw.probability >= own.point.mask
            assert np.array_equal(np.sum(list(raw.things), axis=0), mask.astype(int))


@every
@pytest.mark.parametrize("prompt", ["", "  \n", Prompt("")])
def test_an_empty_prompt_is_refused(segmenter: Load, name: str, prompt: Any) -> None:
    own = segmenter(name)
    image = own.embed(photo(60, 90))
    with pytest.raises(PromptError):
        own.segment(image, [prompt if isinstance(prompt, str) else prompt.sentence])
    assert own.segment(image, []) == []


class Encodes:
    """Counts the photos that a segmenter encodes while it is entered."""

    def __init__(self, own: ZeroShotSegmenter) -> None:
        self.count, encode = 0, own.network.encode

        def counted(images: Sequence[Any]) -> list[PreparedImage]:
            self.count += len(images)
            return encode(images)

        self._patch = mock.patch.object(own.network, "encode", counted)

    def __enter__(self) -> "Encodes":
        self._patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.stop()


@clickable
def test_clicks_after_words_need_no_second_look(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    prompts: list[str | Prompt] = [
        CLICK,
        Prompt("the dog", points=[Point(0.4, 0.5), Point(0.9, 0.9, positive=False)]),
        Prompt(box=Box(0.1, 0.1, 0.8, 0.9)),
        Prompt(mask=np.tri(60, 90, dtype=bool), points=[Point(0.2, 0.5)]),
    ]
    with Encodes(own) as encodes:
        image = own.embed(photo(60, 90))
        own.segment(image, ["the dog", "a cat"])
        answers = own.segment(image, prompts)
    assert encodes.count == 1
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.present and answer.mask.any() and answer.mask.shape == (60, 90)
        [alone] = own.segment(own.embed(photo(60, 90)), [prompt])
        assert np.mean(alone.mask ^ answer.mask) < 0.02


@wordy
def test_where_it_takes_no_clicks_it_says_what_to_do(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    image = own.embed(photo(60, 90))
    with pytest.raises(PromptError, match="Use words, or another model"):
        own.segment(image, ["the dog", CLICK])
    assert len(own.segment(image, ["the dog"])) == 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes.make(tmp_path_factory.mktemp("shapes"), photos=14)


@every
def test_calibration_gives_another_version_without_weights(
    tmp_path: Path, fresh: Path, dataset: Path, name: str
) -> None:
    source, out, heard = tmp_path / "source", tmp_path / "calibrated", []
    checkpoint_files.with_point(fresh / "zero-shot" / name, OperatingPoint(instance=0.25), source)
    folder = calibrate_checkpoint(
        str(source), Datasets.read([dataset]), out, 0.9, lambda stage, done, total: heard.append(stage)
    )
    assert folder == out and sorted(file.name for file in folder.iterdir()) == ["card.md", "config.json"]
    before, after = (checkpoint_files.read_config(place) for place in (source, folder))
    assert before["sources"] == after["sources"] and heard
    assert checkpoint_files.version(folder) != checkpoint_files.version(source)
    own = segmenters.load(folder)
    # What was measured is what is written: things counted from this score on.
    assert own.point.instance == 0.25
    assert own.version == checkpoint_files.version(folder) and own.point == checkpoint_files.operating_point(folder)
    assert f"ris calibrate --model {name}-" in (folder / "card.md").read_text()


@every
def test_evaluation(segmenter: Load, dataset: Path, name: str) -> None:
    samples = Datasets.read([dataset]).validation
    report = evaluate(segmenter(name), samples)
    assert len(report.scores) == len(samples) > 2
    assert all(0 <= score.iou <= 1 for score in report.scores)


@every
def test_a_file_with_another_byte_is_refused_by_name(fresh: Path, name: str) -> None:
    for source in _sources(fresh, name).values():
        for file in source["files"]:
            path = fresh / source["folder"] / file
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
            with pytest.raises(CheckpointError, match=f"{file} isn't the file .*ris fetch {name}".replace("+", r"\+")):
                segmenters.load(name)
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
    assert segmenters.load(name).version.startswith(name)


@every
def test_without_weights_it_says_what_to_run_and_what_that_takes(
    fresh: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = CATALOGUE[name]
    says = [f"ris fetch {name}", f"{entry.disk / 1000:.1f} GB of disk", f"{entry.memory / 1000:.1f} GB of memory"]
    (fresh / next(iter(_sources(fresh, name).values()))["folder"] / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing") as partly:
        segmenters.load(name)
    monkeypatch.setenv("RIS_CACHE", str(tmp_path / "empty"))
    asks: list[Callable[[], Any]] = [
        lambda: segmenters.load(name),
        lambda: segmenters.find(name),
        lambda: fetched(name),
        lambda: calibrate_checkpoint(name, Datasets({}), tmp_path / "out", None, lambda *_: None),
    ]
    errors = [str(partly.value)]
    for ask in asks:
        with pytest.raises(CheckpointError) as error:
            ask()
        errors.append(str(error.value))
    for message in errors:
        assert all(part in message for part in says) and ("grant access" in message) == entry.gated


@every
def test_what_choosing_the_next_label_asks(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    images = own.embed_all([photo(60, 90), photo(90, 60)])
    [[dog, cat], [bird]] = assess(own, [(images[0], ["the dog", "a cat"]), (images[1], ["a bird"])], passes=3)
    assert dog.disagreement is cat.disagreement is bird.disagreement is None
    assert dog.embedding.shape == bird.embedding.shape and np.isfinite(dog.embedding).all()
    assert not np.allclose(dog.embedding, cat.embedding)
    channels, *cells = own.deepest_features(images[0]).shape
    assert channels > 0 and len(cells) == 2


@every
def test_vectors_tell_sentences_apart(segmenter: Load, name: str) -> None:
    own = segmenter(name)
    vectors = own.vectors(["the dog", " the  dog ", "a red car"])
    assert len(vectors) == 3
    near, far = own.distances(["a dog", "a red car"], ["the dog"])
    assert 0 <= near < far <= 2


@pytest.fixture
def pooled(fresh: Path, name: str) -> Iterator[tuple[ModelPool, Version]]:
    folder = fresh / "zero-shot" / name
    yield ModelPool(), Version(checkpoint_files.version(folder), folder)


@every
def test_a_pool_answers_a_second_prompt_from_the_kept_embedding(
    segmenter: Load, pooled: tuple[ModelPool, Version], name: str
) -> None:
    pool, version = pooled
    file = io.BytesIO()
    Image.fromarray(photo(60, 90)).save(file, "PNG")
    picture = file.getvalue()

    def ask(*prompts: str | Prompt) -> Sequence[Prediction]:
        request = ImagePrompts(picture, prompts, sha256(picture))
        [answers] = pool.segment_all(version, [request], time.monotonic() + 60, guessed=["the dog"])
        assert not isinstance(answers, Exception)
        return answers

    [first] = ask("the dog")
    [own] = pool._predictors.values()
    assert isinstance(own, ZeroShotSegmenter) and own.version == version.name
    with Encodes(own) as encodes:
        second, third = ask("a cat", "the dog")
        clicked = ask(CLICK) if CATALOGUE[name].clicks else []
    assert encodes.count == 0 and all(answer.mask.any() for answer in clicked)
    assert (second.prompt, third.prompt) == ("a cat", "the dog")
    assert np.array_equal(first.mask, third.mask) and first.score == pytest.approx(third.score)
    raw = segmenter(name).predict_raw([(segmenter(name).embed(photo(60, 90)), ["the dog"])])
    assert np.array_equal(decide("the dog", raw[0], OperatingPoint(), guessed=True).mask, first.mask)


@every
def test_the_name_changes_with_a_threshold(tmp_path: Path, tiny_cache: Path, name: str) -> None:
    folder = tiny.pointer(name, tiny_cache)
    checkpoint_files.with_point(folder, OperatingPoint(instance=0.5), tmp_path / "other")
    with mock.patch.dict(os.environ, RIS_CACHE=str(tiny_cache)):
        own, other = segmenters.load(folder), segmenters.load(tmp_path / "other")
    assert own.version != other.version and own.fingerprint != other.fingerprint
    assert other.point.instance == 0.5
