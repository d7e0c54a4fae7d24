"""Errors of the service: each adds to `RisError` the HTTP status that the outer door answers with.

BackendError 500
├── BadRequest 422
│   ├── ConfigError
│   ├── BrushError
│   └── RegionError
├── Unauthorized 401
├── NotFound 404
├── TooLarge 413
├── TooMany 429
├── Unavailable 503
├── DiskFull 507
├── PublishError
├── StartError
│   └── AlreadyRunning
├── FetchError 422
│   ├── AddressRefused
│   ├── LocalFileRefused
│   ├── ImageTooLarge
│   ├── FetchTimeout
│   └── FetchFailed
└── LabelStudioError 502
    ├── LabelStudioUnreachable
    ├── LabelStudioUnauthorized
    ├── LabelStudioNotFound
    ├── LabelStudioRateLimited
    ├── LabelStudioRefused
    └── LabelStudioFailed

What only one module raises, that module defines.
"""

# An HTTP answer reads better as "not found" than as "not found error".

import errno
import sqlite3
from pathlib import Path

from ris_core.errors import RisError


class BackendError(RisError, code="backend_error"):
    """Base of the service's errors. `status` is the HTTP status; a message never holds a secret."""

    status = 500

    def __init_subclass__(cls, code: str | None = None, status: int | None = None) -> None:
        super().__init_subclass__(code)
        cls.status = status or cls.status


class BadRequest(BackendError, code="bad_request", status=422):
    """The caller sent something that can't be used."""


class ConfigError(BadRequest, code="bad_labelling_interface"):
    """A project's labelling interface can't be used."""


class BrushError(BadRequest, code="bad_brush_mask"):
    """A brush mask can't be read or written."""


class RegionError(BadRequest, code="bad_region"):
    """A region of an annotation or prediction can't be read or shown."""


class Unauthorized(BackendError, code="unauthorized", status=401):
    """The caller's user name, password or secret is missing or wrong."""


class NotFound(BackendError, code="not_found", status=404):
    """There is no such thing, as a version, job or batch."""


class TooLarge(BackendError, code="too_large", status=413):
    """The caller asks for more at once than the settings allow."""


class TooMany(BackendError, code="too_many", status=429):
    """Too many requests wait already."""


class Unavailable(BackendError, code="unavailable", status=503):
    """It can't be done now, but perhaps later."""


class DiskFull(BackendError, code="disk_full", status=507):
    """Nothing more can be written: the disk, or one's share of it, is used up."""

    @classmethod
    def of(cls, error: BaseException, place: Path, then: str) -> "DiskFull | None":
        """What an error means that came of writing below `place`, if it is that; `then` is what to do with room."""
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        is_full |= getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        return cls(f"The disk is full: {place} can't be written. Make room, then {then}.") if is_full else None


class PublishError(BackendError, code="publish_failed"):
    """An export can't be put where it should go."""


class StartError(BackendError, code="start_failed"):
    """`ris up` can't bring a service up."""


class AlreadyRunning(StartError, code="already_running"):
    """Another `ris up` runs on this home folder."""


class FetchError(BackendError, code="fetch_failed", status=422):
    """An image can't be had."""


class AddressRefused(FetchError, code="address_refused"):
    """An image lies at an address where the backend must not look."""


class LocalFileRefused(FetchError, code="local_file_refused"):
    """An image lies where the backend must not look on this machine's disk."""


class ImageTooLarge(FetchError, code="image_too_large"):
    """An image's file is larger than the settings allow."""


class FetchTimeout(FetchError, code="fetch_timeout"):
    """An image took too long."""


class FetchFailed(FetchError, code="image_unavailable"):
    """The other side answered with an error or not at all, or what is named isn't an image's address."""


class LabelStudioError(BackendError, code="label_studio_error", status=502):
    """Label Studio didn't do what it was asked for."""


class LabelStudioUnreachable(LabelStudioError, code="label_studio_unreachable"):
    """Label Studio doesn't answer at its address."""


class LabelStudioUnauthorized(LabelStudioError, code="label_studio_unauthorized"):
    """Label Studio doesn't accept the token, or forbids what was asked for."""


class LabelStudioNotFound(LabelStudioError, code="label_studio_not_found"):
    """Label Studio has no such thing, or doesn't show it to the token's owner."""


class LabelStudioRateLimited(LabelStudioError, code="label_studio_rate_limited"):
    """Label Studio asks for fewer requests."""


class LabelStudioRefused(LabelStudioError, code="label_studio_refused"):
    """Label Studio says that the request is wrong."""


class LabelStudioFailed(LabelStudioError, code="label_studio_failed"):
    """Label Studio failed, or its answer makes no sense."""
