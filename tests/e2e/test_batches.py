"""Pre-labelling many tasks with the real Label Studio: by command, by "Retrieve predictions", as tasks come in."""

from __future__ import annotations

import base64
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from editor import call
from PIL import Image
from running import Studio

from backend.labelstudio.client import LabelStudio
from backend.projects.connect import LABEL_CONFIG

pytestmark = pytest.mark.e2e

TASKS = 40


def picture(shade: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (shade, 90, 90)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[LabelStudio]:
    with LabelStudio(studio.url, studio.token) as client:
        yield client


@pytest.fixture
def project(studio: Studio, client: LabelStudio) -> int:
    """A project of its own, connected, with one task whose image can't be read."""
    project = int(client.create_project("Batches", LABEL_CONFIG)["id"])
    connected = studio.ris("connect", "--project", str(project))
    assert connected.returncode == 0, connected.stderr
    tasks = [{"image": picture(5 * number), "prompt": "a cat"} for number in range(TASKS)]
    tasks[7]["image"] = "data:image/png;base64,AAAA"
    client.import_tasks(project, tasks)
    return project


def counts(client: LabelStudio, project: int) -> Counter[tuple[str, ...]]:
    """How many tasks have predictions of which versions."""
    return Counter(
        tuple(sorted(prediction["model_version"] for prediction in task["predictions"]))
        for task in client.tasks(project)
    )


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)


def test_a_project_is_predicted_by_command_and_predicted_again_by_force(
    studio: Studio, client: LabelStudio, project: int
) -> None:
    done = studio.ris("prelabel", "--project", str(project), "--json")
    assert done.returncode == 0, done.stderr
    batch = json.loads(done.stdout)
    assert (batch["state"], batch["done"], batch["failed"], batch["total"]) == ("done", TASKS - 1, 1, TASKS)
    [reason] = batch["reasons"].values()
    assert "isn't a picture" in reason
    version = batch["version"]
    assert counts(client, project) == {(version,): TASKS - 1, (): 1}
    # Label Studio takes them as done: it was told the same version.
    assert client.ml_backends(project)[0]["model_version"] == version
    # All of it again changes nothing, and costs only a look.
    again = json.loads(studio.ris("prelabel", "--project", str(project), "--json").stdout)
    assert (again["done"], again["skipped"]) == (0, TASKS - 1)
    forced = studio.ris("prelabel", "--project", str(project), "--prompt", "a red square", "--json")
    assert json.loads(forced.stdout)["done"] == TASKS - 1
    assert counts(client, project) == {(version,): TASKS - 1, (): 1}
    listed = json.loads(studio.ris("jobs", "--json").stdout)
    assert batch["id"] in [each["id"] for each in listed["batches"]]
    assert listed["workers"] == {"training": 1, "batches": 1}


def test_what_a_tab_shows_is_predicted_and_nothing_else(studio: Studio, client: LabelStudio, project: int) -> None:
    ids = sorted(task["id"] for task in client.tasks(project))
    items = [{"filter": "filter:tasks:id", "operator": "less", "type": "Number", "value": ids[5]}]
    body = {"project": project, "data": {"title": "few", "filters": {"conjunction": "and", "items": items}}}
    view = call(client, "POST", "/api/dm/views/", json=body)["id"]
    done = studio.ris("prelabel", "--project", str(project), "--view", str(view), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["total"] == 5
    predicted = [task["id"] for task in client.tasks(project) if task["predictions"]]
    assert sorted(predicted) == ids[:5]


def test_retrieving_more_predictions_than_fit_a_request_makes_one_batch(
    studio: Studio, client: LabelStudio, project: int
) -> None:
    before = {batch["id"] for batch in json.loads(studio.ris("jobs", "--json").stdout)["batches"]}
    client.retrieve_predictions(project)
    client.retrieve_predictions(project)
    batches = json.loads(studio.ris("jobs", "--json").stdout)["batches"]
    [batch] = [batch for batch in batches if batch["id"] not in before]
    assert (batch["origin"], batch["total"]) == ("predict", TASKS)
    until(lambda: counts(client, project)[()] == 1)
    assert counts(client, project) == {(batch["version"],): TASKS - 1, (): 1}


def test_new_tasks_are_predicted_where_the_project_wants_it(studio: Studio, client: LabelStudio, project: int) -> None:
    file = studio.home / "projects" / f"{project}.env"
    file.parent.mkdir(exist_ok=True)
    file.write_text("RIS_PRELABEL_NEW=true\n")
    new = client.import_tasks(project, [{"image": picture(200 + number), "prompt": "a cat"} for number in range(3)])
    until(lambda: all(client.predictions(task) for task in new))
    assert [len(client.predictions(task)) for task in new] == [1, 1, 1]
