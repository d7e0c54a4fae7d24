"""The parts of the studio, put together as the settings say. The only module that knows both knobs and parts."""

from __future__ import annotations

from backend.contract import Contract
from backend.jobs.queue import JobQueue, connect
from backend.labelstudio.images import ImageResolver
from backend.prelabel import Limits, Prelabeller
from backend.registry import Registry
from backend.serving import Models
from backend.settings import Settings


def registry(settings: Settings) -> Registry:
    return Registry(settings.home / "models")


def images(settings: Settings) -> ImageResolver:
    """Raises SettingsError if Label Studio's token isn't set."""
    return ImageResolver(
        settings.label_studio_url,
        settings.secret("label_studio_token"),
        cache=settings.home / "images",
        hosts=settings.image_hosts,
        local_files_root=settings.local_files_root,
        max_bytes=settings.max_image_bytes,
    )


def models(settings: Settings) -> Models:
    return Models(settings.cached_versions, settings.cached_embeddings, settings.max_image_pixels)


def contract(settings: Settings) -> Contract:
    """What answers Label Studio; the shipped model begins to load. Raises SettingsError for a missing secret."""
    versions, loaded = registry(settings), models(settings)
    limits = Limits(
        seconds=settings.predict_seconds,
        waiting=settings.max_waiting,
        prompt_length=settings.max_prompt_length,
        prompts=settings.max_prompts,
    )
    answers = Contract(
        registry=versions,
        prelabeller=Prelabeller(versions, images(settings), loaded, limits),
        queue=JobQueue(connect(settings.secret("redis_url"))),
        max_tasks=settings.max_tasks,
    )
    loaded.warm(versions.base)
    return answers
