"""Any checkpoint, ready to answer: one of our models, or a zero-shot segmenter that it points to."""

from pathlib import Path

from ris_core import checkpoint_files
from ris_core.inference.predictor import Precision, Predictor
from ris_core.inference.segmenter import Segmenter
from ris_core.zero_shot.loading import load_zero_shot
from ris_core.zero_shot.pointer import fetched


def find(model: Path | str | None = None) -> Path:
    """As `checkpoint_files.find`; of a zero-shot segmenter that isn't here, the error says what it takes to have it."""
    name = str(model)
    if name in checkpoint_files.ZERO_SHOT and not Path(name).is_dir():
        return fetched(name)
    return checkpoint_files.find(model)


def load(model: Path | str | None = None, precision: Precision = "auto") -> Segmenter:
    """The checkpoint in a folder, the weights of a design or of a zero-shot segmenter by name, or the shipped model.

    Raises CheckpointError if it is missing, damaged, or of another version.
    """
    folder = find(model)
    loader = load_zero_shot if checkpoint_files.is_zero_shot(folder) else Predictor.load
    return loader(folder, precision)
