"""A look at a model while it is trained: figures and overlays of a few photos, the same after each pass.

Not a measurement: the photos are few, and the operating point isn't fixed yet.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from ris_core.checkpoint_files import OperatingPoint
from ris_core.data.folder import Sample, by_photo
from ris_core.evaluation.contact_sheet import contact_sheet
from ris_core.evaluation.evaluate import EvaluatedSample, evaluate_each
from ris_core.evaluation.metrics import Score, summarise
from ris_core.inference.predictor import Predictor
from ris_core.models.base import RISModel
from ris_core.training.run_folder import Validation

# Seconds after a pass, on two CPU cores.
_PHOTOS, _EXPRESSIONS = 32, 4
_SHOWN = 12


def preview_samples(samples: Sequence[Sample], photos: int = _PHOTOS) -> list[Sample]:
    """At most four expressions about each of at most so many photos, always the same."""
    rng, groups = random.Random(0), list(by_photo(samples))
    chosen = rng.sample(groups, min(photos, len(groups)))
    return [sample for photo in chosen for sample in rng.sample(photo, min(_EXPRESSIONS, len(photo)))]


def validate(model: RISModel, samples: Sequence[Sample], side: int) -> Validation:
    """Answer the samples, photos read at `side` pixels -> figures, and an overlay of one target a photo.

    Raises ImageError or DatasetError if a photo or a mask can't be read.
    """
    # A new one each time: it remembers sentences, which training may have changed.
    predictor = Predictor(model, OperatingPoint(side), "in training")
    scores: list[Score] = []
    shown: dict[Path, EvaluatedSample] = {}
    for evaluated in evaluate_each(predictor, samples):
        scores.append(evaluated.score)
        if evaluated.sample.has_target and len(shown) < _SHOWN:
            shown.setdefault(evaluated.sample.image, evaluated)
    return Validation(summarise(scores), contact_sheet(list(shown.values()), "validation photos"))
