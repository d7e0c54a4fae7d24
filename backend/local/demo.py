"""`ris demo`: the whole loop without a person, through a real Label Studio: pre-label, correct, learn, promote, export.

The corrections are the masks of the sample photos in samples/, drawn by us; they play the annotator's part.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from rich.console import Console
from rich.table import Table

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
from backend.queue.waiting import wait
from backend.settings import Settings
from backend.terminal import stage_bar
from ris_core.data import split_of
from ris_core.files import atomic_write, sha256
from ris_core.masks import Mask, decode_rle, iou

PROJECT = "ris demo"
# Held-out expressions that the gate asks for here; the default is for projects, not for seven photos.
_MIN_VALIDATION = 3


class DemoFailed(BackendError):
    """A step of the loop did not do what it should."""

    code = "demo_failed"


@dataclass(frozen=True)
class DemoPhoto:
    """A sample photo as a task. split: which it falls into by its content."""

    task: int
    name: str
    split: str
    masks: tuple[SampleMask, ...]


@dataclass(frozen=True)
class StoredAnswer:
    """What Label Studio holds as the prediction for a prompt. mask: None where the model saw nothing."""

    version: str
    mask: Mask | None


def run(settings: Settings, console: Console) -> None:
    """Run the loop in a new project and print before and after. Raises BackendError where a step fails."""
    config = parse(LABEL_CONFIG)
    with LabelStudio.from_settings(settings) as client:
        project = int(client.create_project(PROJECT, LABEL_CONFIG)["id"])
        photos = _import(client, project)
        prompts = sum(len(photo.masks) for photo in photos)
        lower_the_gate(settings, project, prompts)
        connect_backend(client, project, settings)
        console.print(f"Project {project}: {len(photos)} photos, {prompts} prompts. Pre-labelling ...")
        before = _predict(client, project, photos, config)
        _correct(client, photos, config)
        console.print(f"{prompts} corrections are submitted. Learning from them in the worker ...")
        jobs = JobQueue.from_settings(settings)
        with stage_bar("waiting for the worker") as on_progress:
            waited = wait(jobs, jobs.learn(project).job, on_progress)
        outcome = _learnt(settings, project, waited)
        console.print(f"{outcome['decision'].capitalize()}: {outcome['reason']}", markup=False)
        console.print(
            f"(The gate asks for {_MIN_VALIDATION} held-out expressions here; "
            f"a project needs {settings.finetune_min_validation}.)"
        )
        after = _predict(client, project, photos, config)
        console.print(_table(photos, before, after))
        folder = _export(jobs, settings, project)
        exact = _count_exact(client, project, config, folder)
    console.print(f"{exact} masks in {folder / 'instances.json'}, each equal to its annotation's bit for bit.")
    console.print(f"Look at them: {settings.label_studio_url}/projects/{project}/data", markup=False)


def lower_the_gate(settings: Settings, project: int, prompts: int) -> None:
    """Have this project learn once all its corrections are in, and be compared on the few that are held out."""
    lines = f"RIS_FINETUNE_MIN_NEW={prompts}\nRIS_FINETUNE_MIN_VALIDATION={_MIN_VALIDATION}\n"
    atomic_write(project_env_file(settings.home, project), lines.encode())


def _import(client: LabelStudio, project: int) -> list[DemoPhoto]:
    drawn = defaultdict(list)
    for mask in samples.corrections():
        drawn[mask.photo].append(mask)
    photos = []
    for name, data in samples.photos():
        task = client.upload(project, name, data)[0]
        prompts = [mask.prompts[0] for mask in drawn[name]]
        client.update_task(task, {**client.task(task)["data"], "prompts": prompts})
        photos.append(DemoPhoto(task, name, split_of(sha256(data)), tuple(drawn[name])))
    return photos


def _predict(
    client: LabelStudio, project: int, photos: list[DemoPhoto], config: LabelConfig
) -> dict[tuple[int, str], StoredAnswer]:
    """Have Label Studio retrieve predictions, and read the newest of each task back, by task and prompt."""
    client.retrieve_predictions(project)
    answers = {}
    for photo in photos:
        predictions = client.predictions(photo.task)
        if not predictions:
            raise DemoFailed(f"Label Studio got no prediction for {photo.name}. Look into the backend's log.")
        newest = max(predictions, key=lambda prediction: int(prediction["id"]))
        found = {each.prompt: each.mask for each in read_annotation(newest["result"], config).masks}
        for mask in photo.masks:
            prompt = mask.prompts[0]
            answers[photo.task, prompt] = StoredAnswer(newest["model_version"], found.get(prompt))
    return answers


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


def _export(jobs: JobQueue, settings: Settings, project: int) -> Path:
    name = f"demo-{project}"
    wait(jobs, jobs.export(project, "coco", name).job, lambda stage, share: None)
    return exports_folder(settings.home) / name


def _count_exact(client: LabelStudio, project: int, config: LabelConfig, folder: Path) -> int:
    """Compare every mask of the export with its annotation's brush. Raises DemoFailed at a difference."""
    with redirect_stdout(io.StringIO()):  # pycocotools reports on standard output
        dataset = COCO(str(folder / "instances.json"))
    exported = sorted(_exported(dataset), key=lambda pair: pair[0])
    submitted = sorted(_submitted(client, project, config), key=lambda pair: pair[0])
    if [key for key, _ in exported] != [key for key, _ in submitted]:
        raise DemoFailed(f"{folder} holds {len(exported)} masks, the annotations {len(submitted)}.")
    for (region, mask), (_, drawn) in zip(exported, submitted, strict=True):
        if not np.array_equal(mask, drawn):
            raise DemoFailed(f"The mask of region {region} in {folder} isn't the annotation's.")
    return len(exported)


def _exported(dataset: Any) -> Iterator[tuple[str, Mask]]:
    for annotation in dataset.dataset["annotations"]:
        yield annotation["ls"]["region"], decode_rle(annotation["segmentation"])


def _submitted(client: LabelStudio, project: int, config: LabelConfig) -> Iterator[tuple[str, Mask]]:
    for task in client.tasks(project):
        for annotation in task["annotations"]:
            for each in read_annotation(annotation["result"], config).masks:
                yield each.region_id, each.mask


def _table(
    photos: list[DemoPhoto], before: dict[tuple[int, str], StoredAnswer], after: dict[tuple[int, str], StoredAnswer]
) -> Table:
    table = Table("photo", "prompt", "before", "after", title="IoU of Label Studio's predictions with the corrections")
    for held_out, title in ((False, "learnt from"), (True, "held out")):
        scores = []
        for photo in photos:
            for mask in photo.masks if (photo.split != "train") is held_out else ():
                pair = [_score(answers[photo.task, mask.prompts[0]], mask) for answers in (before, after)]
                table.add_row(photo.name, mask.prompts[0], *(f"{score:.2f}" for score in pair))
                scores.append(pair)
        means = np.mean(scores, axis=0)
        table.add_row(f"[bold]mean, {title}", "", *(f"[bold]{mean:.3f}" for mean in means), end_section=True)
    names = [next(iter(answers.values())).version for answers in (before, after)]
    table.add_row("[bold]model_version", "", *names)
    return table


def _score(answer: StoredAnswer, truth: SampleMask) -> float:
    return 0.0 if answer.mask is None else iou(answer.mask, truth.mask())
