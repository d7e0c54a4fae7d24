"""What is wrong with annotations, or had to be decided: told with the task and the region, and counted."""

from dataclasses import dataclass
from typing import Literal

ProblemKind = Literal["task", "image", "region", "unknown label", "unknown tag", "rotated", "empty", "disagreement"]
"""A task without what it needs; a picture that can't be had; a region that can't be read; a label or a tag that the
interface hasn't; a rectangle or ellipse whose box isn't what was drawn; a mask of no pixel; people who disagree."""


@dataclass(frozen=True)
class Problem:
    """message: one sentence or more for people. region: Label Studio's id, "" where it isn't about one."""

    kind: ProblemKind
    task: int
    message: str
    annotation: int | None = None
    region: str = ""
