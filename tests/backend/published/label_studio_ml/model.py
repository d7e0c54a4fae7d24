"""The base that models must descend from."""

from __future__ import annotations

from abc import ABC
from typing import Any


class LabelStudioMLBase(ABC):  # noqa: B024 - as published
    """Its own constructor keeps values in a database file below the working directory, which nobody may want."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        raise AssertionError("a file would be written")

    def get(self, key: str) -> Any:
        raise AssertionError("a file would be read")

    @property
    def label_config(self) -> Any:
        return self.get("label_config")

    @property
    def model_version(self) -> Any:
        return self.get("model_version")
