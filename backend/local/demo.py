"""`ris demo`: the whole loop without a person, through a real Label Studio: pre-label, correct, learn, promote, export.

The corrections are the masks of the sample photos in samples/, drawn by us; they play the annotator's part.
"""

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from backend import services
from backend.errors import BackendError
from backend.home import exports_folder, project_env_file
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import Label, LabelConfig, parse
from backend.labelstudio.regions import mask_regions, prompt_region, read_annotation
from backend.projects import samples
from backend.projects.connect import LABEL_CONFIG, connect_backend
from backend.projects.samples import SampleMask
from backend.queue.queue import JobQueue
from backend.settings import Settings
from ris_core.data import split_of
from ris_core.errors import CheckpointError
from ris_core.files import atomic_write, sha256
from ris_core.masks import Mask, decode_rle, iou
from ris_core.zero_shot.stand_in import stand_in

PROJECT = "ris demo"
# Held-out expressions that the gate asks for here; the default is for projects, not for seven photos.
_MIN_VALIDATION = 3
# What a teacher's answers have to be worth to be learnt from, and how many tasks it is asked about.
_SURE, _TAUGHT = 0.6, 50
_NEVER = 1_000_000


class DemoFailed(BackendError, code="demo_failed"):
    """A step of the loop did not do what it should."""


@dataclass(frozen=True)
class DemoPhoto:
    """A sample photo as a task. held_out: whether it is by its content."""

    task: int
    name: str
    held_out: bool
    masks: list[SampleMask]


Answers: TypeAlias = Mapping[tuple[int, str], Mask | None]
"""By task and prompt, the mask that Label Studio holds as the prediction; None where the model saw nothing."""


@dataclass(frozen=True)
class ComparedPrompt:
    """A prompt of a photo, and the IoU of its prediction with the correction before and after learning."""

    photo: str
    prompt: str
    held_out: bool
    before: float
    after: float


@dataclass(frozen=True)
class DemoResult:
    """What came of the loop.

    decision, reason: the gate's; asked of it here were only `min_validation` held-out expressions, and
    `usual_min_validation` of other projects. before, after: the versions that answered. masks: how many of the export
    in `folder` equal their annotations, which are all. url: of the project's tasks. teaching: see `finetune.Outcome`.
    """

    project: int
    decision: str
    reason: str
    min_validation: int
    usual_min_validation: int
    before: str
    after: str
    prompts: list[ComparedPrompt]
    masks: int
    folder: Path
    url: str
    teaching: Mapping[str, Any] | None = None


def run(
    settings: Settings,
    say: Callable[[str], object],
    on_progress: Callable[[str, float], object],
    teacher: str | None = None,
) -> DemoResult:
    """Run the loop in a new project. Raises BackendError if a step fails.

    say: takes a sentence about what is done next. on_progress: as in `JobQueue.wait`. teacher: the zero-shot segmenter
    that is in production at first, and teaches the small model; a stand-in where its weights aren't on this machine.
    """
    config = parse(LABEL_CONFIG)
    with LabelStudio.from_settings(settings) as client:
        project = int(client.create_project(PROJECT, LABEL_CONFIG)["id"])
        photos = _import(client, project)
        prompts = sum(len(photo.masks) for photo in photos)
        # Below a teacher nothing is learnt before it is asked.
        _lower_the_gate(settings, project, _NEVER if teacher else prompts)
        connect_backend(client, project, settings)
        if teacher:
            say(_put_in_production(settings, project, teacher))
            _import_more(client, project)
        say(f"Project {project}: {len(photos)} photos, {prompts} prompts. Pre-labelling ...")
        version, before = _predict(client, project, photos, config)
        _correct(client, photos, config)
        taught = f" and from what {version} says of other photos" if teacher else ""
        say(f"{prompts} corrections are submitted. Learning from them{taught} in the worker ...")
        jobs = JobQueue.from_settings(settings)
        ticket = jobs.distil(project, _SURE, _TAUGHT) if teacher else jobs.learn(project)
        outcome = _learnt(settings, project, jobs.wait(ticket.job, on_progress))
        next_version, after = _predict(client, project, photos, config)
        name = f"demo-{project}"
        jobs.wait(jobs.export(project, name, {}).job, on_progress)
        folder = exports_folder(settings.home) / name
        return DemoResult(
            project,
            outcome["decision"],
            outcome["reason"],
            _MIN_VALIDATION,
            settings.finetune_min_validation,
            version,
            next_version,
            list(_compared(photos, before, after)),
            _count_exact(client, project, config, folder),
            folder,
            f"{settings.label_studio_url}/projects/{project}/data",
            outcome.get("teaching"),
        )


def _lower_the_gate(settings: Settings, project: int, prompts: int) -> None:
    """Have this project learn once all its corrections are in, and be compared on the few that are held out."""
    enough = f"RIS_FINETUNE_MIN_NEW={prompts}\nRIS_FINETUNE_LEAST_NEW={prompts}\n"
    lines = f"{enough}RIS_FINETUNE_MIN_VALIDATION={_MIN_VALIDATION}\n"
    atomic_write(project_env_file(settings.home, project), lines.encode(), mode=0o600)


def _put_in_production(settings: Settings, project: int, teacher: str) -> str:
    """Promote the teacher, or a stand-in for it -> a sentence about it."""
    registry = services.registry(settings)
    try:
        version, what = registry.find(project, teacher), "teaches"
    except CheckpointError as error:
        pointer = stand_in(settings.home / "stand-in")
        version = registry.add(project, pointer, {"origin": "stand-in with random weights"})
        what = f"teaches in its place: a stand-in with random weights, whose masks mean nothing. {error}"
    registry.promote(project, version.name)
    return f"{version.name} {what}"


def _import_more(client: LabelStudio, project: int) -> None:
    """The photos mirrored, as tasks that nobody will annotate, each asked for its first prompt.

    None of those that are held out: their mirror images would tell.
    """
    first: dict[str, str] = {}
    for mask in samples.corrections():
        first.setdefault(mask.photo, mask.prompts[0])
    for name, data in samples.photos():
        if split_of(sha256(data)) != "train":
            continue
        file = io.BytesIO()
        ImageOps.mirror(Image.open(io.BytesIO(data)).convert("RGB")).save(file, "PNG")
        task = client.upload(project, f"mirrored-{Path(name).stem}.png", file.getvalue())[0]
        client.update_task(task, {**client.task(task)["data"], "prompts": [first[name]]})


def _import(client: LabelStudio, project: int) -> list[DemoPhoto]:
    drawn = defaultdict(list)
    for mask in samples.corrections():
        drawn[mask.photo].append(mask)
    photos = []
    for name, data in samples.photos():
        task = client.upload(project, name, data)[0]
        prompts = [mask.prompts[0] for mask in drawn[name]]
        client.update_task(task, {**client.task(task)["data"], "prompts": prompts})
        photos.append(DemoPhoto(task, name, split_of(sha256(data)) != "train", drawn[name]))
    return photos


def _predict(client: LabelStudio, project: int, photos: list[DemoPhoto], config: LabelConfig) -> tuple[str, Answers]:
    """Have Label Studio retrieve predictions, and read the newest of each task back, with the version."""
    client.retrieve_predictions(project)
    version, answers = "", dict[tuple[int, str], Mask | None]()
    for photo in photos:
        predictions = client.predictions(photo.task)
        if not predictions:
            raise DemoFailed(f"Label Studio got no prediction for {photo.name}. Look into the backend's log.")
        newest = max(predictions, key=lambda prediction: int(prediction["id"]))
        version = newest["model_version"]
        masks = {drawn.prompt: drawn.mask for drawn in read_annotation(newest["result"], config).masks}
        answers |= {(photo.task, mask.prompts[0]): masks.get(mask.prompts[0]) for mask in photo.masks}
    return version, answers


def _correct(client: LabelStudio, photos: list[DemoPhoto], config: LabelConfig) -> None:
    """Submit our masks as an annotator would who started from the predictions."""
    for photo in photos:
        predictions = client.predictions(photo.task)
        size = photo.masks[0].mask().shape
        typed = prompt_region(config, (size[0], size[1]), *(mask.prompts[0] for mask in photo.masks))
        regions = [
            region
            for mask in photo.masks
            for region in mask_regions(config, _label(config, mask), mask.mask(), 1.0, mask.prompts[0])
        ]
        client.create_annotation(photo.task, [*regions, typed], parent_prediction=predictions[-1]["id"])


def _label(config: LabelConfig, mask: SampleMask) -> Label:
    label = config.label(mask.label)
    if label is None:
        raise DemoFailed(f"The labelling interface has no label {mask.label!r}.")
    return label


def _learnt(settings: Settings, project: int, waited: dict[str, Any]) -> Mapping[str, Any]:
    """What came of learning, whichever job did it: the last submit's event may have been quicker than we."""
    card = services.registry(settings).versions(project)[-1].card
    if card.get("origin") != "fine-tuned":
        raise DemoFailed(f"Nothing was learnt. {waited['reason']}")
    return card


def _count_exact(client: LabelStudio, project: int, config: LabelConfig, folder: Path) -> int:
    """Compare every mask of the export with its annotation's brush. Raises DemoFailed at a difference."""
    with redirect_stdout(io.StringIO()):  # pycocotools reports on standard output
        rows = COCO(str(folder / "instances.json")).dataset["annotations"]
    exported = sorted(((row["ls"]["region"], decode_rle(row["segmentation"])) for row in rows), key=itemgetter(0))
    submitted = sorted(_submitted(client, project, config), key=itemgetter(0))
    if [key for key, _ in exported] != [key for key, _ in submitted]:
        raise DemoFailed(f"{folder} holds {len(exported)} masks, the annotations {len(submitted)}.")
    for (region, mask), (_, drawn) in zip(exported, submitted, strict=True):
        if not np.array_equal(mask, drawn):
            raise DemoFailed(f"The mask of region {region} in {folder} isn't the annotation's.")
    return len(exported)


def _submitted(client: LabelStudio, project: int, config: LabelConfig) -> Iterator[tuple[str, Mask]]:
    for task in client.tasks(project):
        for annotation in task["annotations"]:
            for drawn in read_annotation(annotation["result"], config).masks:
                yield drawn.region_id, drawn.mask


def _compared(photos: Iterable[DemoPhoto], before: Answers, after: Answers) -> Iterator[ComparedPrompt]:
    for photo in photos:
        for mask in photo.masks:
            prompt = mask.prompts[0]
            masks = (answers[photo.task, prompt] for answers in (before, after))
            scores = (0.0 if answer is None else iou(answer, mask.mask()) for answer in masks)
            yield ComparedPrompt(photo.name, prompt, photo.held_out, *scores)
