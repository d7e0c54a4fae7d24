"""Webhooks that are lost, repeated and shuffled make no difference: the snapshot is Label Studio's own export.

A stand-in for the network keeps all that the real Label Studio sends while people work, and delivers it badly.
"""

from __future__ import annotations

import base64
import io
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import sdk
from editor import call
from labelstudio.site import Answer, Asked, serve
from PIL import Image
from pycocotools import mask as coco_mask
from running import Studio

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import mask_regions, prompt_region
from backend.labelstudio.webhooks import CREATED, SECRET_HEADER, Event
from backend.learning.events import MISSED, EventLog
from backend.learning.triggers import Reconciler
from backend.projects.connect import LABEL_CONFIG, project_url
from backend.queue.allow_list import sign_jobs
from backend.queue.queue import JobQueue, connect

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TASKS, DEEDS = 40, 90
HEIGHT, WIDTH = 48, 64
CONFIG = parse(LABEL_CONFIG)
VERSION = "by-hand-1"
SENTENCES = ("the cat", "a cup", "the flower")
Json = dict[str, Any]


def picture(number: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (number, 90, 200 - number)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass
class People:
    """Work at random, always the same at random: annotate, correct, skip, delete, and say what is true."""

    client: LabelStudio
    tasks: list[int]
    predictions: dict[int, Json]
    draw: random.Random = field(default_factory=lambda: random.Random(6))
    annotations: dict[int, int] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)

    def work(self) -> None:
        deeds = (
            self.draw_by_hand,
            self.accept,
            self.correct,
            self.empty,
            self.reject,
            self.skip,
            self.change,
            self.crown,
            self.drop,
        )
        weights = (4, 4, 4, 2, 2, 2, 4, 2, 3)
        for _ in range(DEEDS):
            self.do(self.draw.choices(deeds, weights)[0])
        self.do(self.remove)

    def do(self, deed: Any) -> None:
        if deed.__name__ in ("change", "crown", "drop") and not self.annotations:
            deed = self.draw_by_hand
        deed()
        self.done[deed.__name__] += 1

    def draw_by_hand(self) -> None:
        self.submit(self.draw.choice(self.tasks), self.regions())

    def accept(self) -> None:
        prediction = self.predictions[self.draw.choice(list(self.predictions))]
        self.submit(prediction["task"], prediction["result"], parent_prediction=prediction["id"])

    def correct(self) -> None:
        prediction = self.predictions[self.draw.choice(list(self.predictions))]
        own = mask_regions(CONFIG, CONFIG.labels[1], self.mask(), 1.0, "the cat")[0]
        # As Label Studio leaves a moved polygon: same region, other pixels, and the origin says that nothing happened.
        result = [{**prediction["result"][0], "value": own["value"]}, *prediction["result"][1:]]
        self.submit(prediction["task"], result, parent_prediction=prediction["id"])

    def empty(self) -> None:
        typed = prompt_region(CONFIG, (HEIGHT, WIDTH), self.draw.choice(SENTENCES))
        choice = {**typed, "id": "choice", "from_name": "absent", "type": "choices"}
        self.submit(self.draw.choice(self.tasks), [typed, {**choice, "value": {"choices": ["Not in this picture"]}}])

    def reject(self) -> None:
        prediction = self.predictions[self.draw.choice(list(self.predictions))]
        typed = [region for region in prediction["result"] if region["type"] == "textarea"]
        self.submit(prediction["task"], typed, parent_prediction=prediction["id"])

    def skip(self) -> None:
        self.submit(self.draw.choice(self.tasks), [], was_cancelled=True)

    def change(self) -> None:
        self.patch(result=self.regions())

    def crown(self) -> None:
        self.patch(ground_truth=True)

    def drop(self) -> None:
        annotation = self.draw.choice(list(self.annotations))
        call(self.client, "DELETE", f"/api/annotations/{annotation}/")
        del self.annotations[annotation]

    def remove(self) -> None:
        task = self.draw.choice(list(self.annotations.values()))
        call(self.client, "DELETE", f"/api/tasks/{task}/")
        self.annotations = {number: of for number, of in self.annotations.items() if of != task}

    def submit(self, task: int, result: list[Json], **more: Any) -> None:
        annotation = self.client.create_annotation(task, result, lead_time=self.draw.uniform(1, 9), **more)
        self.annotations[int(annotation["id"])] = task

    def patch(self, **fields: Any) -> None:
        annotation = self.draw.choice(list(self.annotations))
        call(self.client, "PATCH", f"/api/annotations/{annotation}/", json=fields)

    def regions(self) -> list[Json]:
        sentences = self.draw.sample(SENTENCES, self.draw.randint(1, 2))
        typed = prompt_region(CONFIG, (HEIGHT, WIDTH), *sentences)
        drawn = (mask_regions(CONFIG, CONFIG.labels[1], self.mask(), 1.0, each) for each in sentences)
        return [typed, *({**region, "origin": "manual"} for regions in drawn for region in regions)]

    def mask(self) -> np.ndarray:
        """Two boxes and a hole in the first."""
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
        for _ in range(2):
            top, left = self.draw.randrange(30), self.draw.randrange(44)
            mask[top : top + 18, left : left + 20] = True
        mask[top + 6 : top + 9, left + 5 : left + 12] = False
        return mask


@dataclass(frozen=True)
class Worked:
    """What is left when people have worked: the project, what Label Studio sent, how much of it was lost."""

    project: int
    sent: int
    lost: int
    done: Counter[str]
    missed: int
    log: EventLog


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[LabelStudio]:
    with LabelStudio(studio.url, studio.token) as client:
        yield client


@pytest.fixture(scope="module")
def worked(studio: Studio, client: LabelStudio) -> Worked:
    project = int(client.create_project("Corrections", LABEL_CONFIG)["id"])
    file = studio.home / "projects" / f"{project}.env"
    file.parent.mkdir(exist_ok=True)
    file.write_text("RIS_FINETUNE_MIN_NEW=100000\n")
    assert studio.ris("connect", "--project", str(project)).returncode == 0
    connection = connect(studio.settings.secret("redis_url"), patient=True)
    sign_jobs(studio.settings)
    log = EventLog(connection, studio.home)
    reconciler = Reconciler(log, JobQueue(connection), studio.settings.of_project)
    tasks = client.import_tasks(project, [{"image": picture(number)} for number in range(TASKS)])
    people = People(client, tasks, _predicted(client, tasks[: TASKS // 2]))
    reconciler.reconcile(client, project)
    # The worker should not look before everything was delivered.
    connection.hset(f"ris:events:{project}:state", "looked", int(time.time()) + 3600)
    with serve(lambda asked: Answer(200, b"{}")) as network:
        [webhook] = client.webhooks(project)
        client.delete_webhook(webhook["id"])
        client.create_webhook(project, f"{network.url}/webhook")
        people.work()
        sent = [asked for asked in network.asked if asked.method == "POST"]
        for webhook in client.webhooks(project):
            client.delete_webhook(webhook["id"])
    lost = _deliver_badly(studio, project, sent)
    missed = reconciler.reconcile(client, project)
    return Worked(project, len(sent), lost, people.done, missed, log)


def _predicted(client: LabelStudio, tasks: list[int]) -> dict[int, Json]:
    """A prediction for each of the tasks, by task."""
    people = People(client, tasks, {})
    found = {}
    for task in tasks:
        result = mask_regions(CONFIG, CONFIG.labels[1], people.mask(), 0.8, "the cat")
        typed = prompt_region(CONFIG, (HEIGHT, WIDTH), "the cat")
        prediction = {"task": task, "result": [*result, typed], "score": 0.8, "model_version": VERSION}
        client.import_predictions(client.task(task)["project"], [json.dumps(prediction).encode()])
        found[task] = max(client.predictions(task), key=lambda row: row["id"])
    return found


def _deliver_badly(studio: Studio, project: int, sent: list[Asked]) -> int:
    """A tenth is lost, a tenth comes twice, all in any order. Returns how many are lost."""
    draw = random.Random(7)
    kept = [asked for asked in sent if draw.random() >= 0.1]
    delivered = kept + [asked for asked in kept if draw.random() < 0.1]
    draw.shuffle(delivered)
    times = []
    with httpx.Client(headers={SECRET_HEADER: studio.settings.secret("webhook_secret")}, timeout=10) as http:
        for asked in delivered:
            start = time.monotonic()
            headers = {"Content-Type": "application/json"}
            answer = http.post(f"{project_url(studio.settings, project)}/webhook", content=asked.body, headers=headers)
            times.append(time.monotonic() - start)
            assert answer.status_code == 200, answer.text
    assert sorted(times)[len(times) // 2] < 0.1
    return len(sent) - len(kept)


@pytest.fixture(scope="module")
def exported(studio: Studio, worked: Worked) -> Json:
    return export(studio, worked.project)


def export(studio: Studio, project: int) -> Json:
    done = studio.ris("export", "--project", str(project), "--json")
    assert done.returncode == 0, done.stderr
    report: Json = json.loads(done.stdout)
    assert report["listed"] == []
    return report


@pytest.fixture(scope="module")
def truth(client: LabelStudio, worked: Worked) -> dict[int, Json]:
    """Of each task in Label Studio's own export the annotation that counts."""
    answer = call(client, "GET", f"/api/projects/{worked.project}/export", params={"exportType": "JSON"})
    chosen: dict[int, Json] = {}
    for task in answer:
        submitted = [each for each in task["annotations"] if not each["was_cancelled"]]
        crowned = [each for each in submitted if each["ground_truth"]] or submitted
        if crowned:
            chosen[task["id"]] = max(crowned, key=lambda each: each["updated_at"])
    return chosen


def _masks(codec: sdk.Sdk, result: list[Json]) -> dict[str, np.ndarray]:
    """Each brush region's mask, by id, as Label Studio's own codec decodes it."""
    return {
        region["id"]: np.array(codec.ask("decode", region["value"]["rle"])).reshape(HEIGHT, WIDTH, 4)[..., 3] > 0
        for region in result
        if region["type"] == "brushlabels"
    }


def test_people_did_of_everything(worked: Worked) -> None:
    assert len(worked.done) == 10, worked.done
    assert worked.sent > DEEDS
    assert 4 < worked.lost < worked.sent / 4


def test_the_log_ends_with_what_label_studio_holds(client: LabelStudio, worked: Worked) -> None:
    assert worked.missed > 0
    last: dict[int | None, Event] = {}
    actions = Counter[str]()
    for _, event in worked.log.events(worked.project):
        actions[event.action] += 1
        last[event.annotation] = event
    assert actions[MISSED] <= worked.lost
    assert actions[CREATED] > 10
    held = [
        (annotation["id"], annotation["updated_at"])
        for task in client.annotated_tasks(worked.project)
        for annotation in task["annotations"]
        if any(not each["was_cancelled"] for each in task["annotations"])
    ]
    assert len(held) > 20
    assert [(number, last[number].stamp) for number, _ in held] == [
        (number, Event(CREATED, updated=updated).stamp) for number, updated in held
    ]


def test_the_snapshot_is_label_studios_export_mask_by_mask(exported: Json, truth: dict[int, Json]) -> None:
    folder = Path(exported["out"])
    dataset = json.loads((folder / "instances.json").read_text())
    assert [image["id"] for image in dataset["images"]] == sorted(truth)
    found: dict[int, dict[str, np.ndarray]] = {task: {} for task in truth}
    for annotation in dataset["annotations"]:
        assert annotation["ls"]["annotation"] == truth[annotation["image_id"]]["id"]
        mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
        found[annotation["image_id"]][annotation["ls"]["region"]] = mask
    with sdk.running() as codec:
        for task, annotation in truth.items():
            expected = _masks(codec, annotation["result"])
            assert found[task].keys() == expected.keys()
            assert all(np.array_equal(found[task][region], mask) for region, mask in expected.items())
    assert sum(map(len, found.values())) == len(dataset["annotations"]) > 20


def test_each_sentence_is_there_with_what_became_of_the_prediction(
    client: LabelStudio, exported: Json, truth: dict[int, Json]
) -> None:
    refs = json.loads((Path(exported["out"]) / "refs.json").read_text())
    said = {(ref["image_id"], ref["sentences"][0]["sent"]): ref for ref in refs}
    expected = {}
    with sdk.running() as codec:
        for task, annotation in truth.items():
            masks = list(_masks(codec, annotation["result"]).values())
            [typed] = [region for region in annotation["result"] if region["type"] == "textarea"]
            predictions = {each["id"]: each for each in client.predictions(task)}
            predicted = predictions.get(annotation["parent_prediction"])
            for sentence in typed["value"]["text"]:
                origin = "manual" if masks else "rejected" if predicted else "absent"
                if predicted and masks and sentence == "the cat":
                    [before] = _masks(codec, predicted["result"]).values()
                    after = masks[typed["value"]["text"].index(sentence)]
                    origin = "accepted" if np.array_equal(before, after) else "corrected"
                expected[task, sentence] = origin
    assert {key: ref["origin"] for key, ref in said.items()} == expected
    assert {"accepted", "corrected", "rejected", "manual", "absent"} == set(expected.values())
    assert all(ref["ann_id"] == [-1] for ref in refs if ref["origin"] in ("absent", "rejected"))


def test_the_figures_are_those_of_the_snapshot(studio: Studio, worked: Worked, exported: Json) -> None:
    figures = json.loads(studio.ris("corrections", "--project", str(worked.project), "--json").stdout)
    refs = json.loads((Path(exported["out"]) / "refs.json").read_text())
    counts = Counter(ref["origin"] for ref in refs)
    assert {name: figures[name] for name in counts} == counts
    assert figures["annotations"] == exported["images"]
    assert 0 < figures["iou"] < 1
    assert figures["by_version"][VERSION]["accepted"] == counts["accepted"]


def test_deleting_the_predictions_changes_nothing(
    studio: Studio, client: LabelStudio, worked: Worked, exported: Json, truth: dict[int, Json]
) -> None:
    """Label Studio forgets then what an annotation was made from. The last test: it takes the predictions away."""
    assert any(annotation["parent_prediction"] for annotation in truth.values())
    client.delete_predictions(worked.project, VERSION)
    assert not any(
        annotation["parent_prediction"]
        for task in client.annotated_tasks(worked.project)
        for annotation in task["annotations"]
    )
    again = export(studio, worked.project)
    refs = [json.loads((Path(report["out"]) / "refs.json").read_text()) for report in (exported, again)]
    assert refs[0] == refs[1]
