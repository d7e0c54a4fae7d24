"""Every error of the project descends from `RisError`.

RisError
├── InputError         what a person gave can't be used
│   ├── ImageError     the photo
│   └── PromptError    the sentence
├── CheckpointError    weights are missing, damaged or don't fit
├── DatasetError       a dataset folder or file isn't what it should be
├── TrainingError      a run can't go on
└── OutOfMemory        not even one photo or prompt fits

A message says what happened, to which file, task or version, and what to do next.
"""


class RisError(Exception):
    """Base of all errors. `code` is stable: scripts may rely on it."""

    code = "error"

    def __init_subclass__(cls, code: str | None = None) -> None:
        cls.code = code or cls.code


class InputError(RisError, code="bad_input"):
    """What a person gave can't be used."""


class ImageError(InputError, code="bad_image"):
    """The photo can't be used."""


class PromptError(InputError, code="bad_prompt"):
    """The sentence can't be used."""


class CheckpointError(RisError, code="bad_checkpoint"):
    """Weights are missing, damaged or don't fit."""


class DatasetError(RisError, code="bad_dataset"):
    """A dataset folder or file isn't what it should be."""


class TrainingError(RisError, code="training_failed"):
    """A run can't go on."""


class OutOfMemory(RisError, code="out_of_memory"):
    """Not even one photo or prompt fits."""
