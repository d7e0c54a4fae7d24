"""Each source of a prompt and each tag of an answer, through the real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from editor import call
from running import Studio

from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import read_annotation
from backend.projects import samples
from backend.projects.connect import connect_titled
from ris_core.images import read_image
from ris_core.inference.prediction import Prediction
from ris_core.inference.predictor import Predictor
from ris_core.masks import Mask, bounding_box, iou

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PHOTO = "chelsea.png"
CAT, PERSON = "the cat", "person"

EVERY_TAG = """
<View>
  <TextArea name="prompt" toName="image" smart="true"/>
  <BrushLabels name="brush" toName="image" smart="false"><Label value="cat"/><Label value="other"/></BrushLabels>
  <BitmaskLabels name="bitmask" toName="image" smart="false"><Label value="cat"/></BitmaskLabels>
  <PolygonLabels name="polygon" toName="image" tolerance="1"><Label value="cat"/></PolygonLabels>
  <RectangleLabels name="box" toName="image" smart="false"><Label value="cat"/></RectangleLabels>
  <KeyPointLabels name="point" toName="image" smart="true"><Label value="cat"/></KeyPointLabels>
  <Image name="image" value="$image"/>
</View>
"""
BRUSH = (
    '<View><Image name="image" value="$image"/><TextArea name="prompt" toName="image"/>'
    '<BrushLabels name="brush" toName="image">{labels}</BrushLabels></View>'
)


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[LabelStudio]:
    with LabelStudio(studio.url, studio.token) as client:
        yield client


@pytest.fixture(scope="module")
def photo() -> bytes:
    return dict(samples.photos())[PHOTO]


@pytest.fixture(scope="module")
def cat(photo: bytes) -> Prediction:
    """What the model itself says of the cat."""
    predictor = Predictor.load()
    (answer,) = predictor.segment(predictor.embed(read_image(photo)), [CAT])
    assert answer.present
    return answer


class Project:
    """A project of one photo, connected."""

    def __init__(self, studio: Studio, client: LabelStudio, title: str, xml: str, photo: bytes) -> None:
        connection = connect_titled(client, title, xml, studio.settings)
        self.client, self.number, self.backend = client, connection.project, connection.backend
        self.config = parse(xml)
        (self.task,) = client.upload(self.number, PHOTO, photo)

    def ask(self, *regions: dict[str, Any]) -> list[dict[str, Any]]:
        """What the editor gets for what somebody typed or drew."""
        body = {"task": self.task, "context": {"result": list(regions)}}
        answer = call(self.client, "POST", f"/api/ml/{self.backend}/interactive-annotating", json=body)
        assert "errors" not in answer, answer
        return answer["data"]["result"]

    def tell(self, **data: Any) -> None:
        """Put something into the task's data."""
        self.client.update_task(self.task, {**self.client.task(self.task)["data"], **data})

    def predict(self) -> tuple[list[dict[str, Any]], str]:
        """What "Retrieve predictions" stores for the task."""
        for version in {each["model_version"] for each in self.client.predictions(self.task)}:
            self.client.delete_predictions(self.number, version)
        self.client.retrieve_predictions(self.number)
        (prediction,) = self.client.predictions(self.task)
        return prediction["result"], prediction["model_version"]


def typed(text: str) -> dict[str, Any]:
    return {"id": "typed", "from_name": "prompt", "to_name": "image", "type": "textarea", "value": {"text": [text]}}


def point(x: float, y: float, positive: bool = True) -> dict[str, Any]:
    """A smart keypoint, in percent."""
    return {
        "id": f"point{x}{y}",
        "from_name": "point",
        "to_name": "image",
        "type": "keypointlabels",
        "is_positive": int(positive),
        "value": {"x": x, "y": y, "width": 0.3, "keypointlabels": ["cat"]},
    }


def of_type(regions: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [region for region in regions if region["type"] == kind]


def masks(project: Project, regions: list[dict[str, Any]]) -> list[Mask]:
    return [each.mask for each in read_annotation(regions, project.config).masks]


@pytest.fixture(scope="module")
def tags(studio: Studio, client: LabelStudio, photo: bytes) -> Project:
    return Project(studio, client, "Every tag", EVERY_TAG, photo)


@pytest.mark.parametrize(("kind", "least"), [("brushlabels", 1.0), ("bitmasklabels", 1.0), ("polygonlabels", 0.97)])
def test_a_typed_prompt_is_answered_in_each_tag(tags: Project, cat: Prediction, kind: str, least: float) -> None:
    regions = of_type(tags.ask(typed(CAT)), kind)
    assert {tuple(region["value"][kind]) for region in regions} == {("cat",)}
    assert all(region["score"] == pytest.approx(cat.score, abs=1e-4) for region in regions)
    assert iou(np.logical_or.reduce(masks(tags, regions)), cat.mask) >= least


def test_a_typed_prompt_is_answered_by_a_box(tags: Project, cat: Prediction) -> None:
    (region,) = of_type(tags.ask(typed(CAT)), "rectanglelabels")
    height, width = cat.mask.shape
    share = [region["value"][side] / 100 for side in ("x", "y", "width", "height")]
    found = np.array(share) * [width, height, width, height]
    assert found == pytest.approx(np.array(bounding_box(cat.mask)), abs=1)


def test_predictions_of_every_tag_are_stored_as_they_are(tags: Project, cat: Prediction) -> None:
    tags.tell(prompt=CAT)
    regions, version = tags.predict()
    assert {region["type"] for region in regions} == {
        *("textarea", "brushlabels", "bitmasklabels", "polygonlabels", "rectanglelabels")
    }
    assert version == tags.client.ml_backends(tags.number)[0]["model_version"]
    annotation = tags.client.create_annotation(tags.task, regions)
    assert iou(masks(tags, of_type(annotation["result"], "bitmasklabels"))[0], cat.mask) == 1


def test_a_point_says_which_thing_the_draft_means(tags: Project, cat: Prediction) -> None:
    draft = {"result": [typed(CAT)], "lead_time": 1}
    call(tags.client, "POST", f"/api/tasks/{tags.task}/drafts", json=draft)
    rows, columns = np.nonzero(cat.mask)
    middle = len(rows) // 2
    inside = point(100 * columns[middle] / cat.mask.shape[1], 100 * rows[middle] / cat.mask.shape[0])
    (found,) = masks(tags, of_type(tags.ask(inside), "brushlabels"))
    assert found[rows[middle], columns[middle]]
    assert iou(found, cat.mask) > 0.8


def test_a_negative_of_what_is_not_there_takes_nothing_away(tags: Project, cat: Prediction) -> None:
    (found,) = masks(tags, of_type(tags.ask(typed(f"{CAT}; not the bicycle")), "brushlabels"))
    assert (found == cat.mask).all()


@pytest.mark.parametrize(
    "said",
    [{"prompt": CAT}, {"prompts": [CAT, PERSON]}, {"prompt": {"cat": CAT}}, {"caption": CAT}],
    ids=["string", "list", "by label", "caption"],
)
def test_a_prompt_in_the_tasks_data(
    studio: Studio, client: LabelStudio, photo: bytes, cat: Prediction, said: dict[str, Any]
) -> None:
    xml = BRUSH.format(labels='<Label value="other"/><Label value="cat"/>')
    project = Project(studio, client, f"Task data {next(iter(said))} {len(str(said))}", xml, photo)
    project.tell(**said)
    regions, _ = project.predict()
    drawn = [region for region in of_type(regions, "brushlabels") if region["value"]["brushlabels"] == ["cat"]]
    assert iou(masks(project, drawn)[0], cat.mask) == 1
    (echo,) = of_type(regions, "textarea")
    assert CAT in echo["value"]["text"]


def test_a_prompt_of_the_label_itself(studio: Studio, client: LabelStudio, photo: bytes, cat: Prediction) -> None:
    xml = BRUSH.format(labels=f'<Label value="pet" prompt="{CAT}"/><Label value="other"/>')
    project = Project(studio, client, "Label attribute", xml, photo)
    regions, _ = project.predict()
    (region,) = of_type(regions, "brushlabels")
    assert region["value"]["brushlabels"] == ["pet"]
    assert iou(masks(project, [region])[0], cat.mask) == 1


def test_the_prompt_sheet_changes_the_version_and_the_answer(
    studio: Studio, client: LabelStudio, photo: bytes, cat: Prediction
) -> None:
    xml = BRUSH.format(labels='<Label value="zebra"/><Label value="other"/>')
    project = Project(studio, client, "Prompt sheet", xml, photo)
    before = client.ml_backends(project.number)[0]["model_version"]
    said = studio.ris("prompts", "--project", str(project.number), "--set", f"zebra={CAT}")
    assert said.returncode == 0, said.stderr
    regions, version = project.predict()
    assert version != before
    assert version == client.ml_backends(project.number)[0]["model_version"]
    assert version in call(client, "GET", f"/api/ml/{project.backend}/versions")["versions"]
    (region,) = of_type(regions, "brushlabels")
    assert region["value"]["brushlabels"] == ["zebra"]
    assert iou(masks(project, [region])[0], cat.mask) == 1


def test_labels_are_asked_for_by_name_where_nothing_else_is(
    studio: Studio, client: LabelStudio, photo: bytes, cat: Prediction
) -> None:
    # Of one task Label Studio's request looks like somebody opening it, who would rather type.
    project = Project(studio, client, "Names", BRUSH.format(labels='<Label value="cat"/>'), photo)
    client.upload(project.number, PHOTO, photo)
    regions, _ = project.predict()
    assert iou(masks(project, of_type(regions, "brushlabels"))[0], cat.mask) > 0.8
