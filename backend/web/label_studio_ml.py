"""The backend as a class for label-studio-ml 2.x, for people who host their backends under that package.

Its calling sequence is that of its api.py (HumanSignal/label-studio-ml-backend, 2.0.1.dev0): an instance a request;
`predict(tasks, context=..., login=..., password=...)`; for /setup `get("model_version")`; for events
`fit(event, data)`. Works without the package as well, which is what the tests do. Holds no logic of its own.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from backend.labelstudio.responses import Json
from backend.settings import load
from backend.web.ml_backend import MLBackend, build


@cache
def ml_backend() -> MLBackend:
    """What answers, made once a process from the settings; the model begins to load."""
    return build(load())


def _base() -> Any:
    """The class that label-studio-ml wants its models to descend from, where that package is installed."""
    try:
        return import_module("label_studio_ml.model").LabelStudioMLBase
    except ImportError:
        return object


class RISModel(_base()):  # type: ignore[misc]
    """Answers for one project, given by its number and its labelling interface."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        # Not the base's: it would keep a version of its own in a database file.
        self._project, self._interface, self._values = project_id or "0", label_config or "", dict[str, Any]()
        self.setup()

    def setup(self) -> None:
        """Look up the version in production. Raises ConfigError if the interface can't carry masks."""
        if self._interface:
            request = {"project": f"{self._project}.0", "schema": self._interface}
            self._values["model_version"] = ml_backend().setup(request)["model_version"]

    def get(self, key: str) -> Any:
        """What `set` was given for a key; also "model_version". None if nothing was."""
        return self._values.get(key)

    def set(self, key: str, value: Any) -> None:
        """Keep a value as long as this instance lives."""
        self._values[key] = value

    def has(self, key: str) -> bool:
        """Whether `get` has a value for the key."""
        return key in self._values

    def set_extra_params(self, _: object) -> None:
        """Nothing: the settings are this machine's, not Label Studio's."""

    def predict(self, tasks: Sequence[Json], context: Json | None = None, **params: Any) -> list[Json]:
        """One prediction a task, in order; see `Prelabeller.predict`."""
        request = {
            "tasks": tasks,
            "project": f"{self._project}.0",
            "label_config": self._interface,
            # That package's stand-in for no context is {}.
            "params": {**params, "context": context or None},
        }
        return list(ml_backend().predict(request)["results"])

    def fit(self, event: str, data: Mapping[str, Any], **_: Any) -> Json:
        """Queue learning, if the event calls for it; the worker does it (`ris worker`)."""
        return ml_backend().webhook({**data, "action": event})
