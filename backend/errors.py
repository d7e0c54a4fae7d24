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

from ris_core.errors import RisError


class BackendError(RisError):
    """Base of the service's errors. `status` is the HTTP status; a message never holds a secret."""

    code = "backend_error"
    status = 500


class BadRequest(BackendError):
    """The caller sent something that can't be used."""

    code = "bad_request"
    status = 422


class ConfigError(BadRequest):
    """A project's labelling interface can't be used."""

    code = "bad_labelling_interface"


class BrushError(BadRequest):
    """A brush mask can't be read or written."""

    code = "bad_brush_mask"


class RegionError(BadRequest):
    """A region of an annotation or prediction can't be read or shown."""

    code = "bad_region"


class Unauthorized(BackendError):
    """The caller's user name, password or secret is missing or wrong."""

    code = "unauthorized"
    status = 401


class NotFound(BackendError):
    """There is no such thing, as a version, job or batch."""

    code = "not_found"
    status = 404


class TooLarge(BackendError):
    """The caller asks for more at once than the settings allow."""

    code = "too_large"
    status = 413


class TooMany(BackendError):
    """Too many requests wait already."""

    code = "too_many"
    status = 429


class Unavailable(BackendError):
    """It can't be done now, but perhaps later."""

    code = "unavailable"
    status = 503


class StartError(BackendError):
    """`ris up` can't bring a service up."""

    code = "start_failed"


class AlreadyRunning(StartError):
    """Another `ris up` runs on this home folder."""

    code = "already_running"


class FetchError(BackendError):
    """An image can't be had."""

    code = "fetch_failed"
    status = 422


class AddressRefused(FetchError):
    """An image lies at an address where the backend must not look."""

    code = "address_refused"


class LocalFileRefused(FetchError):
    """An image lies where the backend must not look on this machine's disk."""

    code = "local_file_refused"


class ImageTooLarge(FetchError):
    """An image's file is larger than the settings allow."""

    code = "image_too_large"


class FetchTimeout(FetchError):
    """An image took too long."""

    code = "fetch_timeout"


class FetchFailed(FetchError):
    """The other side answered with an error or not at all, or what is named isn't an image's address."""

    code = "image_unavailable"


class LabelStudioError(BackendError):
    """Label Studio didn't do what it was asked for."""

    code = "label_studio_error"
    status = 502


class LabelStudioUnreachable(LabelStudioError):
    """Label Studio doesn't answer at its address."""

    code = "label_studio_unreachable"


class LabelStudioUnauthorized(LabelStudioError):
    """Label Studio doesn't accept the token, or forbids what was asked for."""

    code = "label_studio_unauthorized"


class LabelStudioNotFound(LabelStudioError):
    """Label Studio has no such thing, or doesn't show it to the token's owner."""

    code = "label_studio_not_found"


class LabelStudioRateLimited(LabelStudioError):
    """Label Studio asks for fewer requests."""

    code = "label_studio_rate_limited"


class LabelStudioRefused(LabelStudioError):
    """Label Studio says that the request is wrong."""

    code = "label_studio_refused"


class LabelStudioFailed(LabelStudioError):
    """Label Studio failed, or its answer makes no sense."""

    code = "label_studio_failed"
