"""The parts of the studio, put together as the settings say. The only module that knows both settings and parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from backend.batches.runner import RunnerServices
from backend.batches.service import BatchService
from backend.batches.store import BatchStore
from backend.home import images_folder, models_folder
from backend.inference.model_pool import ModelPool
from backend.inference.predict import Prelabeller, RequestLimits
from backend.inference.project_model import ProjectModels
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver
from backend.labelstudio.outbound import Outbound
from backend.learning.rollout import Rollout, RolloutRecords
from backend.prompts.last_prompt import FileLastPrompt, SharedLastPrompt
from backend.prompts.sentence_vectors import CachedSentenceVectors
from backend.queue.allow_list import sign_jobs
from backend.queue.queue import JobQueue, connect
from backend.registry import Registry, RegistryError
from backend.settings import Settings
from backend.store.marker import store_of
from ris_core import checkpoint_files

if TYPE_CHECKING:
    from backend.store.following import StoreFollower
    from backend.store.versions import SharedRegistry

# By home, what this process follows a store with.
_FOLLOWERS: dict[Path, StoreFollower] = {}


def registry(settings: Settings, asks: bool = True) -> Registry:
    """The versions of the model below home; where there is a store, it is a cache of that.

    asks: whether the store may be asked, in a process that doesn't follow it. Raises StoreError if its address can't be
    one, RegistryError if the home isn't its cache.
    """
    root = models_folder(settings.home)
    shipped = checkpoint_files.find(settings.model) if settings.model else None
    if settings.store is None:
        if known := store_of(root):
            raise RegistryError(f"{root} is a cache of {known}. Set RIS_STORE to that, or RIS_HOME to another folder.")
        return Registry(root, shipped)
    return _shared_registry(settings, settings.store, root, shipped, asks)


def _shared_registry(settings: Settings, store: str, root: Path, shipped: Path | None, asks: bool) -> SharedRegistry:
    # Where there is no store, its library isn't loaded.
    from backend.datasets.shared_state import SharedLearningState  # noqa: PLC0415
    from backend.store.bucket import open_bucket  # noqa: PLC0415
    from backend.store.turns import Turns  # noqa: PLC0415
    from backend.store.versions import SharedRegistry  # noqa: PLC0415

    url = settings.redis_url and settings.redis_url.get_secret_value()
    turns = Turns(connect(url, patient=True)) if url else None
    follower = _FOLLOWERS.get(settings.home.resolve())
    bucket = open_bucket(store)
    state = SharedLearningState(bucket, settings.home)
    return SharedRegistry(root, shipped, bucket, turns, state, follower=follower, asks=asks)


def follow_store(settings: Settings) -> None:
    """Have this process keep home up to date with the store, if there is one; what it reads is then known here."""
    home = settings.home.resolve()
    if settings.store is None or home in _FOLLOWERS:
        return
    from backend.store.following import StoreFollower  # noqa: PLC0415

    own = registry(settings)
    follower = StoreFollower(cast("SharedRegistry", own))
    follower.start()
    _FOLLOWERS[home] = follower


def versions_in_use(settings: Settings, project: int) -> set[str]:
    """The versions by which other hosts are pre-labelling a project, and may have still to fetch."""
    if settings.store is None or not settings.redis_url:
        return set()
    running = BatchStore(connect(settings.redis_url.get_secret_value())).running()
    return {batch.spec.model for batch in running if batch.spec.project == project}


def image_resolver(settings: Settings) -> ImageResolver:
    """What fetches the images of tasks. Raises SettingsError if Label Studio's token isn't set."""
    return ImageResolver(
        settings.label_studio_url,
        settings.secret("label_studio_token"),
        cache=images_folder(settings.home),
        hosts=settings.image_hosts,
        local_files_root=settings.local_files_root,
        max_bytes=settings.max_image_bytes,
        outbound=Outbound.from_settings(settings),
    )


def model_pool(settings: Settings) -> ModelPool:
    """What loads versions of the model, and keeps the last ones and their image embeddings."""
    return ModelPool(
        settings.cached_versions, settings.cached_embeddings, settings.max_image_pixels, size=settings.cached_megabytes
    )


def project_models(settings: Settings) -> ProjectModels:
    """How projects are answered; what is typed is kept in Valkey where there is one."""
    url = settings.redis_url and settings.redis_url.get_secret_value()
    last_prompt = SharedLastPrompt(connect(url)) if url else FileLastPrompt(settings.home)
    return ProjectModels(registry(settings), settings, last_prompt, CachedSentenceVectors())


def prelabeller(settings: Settings, project_models: ProjectModels, model_pool: ModelPool) -> Prelabeller:
    """What predicts tasks. Raises SettingsError if Label Studio's token isn't set."""
    limits = RequestLimits(settings.predict_seconds, settings.max_waiting, settings.batch_from)
    return Prelabeller(project_models, image_resolver(settings), model_pool, limits)


def batch_service(settings: Settings) -> BatchService:
    """What batches are submitted to and followed by. Raises SettingsError if Valkey's address isn't set."""
    connection = connect(settings.secret("redis_url"))
    sign_jobs(settings)
    return BatchService(connection, JobQueue(connection))


def runner_services(settings: Settings, client: LabelStudio, batches: BatchStore) -> RunnerServices:
    """What works on a batch needs. Raises SettingsError if Label Studio's token isn't set."""
    models = project_models(settings)
    predictor = prelabeller(settings, models, model_pool(settings))
    return RunnerServices(client, batches, predictor, models, registry(settings))


def rollout(settings: Settings, client: LabelStudio) -> Rollout:
    """What makes predictions anew after a promotion. Raises SettingsError if Valkey's address isn't set."""
    connection = connect(settings.secret("redis_url"), patient=True)
    sign_jobs(settings)
    batches = BatchService(connection, JobQueue(connection))
    return Rollout(client, batches, project_models(settings), registry(settings), settings, RolloutRecords(connection))
