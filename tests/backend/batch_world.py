"""A runner's world: a real Valkey, the real predictor, and a small Label Studio whose tables tests look into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labelstudio.site import Site, serve
from redis import Redis
from shelf import PROJECT, TOKEN, XML, Shelf

from backend.batches.runner import RunnerServices, run
from backend.batches.store import Batch, BatchSpec, BatchStore
from backend.inference.model_pool import ModelPool
from backend.inference.predict import Prelabeller
from backend.inference.project_model import ProjectModels
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver
from backend.registry import Registry
from backend.settings import Settings


@dataclass
class World:
    shelf: Shelf
    site: Site
    services: RunnerServices
    version: str
    model: str

    @property
    def batches(self) -> BatchStore:
        return self.services.batches

    def submit(self, tasks: int, **more: Any) -> str:
        """A batch of the first so many tasks."""
        return self.batches.create(BatchSpec(PROJECT, self.model, self.version, **more), range(1, tasks + 1)).id

    def done(self, batch: str) -> Batch:
        """The batch once a runner has ended."""
        run(batch, self.services)
        return self.batches.get(batch, reasons=True)

    def use(self, settings: Settings) -> None:
        """Have projects answered by other settings."""
        models = ProjectModels(self.services.registry, settings)
        self.services = replace(self.services, project_models=models)
        self.version = models.of_interface(PROJECT, XML).name


@contextmanager
def running(tmp_path: Path, weights: Path, redis: Redis, make_settings: Callable[..., Settings]) -> Iterator[World]:
    shelf = Shelf(tmp_path / "shelf.db")
    with serve(shelf) as site, LabelStudio(site.url, TOKEN) as client:
        settings = make_settings(label_studio_url=site.url)
        registry = Registry(tmp_path / "models", weights)
        models = ProjectModels(registry, settings)
        images = ImageResolver(site.url, TOKEN, cache=tmp_path / "images")
        prelabeller = Prelabeller(models, images, ModelPool())
        services = RunnerServices(client, BatchStore(redis), prelabeller, models, registry)
        version = models.of_interface(PROJECT, XML).name
        yield World(shelf, site, services, version, registry.base.name)
