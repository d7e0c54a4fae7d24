"""Errors of the service: each adds to `RisError` the HTTP status that the outer door answers with.

BackendError 500
├── BadRequest 422            the caller sent something that can't be used
│   ├── ConfigError           the project's labelling interface
│   ├── BrushError            a brush mask
│   └── RegionError           a region of an annotation
├── Unauthorized 401
├── NotFound 404
├── TooLarge 413
├── TooMany 429
├── Unavailable 503           try again later
├── StartError                `ris up` can't bring a service up
│   └── AlreadyRunning        another one did
├── FetchError 422            an image could not be fetched
│   ├── AddressRefused        it lies where the backend must not look
│   ├── LocalFileRefused      the same, on this machine's disk
│   ├── ImageTooLarge
│   ├── FetchTimeout
│   └── FetchFailed           the other side answered with an error, or not at all
└── LabelStudioError 502
    ├── LabelStudioUnreachable
    ├── LabelStudioUnauthorized
    ├── LabelStudioNotFound
    ├── LabelStudioRateLimited
    ├── LabelStudioRefused    it says that the request is wrong
    └── LabelStudioFailed     it failed, or its answer makes no sense
"""

# An HTTP answer reads better as "not found" than as "not found error".

from __future__ import annotations

from ris_core.errors import RisError


class BackendError(RisError):
    """Base of the service's errors. `status` is the HTTP status; a message never holds a secret."""

    code = "backend_error"
    status = 500


class BadRequest(BackendError):
    code = "bad_request"
    status = 422


class ConfigError(BadRequest):
    code = "bad_labelling_interface"


class BrushError(BadRequest):
    code = "bad_brush_mask"


class RegionError(BadRequest):
    code = "bad_region"


class Unauthorized(BackendError):
    code = "unauthorized"
    status = 401


class NotFound(BackendError):
    code = "not_found"
    status = 404


class TooLarge(BackendError):
    code = "too_large"
    status = 413


class TooMany(BackendError):
    code = "too_many"
    status = 429


class Unavailable(BackendError):
    code = "unavailable"
    status = 503


class StartError(BackendError):
    code = "start_failed"


class AlreadyRunning(StartError):
    code = "already_running"


class FetchError(BackendError):
    code = "fetch_failed"
    status = 422


class AddressRefused(FetchError):
    code = "address_refused"


class LocalFileRefused(FetchError):
    code = "local_file_refused"


class ImageTooLarge(FetchError):
    code = "image_too_large"


class FetchTimeout(FetchError):
    code = "fetch_timeout"


class FetchFailed(FetchError):
    code = "image_unavailable"


class LabelStudioError(BackendError):
    code = "label_studio_error"
    status = 502


class LabelStudioUnreachable(LabelStudioError):
    code = "label_studio_unreachable"


class LabelStudioUnauthorized(LabelStudioError):
    code = "label_studio_unauthorized"


class LabelStudioNotFound(LabelStudioError):
    code = "label_studio_not_found"


class LabelStudioRateLimited(LabelStudioError):
    code = "label_studio_rate_limited"


class LabelStudioRefused(LabelStudioError):
    code = "label_studio_refused"


class LabelStudioFailed(LabelStudioError):
    code = "label_studio_failed"
