"""A candidate: the version in production trained further, within a given time. Knows no Label Studio, no registry.

All that a killed training needs to go on lies in its run folder: the plan, and the state after each pass.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from ris_core import checkpoint
from ris_core.data import Sample
from ris_core.data.batches import by_photo, count_batches
from ris_core.files import atomic_write
from ris_core.models import RISModel
from ris_core.models.alignment import class_names
from ris_core.training import Progress, Recipe, train

PLAN, CHECKPOINT = "plan.json", "checkpoint"

# Half the rate for a model from scratch: the weights are good already, and corrections are few.
RECIPE = Recipe(rate=5e-4, warm_up=10)
# More passes over a few photos learn the photos by heart.
MAX_PASSES = 60
_SIDE = 96
# Expressions for absent things kept for each photo, and the cosine similarity below which a name is another thing.
_ABSENT, _FAR = 64, 0.4


@dataclass(frozen=True)
class Plan:
    """What fits into the time: so many passes over these photos (names of files)."""

    passes: int
    photos: tuple[str, ...]


def train_candidate(
    base: Path,
    samples: Sequence[Sample],
    new: Collection[int],
    seconds: float,
    run: Path,
    report: Callable[[float], None],
    *,
    photos: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train the checkpoint `base` further on `samples` -> the candidate's checkpoint, inside `run`.

    Called again with the same `run` after a crash or an interruption, it goes on where that one stopped, to the same
    weights.

    Args:
        new: image ids that haven't been learnt from; they go first where time is too short for all photos.
        seconds: about how long to train, less what a first look at the pace takes.
        report: hears the share done, from 0 to 1.
        photos: of a batch; fewer take less memory. [as the recipe says]
        stop: asked between steps; once it is true, what was learnt is saved and the training ends.

    Raises:
        Interrupted: `stop` was true.
        CheckpointError: `base` can't be loaded.
        TrainingError: `samples` is empty, or the loss is no number.
    """
    folder = run / CHECKPOINT
    if folder.exists():
        return folder
    model, point = checkpoint.load(base)
    recipe = replace(RECIPE, side=max(_SIDE, point.side // _SIDE * _SIDE), photos=photos or RECIPE.photos)
    plan = _plan(base, samples, new, seconds, recipe, run)
    chosen = [sample for sample in samples if sample.image.name in plan.photos]
    chosen += absent_samples(model, chosen) if chosen else []

    def hear(at: Progress) -> None:
        report(at.step / at.steps)

    with fixed_encoders(model):
        train(model, chosen, replace(recipe, epochs=plan.passes), run, hear, stop=stop)
    checkpoint.save(model, point, folder, _card(checkpoint.version(base), plan, len(chosen)))
    return folder


@contextmanager
def fixed_encoders(model: RISModel) -> Iterator[None]:
    """Inside, training changes the decoder alone: adapters of the base stay part of the version, as they are.

    Few corrections teach an encoder little, and the way back through it takes most of a step's time and memory.
    """
    encoders = (model.image_encoder, model.text_encoder)
    trained = [weight for encoder in encoders for weight in encoder.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def absent_samples(model: RISModel, samples: Sequence[Sample]) -> list[Sample]:
    """Expressions for what isn't in each photo. Without them a model forgets to refuse: corrections name what is there.

    They are class names of ImageNet, far in meaning from all that the project's corrections speak of. One in a thousand
    may still be in the picture, unmentioned.
    """
    said = model.encode_text(sorted({sample.sentence for sample in samples})).sentence
    names = class_names()
    nearness = (model.encode_text(names).sentence @ said.T).amax(dim=1)
    far = [name for name, near in zip(names, nearness.tolist(), strict=True) if near < _FAR]
    absent = []
    for photo in by_photo(samples):
        drawn = random.Random(photo[0].image.name).sample(far, min(_ABSENT, len(far)))
        absent += [replace(photo[0], sentence=name, segmentations=()) for name in drawn]
    return absent


def _plan(
    base: Path, samples: Sequence[Sample], new: Collection[int], seconds: float, recipe: Recipe, run: Path
) -> Plan:
    """The plan that the run began with; else a new one, which is written down."""
    path = run / PLAN
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        return Plan(int(content["passes"]), tuple(content["photos"]))
    steps = max(1, int(seconds / _pace(base, samples, recipe)))
    plan = plan_for(samples, new, steps, recipe.photos)
    atomic_write(path, json.dumps(asdict(plan)).encode())
    return plan


def plan_for(samples: Sequence[Sample], new: Collection[int], steps: int, batch: int) -> Plan:
    """At most `steps` batches: as many passes over all photos as fit, or one over the new and some of the others."""
    photos = list(by_photo(samples))
    passes = steps // max(1, count_batches(samples, batch))
    if not passes:
        # The seed makes the choice repeatable.
        random.Random(len(photos)).shuffle(photos)
        photos.sort(key=lambda photo: photo[0].image_id not in new)
        photos = photos[: steps * batch]
    return Plan(min(MAX_PASSES, max(1, passes)), tuple(photo[0].image.name for photo in photos))


def _pace(base: Path, samples: Sequence[Sample], recipe: Recipe) -> float:
    """Seconds that one batch takes here, from two passes over one batch with a model that is thrown away."""
    few = [sample for photo in list(by_photo(samples))[: recipe.photos] for sample in photo]
    model, _ = checkpoint.load(base)
    times = [time.monotonic()]
    with tempfile.TemporaryDirectory() as folder, fixed_encoders(model):
        train(model, few, replace(recipe, epochs=2), Path(folder), lambda at: times.append(time.monotonic()))
    # The first batch also warms caches up.
    return min(later - earlier for earlier, later in pairwise(times))


def _card(base: str, plan: Plan, expressions: int) -> str:
    return (
        f"# Fine-tuned from {base}\n\n{plan.passes} passes over {expressions} expressions about "
        f"{len(plan.photos)} photos. `version.json` names the snapshot and says how it compares.\n"
    )
