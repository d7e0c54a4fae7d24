"""What the console's pages are made from: the services of the commands, each made once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import httpx

from backend import services
from backend.batches.service import BatchService
from backend.doctor.aside import Examiner
from backend.errors import LabelStudioError, LabelStudioNotFound, NotFound
from backend.home import interfaces
from backend.labelstudio.client import LabelStudio
from backend.learning.events import EventLog
from backend.queue.queue import JobQueue, connect
from backend.queue.wording import project_of
from backend.registry import Registry
from backend.settings import Settings
from backend.web.console.pictures import PairPictures

if TYPE_CHECKING:
    # It brings torch.
    from backend.inference.project_model import ProjectModels

# Label Studio's numbers end here, and what it says to larger ones is of no use.
_LARGEST = 2**31 - 1
_TIMEOUT = httpx.Timeout(5.0)


@dataclass(frozen=True)
class StudioView:
    """What Label Studio says; problem: why it says nothing, in a sentence, empty where all is well."""

    projects: Mapping[int, Mapping[str, Any]]
    problem: str = ""


@dataclass(frozen=True)
class ConsoleParts:
    """The services, and what is read in several pages. models: how projects are answered."""

    settings: Settings
    batches: BatchService
    models: ProjectModels
    examiner: Examiner
    pictures: PairPictures = field(default_factory=PairPictures)

    @property
    def queue(self) -> JobQueue:
        """The jobs."""
        return self.batches.queue

    @cached_property
    def registry(self) -> Registry:
        """The versions of all projects."""
        return services.registry(self.settings)

    @cached_property
    def client(self) -> LabelStudio:
        """Label Studio; it has seconds to answer. Raises SettingsError if its token isn't set."""
        return LabelStudio.from_settings(self.settings, _TIMEOUT)

    @cached_property
    def events(self) -> EventLog:
        """What was annotated."""
        return EventLog(connect(self.settings.secret("redis_url")), self.settings.home)

    @property
    def known(self) -> set[int]:
        """The projects that the backend has answered for, or that have versions of their own."""
        return {*interfaces(self.settings.home), *self.registry.projects()}

    def studio(self) -> StudioView:
        """All projects as Label Studio has them; without them where it doesn't answer."""
        try:
            return StudioView({int(row["id"]): row for row in self.client.projects()})
        except LabelStudioError as error:
            return StudioView({}, str(error))

    def studio_project(self, project: int) -> StudioView:
        """One project as Label Studio has it. Raises NotFound if there is none of that number."""
        absent = NotFound(f"Label Studio has no project {project}, or doesn't show it to the token's owner.")
        if project > _LARGEST:
            raise absent
        try:
            return StudioView({project: self.client.project(project)})
        except LabelStudioNotFound:
            raise absent from None
        except LabelStudioError as error:
            if project not in self.known:
                raise
            return StudioView({}, str(error))

    def running(self) -> Iterator[int | None]:
        """The project of each batch and job that runs or waits."""
        for batch in self.batches.all():
            if batch.state in ("listing", "running"):
                yield batch.spec.project
        for job in self.queue.recent():
            if job["status"] in ("queued", "started", "deferred", "scheduled"):
                yield project_of(job)
