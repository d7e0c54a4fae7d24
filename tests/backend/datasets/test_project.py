"""A project read whole: its corrections, the login for its images, and how far its snapshot is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from annotated import XML
from small_project import PHOTOS, TASKS

from backend.datasets.project import read_project, snapshot_project
from backend.labelstudio.images import Credentials


class Client:
    """What reading a project asks of Label Studio's API."""

    def __init__(self, **described: Any) -> None:
        self.described = described

    def project(self, project: int) -> dict[str, Any]:
        return {"id": project, "label_config": XML, **self.described}

    def annotated_tasks(self, project: int) -> Iterator[dict[str, Any]]:
        return (task for task in TASKS if task["annotations"])

    def predictions_of(self, project: int, ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        return iter(())


class Images:
    """Gives the photo of each task, and remembers with which login."""

    def __init__(self) -> None:
        self.credentials: list[Credentials | None] = []

    def fetch(self, value: str, task: int, credentials: Credentials | None) -> bytes:
        self.credentials.append(credentials)
        return PHOTOS[task]


def test_a_project_is_read_whole(tmp_path: Path) -> None:
    project = read_project(Client(), 3, tmp_path)  # type: ignore[arg-type]
    assert (project.number, project.credentials) == (3, None)
    assert [label.value for label in project.config.labels] == ["cat", "big dog", "cup"]
    assert [correction.task for correction in project.corrections.items] == [1, 2, 3, 4, 5]
    # Nothing was predicted, so all of it was drawn.
    assert {said.edit.kind for item in project.corrections.items for said in item.expressions if said.edit} == {
        "manual"
    }


@pytest.mark.parametrize(
    ("login", "password", "expected"),
    [
        ("ada", "secret", ("ada", "secret")),
        # As when a prediction is asked for: some hosts take a token as the login alone.
        ("ada", "", ("ada", "")),
        ("ada", None, ("ada", "")),
        ("", "secret", None),
        (None, None, None),
    ],
)
def test_images_are_fetched_with_the_projects_login(
    tmp_path: Path, login: str | None, password: str | None, expected: Credentials | None
) -> None:
    client, images = Client(task_data_login=login, task_data_password=password), Images()
    project = read_project(client, 3, tmp_path)  # type: ignore[arg-type]
    snapshot_project(project, images, tmp_path)  # type: ignore[arg-type]
    assert images.credentials == [expected] * 5


def test_progress_is_the_share_of_images_that_are_there(tmp_path: Path) -> None:
    shares: list[float] = []
    project = read_project(Client(), 3, tmp_path)  # type: ignore[arg-type]
    snapshot = snapshot_project(project, Images(), tmp_path, on_progress=shares.append)  # type: ignore[arg-type]
    assert shares == [0, 0.2, 0.4, 0.6, 0.8]
    assert snapshot.images == 5
