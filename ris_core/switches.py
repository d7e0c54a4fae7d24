"""From what a checkpoint's `config.json` says to the dataclasses that models are built from, checked before one is.

Types are those of the dataclass. Bounds are far beyond what anybody has trained, and low enough that a model within
them is built in seconds. Knows no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from ris_core.errors import CheckpointError, InputError

Switches = TypeVar("Switches")

# Of every whole number, and of those for which that would be too much or too little.
MOST = 1024
_MOST = {"layers": 16, "blocks": 16, "rank": 256, "stages": 64, "text_stages": 64, "side": 8192, "text_width": 8192}
_LEAST = {"width": 1, "layers": 1, "heads": 1, "text_width": 1, "side": 32}
_MOST_ENTRIES = {"rates": 8}
_ENTRIES = 100_000


def checked(kind: type[Switches], values: object) -> Switches:
    """The dataclass `kind` with the values that JSON has for it. Raises CheckpointError, which names what is wrong."""
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{kind.__name__} should be an object of switches, not {type(values).__name__}.")
    unknown = values.keys() - {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise CheckpointError(f"{kind.__name__} has no switch named {', '.join(sorted(unknown))}.")
    for name, value in values.items():
        _check_extent(kind.__name__, name, value)
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        [problem, *_] = error.errors()
        where = ".".join(map(str, problem["loc"]))
        raise CheckpointError(f"{kind.__name__} has a bad {where or 'switch'}: {problem['msg']}.") from None
    except InputError as error:
        raise CheckpointError(f"{kind.__name__} can't be used: {error}") from None


def _check_extent(kind: str, name: str, value: object) -> None:
    entries = value if isinstance(value, list | tuple) else [value]
    if len(entries) > _MOST_ENTRIES.get(name, _ENTRIES):
        raise CheckpointError(f"{kind} has {len(entries):,} entries in {name}, too many.")
    for entry in entries:
        if isinstance(entry, float) and not math.isfinite(entry):
            raise CheckpointError(f"{kind} has a {name} of {entry}.")
        if isinstance(entry, int) and not _LEAST.get(name, 0) <= entry <= _MOST.get(name, MOST):
            shown = entry if abs(entry) < 1e12 else "a huge number"
            least, most = _LEAST.get(name, 0), _MOST.get(name, MOST)
            raise CheckpointError(f"{kind} has a {name} of {shown}, not from {least} to {most}.")
