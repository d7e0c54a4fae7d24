"""How a training that is under way goes, from the folder where it keeps its state. Knows no queue."""

import json
from contextlib import suppress
from pathlib import Path

from backend.home import learning_folder

# Points of a curve: more than a picture of it has room for would only be slow.
_POINTS = 200
_METRICS = "metrics.jsonl"


def training_curve(home: Path, project: int) -> list[tuple[int, float]]:
    """Step and loss of a project's training, the first to the last; nothing where none is under way."""
    runs = sorted(learning_folder(home, project).glob(f"*/{_METRICS}"), key=lambda file: file.parent.name)
    points: list[tuple[int, float]] = []
    with suppress(OSError):
        for line in runs[-1].read_text(encoding="utf-8").splitlines() if runs else ():
            # A kill may have cut the last one off.
            with suppress(ValueError, KeyError, TypeError):
                logged = json.loads(line)
                points.append((int(logged["step"]), float(logged["loss"])))
    every = max(1, len(points) // _POINTS)
    # The last one is where it stands.
    return points[::-1][::every][::-1]
