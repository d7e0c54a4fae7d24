"""Whether the backend can do its work now: Valkey answers, versions can be looked up, and those that serve are whole.

Loads no model, and asks no other server but Valkey. Label Studio is no part of it: that waits for the backend.
"""

import logging
from collections.abc import Iterator

from redis import Redis
from redis.exceptions import RedisError

from backend.errors import Unavailable
from backend.registry import Registry, Version
from ris_core import checkpoint_files
from ris_core.errors import RisError

_log = logging.getLogger(__name__)


class NotReady(Unavailable, code="not_ready"):
    """Something is missing without which requests would fail."""


def check(registry: Registry, connection: Redis) -> dict[str, object]:
    """The versions that serve, and what is amiss with a store, for JSON.

    Raises NotReady with a sentence for each thing that is missing.
    """
    serving: dict[str, str] = {}
    problems = [*_of_valkey(connection), *_of_versions(registry, serving)]
    if problems:
        raise NotReady(" ".join(problems))
    ready: dict[str, object] = {"ready": True, "serving": serving}
    # What was known is served, which is what a store that fails is meant to come to.
    return ready | {"store": registry.trouble} if registry.trouble else ready


def _of_valkey(connection: Redis) -> Iterator[str]:
    try:
        connection.ping()
    except RedisError as error:
        _log.warning("Valkey doesn't answer: %s", error)
        yield "Valkey can't be reached: start it, or correct RIS_REDIS_URL."


def _of_versions(registry: Registry, serving: dict[str, str]) -> Iterator[str]:
    """`serving` gets the version of each project that has its own, and of all others."""
    try:
        yield from _of_version(registry.base)
        serving["others"] = registry.base.name
        projects = registry.projects()
    except (RisError, OSError) as error:
        _log.warning("The base version: %s", error)
        yield "The model that projects start at is missing: install it again, or correct RIS_MODEL."
        return
    for project in projects:
        try:
            version = registry.current(project)
        except (RisError, OSError) as error:
            _log.warning("Project %s: %s", project, error)
            yield f"The version in production in project {project} can't be looked up: promote another one."
            continue
        yield from _of_version(version)
        serving[str(project)] = version.name


def _of_version(version: Version) -> Iterator[str]:
    try:
        checkpoint_files.check_weights(version.folder)
    except RisError as error:
        # It names a path, which is nobody's business elsewhere.
        _log.warning("%s", error)
        yield f"The files of version {version.name} are damaged: restore them, or promote another one."
