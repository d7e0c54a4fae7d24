"""Jobs as they come out of Valkey: held to a list of functions before anything is imported.

RQ imports and calls whatever dotted name a job carries, be it the function or a callback: whoever can write
to the queue could run anything. Here only the listed functions count, and a job with more to it than JSON
arguments is disarmed as it is read: that covers all that RQ does with it, run it, retry it or clean it up.
Knows nothing of what the functions do.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from redis import Redis
from rq.exceptions import DeserializationError, NoSuchJobError, TimeoutFormatError
from rq.job import Job

from ris_core.errors import RisError

FUNCTIONS = frozenset(f"backend.jobs.functions.{name}" for name in ("learn", "distil", "export", "prelabel", "refresh"))

# What RQ raises over a field that it can't read, an assertion among them.
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, AssertionError, TimeoutFormatError)
_CALLBACKS = ("_success_callback_name", "_failure_callback_name", "_stopped_callback_name")


class ForbiddenJob(RisError, code="forbidden_job"):
    """A job that none of ours would be."""


class GuardedJob(Job):
    """A job that can only run one of `allowed`. `refusal` says why it can't run at all, or is None.

    should_stop: whether it should end as soon as it has saved what it did, see cancellation.py; set where it runs.
    """

    allowed: ClassVar[frozenset[str]] = FUNCTIONS
    refusal: str | None = None
    should_stop: Callable[[], bool] = staticmethod(lambda: False)

    @classmethod
    def fetch(cls, id: str, connection: Redis | None = None, serializer: Any = None) -> Job:
        """As RQ's; a job that can't be read counts as absent, since an error here would stop the worker."""
        try:
            return super().fetch(id, connection, serializer)
        except _MALFORMED as error:
            raise NoSuchJobError(f"The job {id!r:.100} can't be read: {error!r:.200}") from None

    def restore(self, raw_data: Any) -> Any:
        """As RQ's; a job with more to it than JSON arguments is disarmed."""
        super().restore(raw_data)
        self.refusal = self._objection()
        if self.refusal:
            self._disarm()

    @property
    def func(self) -> Callable[..., Any] | None:
        """The function that runs. Raises ForbiddenJob where that is none of `allowed`."""
        if self.refusal:
            raise ForbiddenJob(f"Job {self.id} isn't run: {self.refusal}.")
        return super().func  # type: ignore[no-any-return]

    def _objection(self) -> str | None:
        try:
            name, instance = self.func_name, self.instance
        except DeserializationError:
            return "its payload isn't JSON of a function and its arguments"
        if not isinstance(name, str) or name not in self.allowed:
            return f"it names {name!r:.100}, which isn't one of this worker's functions"
        if instance is not None:
            return "it carries an object to call"
        if not isinstance(self.args, list) or not isinstance(self.kwargs, dict):
            return "its arguments are malformed"
        if any(getattr(self, callback) for callback in _CALLBACKS):
            return "it carries a callback"
        return "it carries a webhook" if self.webhooks else None

    def _disarm(self) -> None:
        for callback in _CALLBACKS:
            setattr(self, callback, None)
        self.webhooks = []
        self.retries_left = self.repeats_left = None
