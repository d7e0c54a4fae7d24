"""What is wrong with annotations, or had to be decided: told with the task and the region, and counted."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """kind: "task", without what it needs; "image", that can't be had; "region", that can't be read or isn't taken;
    "unknown label" or "unknown tag", which the interface hasn't; "rotated", a shape whose box isn't what was drawn;
    "empty", a mask of no pixel; "remark", for people who look after the project.

    message: one sentence or more for people. region: Label Studio's id, "" where it isn't about one.
    """

    kind: str
    task: int
    message: str
    annotation: int | None = None
    region: str = ""
