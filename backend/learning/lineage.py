"""Which of a project's versions is trained further, and which are only asked. Knows no model.

What is in production may be a published model, which can't be trained: then it is the teacher and the opponent, and
training goes on from the newest of the project's own versions that ever served, or from the shipped model.
"""

from __future__ import annotations

from backend.errors import BackendError
from backend.registry import ProjectVersions, Version
from ris_core import checkpoint_files


class NoTeacher(BackendError, code="no_teacher", status=409):
    """What is in production is the small model itself."""


def start_of(versions: ProjectVersions) -> Version:
    """The version that is trained further: the newest own one that serves or served. Raises CheckpointError."""
    own = {version.name: version for version in versions.versions if _is_own(version)}
    served = (versions.production, *reversed(versions.served))
    return next((own[name] for name in served if name in own), own_base(versions))


def own_base(versions: ProjectVersions) -> Version:
    """What own versions descend from: the base version, or the shipped model where projects start at another."""
    if _is_own(versions.base):
        return versions.base
    shipped = checkpoint_files.shipped()
    return Version(checkpoint_files.version(shipped), shipped, {"origin": "shipped"})


def check_teacher(versions: ProjectVersions) -> None:
    """Raise NoTeacher if what is in production could only teach itself."""
    if _is_own(versions.current):
        raise NoTeacher(
            f"{versions.production} is in production, a small model: it would learn from itself. Put a teacher there: "
            f"`ris promote grounding-dino+sam2 --project {versions.project}`, for instance; `ris models` lists them."
        )


def _is_own(version: Version) -> bool:
    return not checkpoint_files.is_zero_shot(version.folder)
