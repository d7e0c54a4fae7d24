"""Tasks in, predictions out, with the real predictor: exactly one a task, whatever is wrong with some."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import random_checkpoint
from PIL import Image

from backend.errors import FetchError, LabelStudioUnreachable, TooMany
from backend.inference.model_pool import ModelBusy, ModelPool
from backend.inference.predict import FAILED, Prelabeller, RequestLimits
from backend.inference.project_model import OPENED, ProjectModels
from backend.labelstudio.images import ImageResolver
from backend.labelstudio.label_config import parse
from backend.labelstudio.masks import brush
from backend.labelstudio.regions import read_annotation
from backend.registry import Registry, RegistryError
from backend.settings import Settings
from ris_core.data import split_of
from ris_core.errors import ImageError, PromptError

CONFIG = parse(
    '<View><Image name="img" value="$photo"/><TextArea name="prompt" toName="img"/>'
    '<BrushLabels name="brush" toName="img"><Label value="cat"/><Label value="other" alias="o"/></BrushLabels></View>'
)

WITH_ABSENT = parse(
    '<View><Image name="img" value="$photo"/><TextArea name="prompt" toName="img"/>'
    '<BrushLabels name="brush" toName="img"><Label value="cat"/><Label value="other" alias="o"/></BrushLabels>'
    '<Choices name="absent" toName="img"><Choice value="Not in this picture"/></Choices></View>'
)

# Random weights are sure of nothing.
KNOBS: dict[str, Any] = {"prelabel_labels": False, "prelabel_min_score": 0}


def data_uri(shade: int = 0, size: tuple[int, int] = (40, 30)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, (shade, 9, 9)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def task(number: int = 1, photo: object = None, **data: object) -> dict[str, Any]:
    return {"id": number, "data": {"photo": data_uri() if photo is None else photo, **data}}


def typed(text: str) -> dict[str, Any]:
    return {
        "result": [{"id": "t", "type": "textarea", "from_name": "prompt", "to_name": "img", "value": {"text": [text]}}]
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "finds": random_checkpoint(root / "finds"),
        "tuned": random_checkpoint(root / "tuned", seed=1),
        "refuses": random_checkpoint(root / "refuses", finds=False),
    }


@pytest.fixture
def images(tmp_path: Path) -> ImageResolver:
    # Nothing listens there: whoever asks Label Studio finds it gone.
    return ImageResolver("http://127.0.0.1:1", "token", cache=tmp_path / "images")


@pytest.fixture
def make(
    tmp_path: Path, folders: dict[str, Path], images: ImageResolver, make_settings: Callable[..., Settings]
) -> Callable[..., Prelabeller]:
    """Makes a prelabeller; `knobs` are settings, other options those of `Models`."""

    def make_prelabeller(
        model: str = "finds", limits: RequestLimits | None = None, knobs: dict[str, Any] | None = None, **options: Any
    ) -> Prelabeller:
        registry = options.pop("registry", None) or Registry(tmp_path / "models", folders[model])
        project_models = ProjectModels(registry, make_settings(**{**KNOBS, **(knobs or {})}))
        return Prelabeller(project_models, images, ModelPool(**options), limits)

    return make_prelabeller


@pytest.fixture
def base(tmp_path: Path, folders: dict[str, Path], make_settings: Callable[..., Settings]) -> str:
    registry = Registry(tmp_path / "models", folders["finds"])
    return ProjectModels(registry, make_settings(**KNOBS)).of(7, CONFIG).name


def test_a_typed_sentence_becomes_one_labelled_mask(make: Callable[..., Prelabeller], base: str) -> None:
    [prediction] = make().predict([task()], CONFIG, 7, typed("the Cat on the left"))
    [region] = prediction["result"]
    assert prediction["model_version"] == base
    assert isinstance(prediction["score"], float)
    assert 0 <= prediction["score"] <= 1
    assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "brush", "img")
    assert (region["original_width"], region["original_height"]) == (40, 30)
    assert region["value"]["brushlabels"] == ["cat"]
    assert brush.decode(region["value"]["rle"], 30, 40).all()


def test_a_label_with_an_alias_is_called_by_it(make: Callable[..., Prelabeller]) -> None:
    [prediction] = make().predict([task()], CONFIG, 7, typed("a zebra"))
    assert prediction["result"][0]["value"]["brushlabels"] == ["o"]


def test_what_is_not_there_is_an_empty_answer(make: Callable[..., Prelabeller]) -> None:
    [prediction] = make("refuses").predict([task()], CONFIG, 7, typed("the cat"))
    assert prediction["result"] == []
    assert not prediction["model_version"].endswith(FAILED)


@pytest.mark.parametrize("context", [None, {}, {"result": []}, {"result": [{"type": "keypointlabels"}]}])
def test_nothing_asked_for_is_done_without_fetching_the_image(
    make: Callable[..., Prelabeller], base: str, context: dict[str, Any] | None
) -> None:
    [prediction] = make().predict([task(photo="/data/upload/1/a.png")], CONFIG, 7, context)
    assert prediction == {"result": [], "score": 0.0, "model_version": base}


def test_a_task_that_somebody_opens_stays_open_until_something_is_asked(make: Callable[..., Prelabeller]) -> None:
    """Else every label would be tried while a person waits; to store nothing keeps the task for a batch."""
    prelabeller = make(knobs={"prelabel_labels": True})
    assert prelabeller.predict([task()], CONFIG, 7) == [[]]
    both = prelabeller.predict([task(1), task(2)], CONFIG, 7)
    assert [bool(prediction["result"]) for prediction in both] == [True, True]
    assert not any(prediction["model_version"].endswith(OPENED) for prediction in both)


def test_a_batch_answers_each_task_in_order(make: Callable[..., Prelabeller], base: str) -> None:
    tasks = [task(1, prompt="the cat"), task(2), task(3, prompts=["the cat", "a dog"])]
    predictions = make().predict(tasks, CONFIG, 7)
    assert [prediction["model_version"] for prediction in predictions] == [base] * 3
    kinds = [[region["type"] for region in prediction["result"]] for prediction in predictions]
    assert kinds == [["brushlabels", "textarea"], [], ["brushlabels", "brushlabels", "textarea"]]


def test_a_batch_prediction_reads_back_as_masks_with_their_sentences(make: Callable[..., Prelabeller]) -> None:
    [prediction] = make().predict([task(prompts=["the cat", "a dog"])], CONFIG, 7)
    read = read_annotation(prediction["result"], CONFIG)
    assert [(mask.prompt, mask.label) for mask in read.masks] == [("the cat", "cat"), ("a dog", "other")]
    assert read.prompts == ("the cat", "a dog")


def test_a_share_of_the_held_out_photos_is_shown_without_a_prediction(make: Callable[..., Prelabeller]) -> None:
    """All of them here; who types in one of them is answered, and its score tells nobody which it is."""
    uris = [data_uri(shade) for shade in range(40)]
    digests = [hashlib.sha256(base64.b64decode(uri.partition(",")[2])).hexdigest() for uri in uris]
    held_out = [split_of(digest) != "train" for digest in digests]
    assert 0 < sum(held_out) < 20
    tasks = [task(number, uri, prompt="the cat") for number, uri in enumerate(uris)]
    limits = RequestLimits(batch_from=100)
    blind, shown = (
        make(limits=limits, knobs={"prelabel_blind": share}).predict(tasks, WITH_ABSENT, 7) for share in (1.0, 0.0)
    )
    assert [prediction["result"] == [] for prediction in blind] == held_out
    assert all(prediction["result"] for prediction in shown)
    assert [prediction["score"] for prediction in blind] == [prediction["score"] for prediction in shown]
    assert len({prediction["model_version"] for prediction in [*blind, *shown]}) == 1
    number = held_out.index(True)
    one, blinding = tasks[number], make(knobs={"prelabel_blind": 1.0})
    [answer] = blinding.predict([one], WITH_ABSENT, 7, typed("the cat"))
    assert answer["result"]
    # Where a bare Submit says that nothing is there, nothing is hidden.
    [plain] = blinding.predict([one], CONFIG, 7)
    assert plain["result"]


def test_a_batch_keeps_the_sentence_of_what_is_not_there(make: Callable[..., Prelabeller]) -> None:
    [prediction] = make("refuses").predict([task(prompt="a unicorn")], CONFIG, 7)
    read = read_annotation(prediction["result"], CONFIG)
    assert read.masks == ()
    assert read.prompts == ("a unicorn",)


def test_a_confident_refusal_is_not_urgent(make: Callable[..., Prelabeller]) -> None:
    """The score orders the queue of tasks: low means look at me first."""
    finds, refuses = (
        make(model).predict([task()], CONFIG, 7, typed("the cat"))[0]["score"] for model in ("finds", "refuses")
    )
    # P(there) times the expected IoU, and P(not there).
    assert 0 < finds < 1 - refuses < 1


def test_without_a_textarea_a_batch_gives_masks_alone(make: Callable[..., Prelabeller]) -> None:
    config = parse(
        '<View><Image name="img" value="$photo"/>'
        '<BrushLabels name="b" toName="img"><Label value="x"/></BrushLabels></View>'
    )
    [prediction] = make().predict([task(prompt="the cat")], config, 7)
    assert [region["type"] for region in prediction["result"]] == ["brushlabels"]


BAD_TASKS: dict[str, dict[str, Any]] = {
    "damaged image": task(2, "data:image/png;base64,AAAA", prompt="the cat"),
    "no image": {"id": 2, "data": {"prompt": "the cat"}},
    "image is a number": task(2, 5, prompt="the cat"),
    "file of this machine": task(2, "/etc/passwd", prompt="the cat"),
    "private address": task(2, "http://169.254.169.254/a.png", prompt="the cat"),
    "long prompt": task(2, prompt="x" * 501),
    "too many prompts": task(2, prompts=[str(n) for n in range(33)]),
    "prompt is a number": task(2, prompt=5),
}


@pytest.mark.parametrize("bad", BAD_TASKS)
def test_a_bad_task_costs_itself_alone(
    make: Callable[..., Prelabeller], base: str, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = task(1, prompt="the cat")
    predictions = make().predict([good, BAD_TASKS[bad], good], CONFIG, 7)
    assert [prediction["model_version"] for prediction in predictions] == [base, base + FAILED, base]
    assert predictions[1]["result"] == []
    assert len(predictions[2]["result"]) == 2
    assert "Task 2 of project 7 is left out." in caplog.text


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (task(photo="data:image/png;base64,AAAA"), ImageError),
        (task(photo="http://169.254.169.254/a.png"), FetchError),
    ],
)
def test_in_the_editor_a_bad_image_fails_the_request(
    make: Callable[..., Prelabeller], bad: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        make().predict([bad], CONFIG, 7, typed("the cat"))


@pytest.mark.parametrize("text", ["", "x" * 501])
def test_in_the_editor_a_bad_sentence_fails_the_request(make: Callable[..., Prelabeller], text: str) -> None:
    with pytest.raises(PromptError):
        make().predict([task()], CONFIG, 7, typed(text))


@pytest.mark.parametrize("context", [None, typed("the cat")])
def test_without_label_studio_the_request_fails_as_a_whole(
    make: Callable[..., Prelabeller], context: dict[str, Any] | None
) -> None:
    """So Label Studio stores nothing, and asks again."""
    tasks = [task(1, prompt="the cat"), task(2, "/data/upload/1/a.png", prompt="the cat")]
    with pytest.raises(LabelStudioUnreachable):
        make().predict(tasks[1:] if context else tasks, CONFIG, 7, context)


def test_a_damaged_registry_fails_the_request(make: Callable[..., Prelabeller], tmp_path: Path) -> None:
    prelabeller = make()
    pointer = tmp_path / "models" / "project-7" / "production.json"
    pointer.parent.mkdir(parents=True)
    pointer.write_text("{")
    with pytest.raises(RegistryError):
        prelabeller.predict([task(prompt="the cat")], CONFIG, 7)


def test_the_first_prediction_after_a_promotion_is_the_new_versions(
    make: Callable[..., Prelabeller], tmp_path: Path, folders: dict[str, Path]
) -> None:
    registry = Registry(tmp_path / "models", folders["finds"])
    prelabeller = make(registry=registry)
    request = [task()], CONFIG, 7, typed("the cat")
    before = prelabeller.predict(*request)[0]
    # As another process does it: the worker.
    other = Registry(tmp_path / "models", folders["finds"])
    tuned = other.promote(7, other.add(7, folders["tuned"], {}).name)
    after = prelabeller.predict(*request)[0]
    names = [prediction["model_version"].rpartition(".")[0] for prediction in (before, after)]
    assert names == [registry.base.name, tuned.name]
    assert before["score"] != after["score"]
    [elsewhere] = prelabeller.predict([task()], CONFIG, 8, typed("the cat"))
    assert elsewhere["model_version"].startswith(registry.base.name)


class Slow(dict[str, Any]):
    """A task that takes its time to read."""

    def __init__(self, number: int, wait: Callable[[], object]) -> None:
        super().__init__(id=number)
        self.wait = wait

    def get(self, key: str, default: Any = None) -> Any:
        self.wait()
        return super().get(key, default)


SAYS = parse(
    '<View><Image name="img" value="$photo"/><TextArea name="prompt" toName="img"/>'
    '<TextArea name="ris_answer" toName="img" smart="false"/><BrushLabels name="brush" toName="img">'
    '<Label value="cat"/><Label value="dog"/></BrushLabels></View>'
)


def said(prediction: dict[str, Any]) -> list[str]:
    return [text for region in prediction["result"] if region["type"] == "textarea" for text in region["value"]["text"]]


def test_the_editor_says_what_came_of_a_prompt(make: Callable[..., Prelabeller]) -> None:
    [found] = make().predict([task()], SAYS, 7, typed("the cat"))
    assert [region["from_name"] for region in found["result"]] == ["brush", "ris_answer"]
    assert re.fullmatch(r"the cat: found, 0\.\d\d", said(found)[0])
    prelabeller = make("refuses")
    [refused] = prelabeller.predict([task()], SAYS, 7, typed("the cat"))
    assert re.fullmatch(r'the cat: not found; nearest guess 0\.\d\d \("the cat\?" shows it\)', said(refused)[0])
    # And shows it when asked to.
    [guess] = prelabeller.predict([task()], SAYS, 7, typed("the cat?"))
    mask, _ = guess["result"]
    assert mask["meta"]["text"] == ["prompt: the cat\nonly a guess: the model takes it for absent"]
    assert said(guess) == [f"the cat: only a guess, {mask['score']:.2f}"]


def test_an_unknown_noun_stays_without_a_label_and_is_said_so(make: Callable[..., Prelabeller]) -> None:
    [prediction] = make().predict([task()], SAYS, 7, typed("the cup"))
    note = 'no label is called anything like "the cup", so it has none yet: choose one'
    mask, _ = prediction["result"]
    assert (mask["value"]["brushlabels"], mask["meta"]["text"]) == ([], [f"prompt: the cup\n{note}"])
    assert said(prediction)[0].endswith(note)
    # In a batch too, where the sentence is the task's.
    [batch] = make().predict([task(prompt="the cup")], SAYS, 7)
    assert [region["value"].get("brushlabels") for region in batch["result"]] == [[], None]
    assert said(batch) == ["the cup"]


def test_a_prompt_that_is_asked_again_gives_the_same_regions(make: Callable[..., Prelabeller]) -> None:
    def ids(text: str, **more: Any) -> list[str]:
        [prediction] = make().predict([task() | more], SAYS, 7, typed(text))
        return [region["id"] for region in prediction["result"] if region["type"] == "brushlabels"]

    [prediction] = make().predict([task()], SAYS, 7, typed("the cat"))
    assert ids("The  cat") == ids("the cat") == [prediction["result"][0]["id"]]
    assert ids("the black cat") != ids("the cat")
    edited = {**prediction["result"][0], "origin": "prediction-changed"}
    assert ids("the cat", drafts=[{"result": [edited]}]) != ids("the cat")


def test_a_batch_writes_no_mask_below_the_floor(make: Callable[..., Prelabeller]) -> None:
    """People still get one where they ask for it themselves."""
    [whole] = make().predict([task(prompt="the cat")], SAYS, 7)
    score = whole["score"]
    for least, kinds in ((score - 0.01, ["brushlabels", "textarea"]), (score + 0.01, ["textarea"])):
        prelabeller = make(knobs={"prelabel_min_score": least})
        [batch] = prelabeller.predict([task(prompt="the cat")], SAYS, 7)
        assert [region["type"] for region in batch["result"]] == kinds
        [asked] = prelabeller.predict([task()], SAYS, 7, typed("the cat"))
        assert [region["type"] for region in asked["result"]] == ["brushlabels", "textarea"]
    # Nothing is shown: what it says isn't how sure a mask is.
    assert batch["score"] == pytest.approx(score / 2)


def test_tasks_where_all_was_refused_never_read_as_sure_of_a_mask(make: Callable[..., Prelabeller]) -> None:
    [prediction] = make("refuses").predict([task(prompt="the cat")], SAYS, 7)
    assert said(prediction) == ["the cat"]
    assert 0.2 < prediction["score"] <= 0.5


def test_when_time_is_up_a_batch_fails_as_a_whole(make: Callable[..., Prelabeller]) -> None:
    """So that nothing half-done is stored as done: the caller makes a background batch of it."""
    prelabeller = make(limits=RequestLimits(seconds=1.5))
    prelabeller.predict([task(prompt="the cat")], CONFIG, 7)
    tasks = [task(1, prompt="the cat"), Slow(2, lambda: time.sleep(1.6)), task(3, prompt="the cat")]
    with pytest.raises(ModelBusy):
        prelabeller.predict(tasks, CONFIG, 7)


def test_what_fits_a_request_is_told_by_number_and_by_the_pace_of_late(make: Callable[..., Prelabeller]) -> None:
    prelabeller = make(limits=RequestLimits(seconds=2.0, batch_from=64))
    assert (prelabeller.fits(63), prelabeller.fits(64)) == (True, False)
    prelabeller.predict([task(1, prompt="the cat")], CONFIG, 7)
    slow = Slow(2, lambda: time.sleep(0.2))
    prelabeller.predict([task(1, prompt="the cat"), slow, slow, slow], CONFIG, 7)
    # However fast the model is, the slow ones alone make it some 0.09 seconds a task.
    assert (prelabeller.fits(1), prelabeller.fits(63)) == (True, False)


def test_simultaneous_requests_are_answered_as_one_after_another(make: Callable[..., Prelabeller]) -> None:
    prompts = ("the cat", "a dog on the left", "something red", "the other one")
    requests = [(task(number, data_uri(7 * number)), typed(prompts[number % 4])) for number in range(32)]
    prelabeller = make(limits=RequestLimits(waiting=31))
    together: list[Any] = [None] * 32

    def ask(number: int) -> None:
        one, context = requests[number]
        [together[number]] = prelabeller.predict([one], CONFIG, 7, context)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    serial = make()
    for (one, context), prediction in zip(requests, together, strict=True):
        [alone] = serial.predict([one], CONFIG, 7, context)
        assert [region["value"] for region in prediction["result"]] == [region["value"] for region in alone["result"]]
        assert prediction["score"] == pytest.approx(alone["score"], abs=1e-6)


def test_when_time_is_up_the_editor_is_told(make: Callable[..., Prelabeller]) -> None:
    with pytest.raises(ModelBusy):
        make(limits=RequestLimits(seconds=0)).predict([task()], CONFIG, 7, typed("the cat"))


def test_more_requests_than_may_wait_are_turned_away(make: Callable[..., Prelabeller]) -> None:
    entered, leave = threading.Event(), threading.Event()
    prelabeller = make(limits=RequestLimits(waiting=1))

    def wait() -> None:
        entered.set()
        leave.wait(30)

    slow = [threading.Thread(target=prelabeller.predict, args=([Slow(1, wait)], CONFIG, 7)) for _ in range(2)]
    for thread in slow:
        entered.clear()
        thread.start()
        assert entered.wait(10)
    with pytest.raises(TooMany, match="Try again"):
        prelabeller.predict([task()], CONFIG, 7)
    leave.set()
    for thread in slow:
        thread.join()
    assert prelabeller.predict([task()], CONFIG, 7)


def test_the_limits_on_prompts_count(make: Callable[..., Prelabeller], base: str) -> None:
    prelabeller = make(knobs={"max_prompt_length": 7, "max_prompts": 1})
    tasks = [task(1, prompt="the cat"), task(2, prompt="the cats"), task(3, prompts=["a", "b"])]
    versions = [prediction["model_version"] for prediction in prelabeller.predict(tasks, CONFIG, 7)]
    assert versions == [base, base + FAILED, base + FAILED]
