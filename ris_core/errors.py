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


class InputError(RisError):
    """What a person gave can't be used."""

    code = "bad_input"


class ImageError(InputError):
    """The photo can't be used."""

    code = "bad_image"


class PromptError(InputError):
    """The sentence can't be used."""

    code = "bad_prompt"


class CheckpointError(RisError):
    """Weights are missing, damaged or don't fit."""

    code = "bad_checkpoint"


class DatasetError(RisError):
    """A dataset folder or file isn't what it should be."""

    code = "bad_dataset"


class TrainingError(RisError):
    """A run can't go on."""

    code = "training_failed"


class OutOfMemory(RisError):
    """Not even one photo or prompt fits."""

    code = "out_of_memory"
