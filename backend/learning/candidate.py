"""A candidate: an earlier version trained further, within a given time. Knows no Label Studio, no registry.

All that a killed training needs to go on lies in its run folder: the plan, and the state after each pass.
"""

import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate, chain, compress, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from backend.learning.room import in_room
from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.data import Sample, by_photo
from ris_core.data.datasets import names_of
from ris_core.evaluation.evaluate import evaluate
from ris_core.files import atomic_write
from ris_core.inference.calibration import mean
from ris_core.inference.predictor import Predictor
from ris_core.models.base import RISModel
from ris_core.models.class_alignment import class_names
from ris_core.training.balance import balance
from ris_core.training.batches import RECALLED
from ris_core.training.feature_cache import FeatureCache
from ris_core.training.loop import train
from ris_core.training.processes import broadcast, is_first, process_count
from ris_core.training.recipe import Recipe

PLAN, CHECKPOINT = "plan.json", "checkpoint"

# Half the rate for a model from scratch: the weights are good already, and corrections are few. Four views of a photo,
# in turn: each is encoded once.
RECIPE = Recipe(rate=5e-4, warm_up=10, views=4)
# More passes over a few photos learn the photos by heart.
MAX_PASSES = 60
# Of the way from the base to what training came to; docs/learning.md says what others would do. A base whose answers to
# what it is to learn come to no more than _UNKNOWN has little to lose: three fifths of the way back, what it refused
# with certainty is refused still, though training had found it. From _KNOWN on the base's answers count.
LEARNT, MOST_LEARNT = 0.4, 0.8
_UNKNOWN, _KNOWN = 0.2, 0.4
# Expressions that this is measured on.
_ASKED = 64
# Bytes of encoded views that are kept: 1,600 of them at 480 pixels.
CACHED = 2 << 30
_SIDE = 96
# Steps below which batches get smaller, and photos that they keep.
_STEPS, _LEAST_BATCH = 32, 2
# Where time is too short for all photos: the share of those that aren't new.
_REPLAYED = 1 / 3
# Photos from which the pace is taken.
_MEASURED = 2
# What is recalled: names that it is drawn from (all 1,000 take seconds to encode), how many of them a photo has, and
# the cosine similarity below which a name is another thing.
_NAMES, _RECALLED, _FAR, _NO_REF = 250, 64, 0.4, -1


@dataclass(frozen=True)
class Plan:
    """What fits into the time: so many passes over these photos (names of files), so many of them a batch.

    batch: None means as many as the recipe says.
    """

    passes: int
    photos: tuple[str, ...]
    batch: int | None = None


class Pace(NamedTuple):
    """Seconds that a photo takes. first: to encode a view of it. again: to learn from it, in every pass."""

    first: float
    again: float


@dataclass(frozen=True)
class CandidateSpec:
    """What a candidate is to be made of.

    base: the checkpoint that is trained further.
    seconds: about how long it may take.
    new: image ids that haven't been learnt from; they are drawn more often, and before others where time is too short
        for all photos.
    photos: of a batch, at most; fewer take less memory. [as the recipe says]
    features: folder for what the encoder makes of photos, a cache that runs may share. [in the run folder]
    """

    base: Path
    samples: Sequence[Sample]
    seconds: float
    new: Collection[int] = ()
    photos: int | None = None
    features: Path | None = None


def train_candidate(
    spec: CandidateSpec, run: Path, on_progress: Callable[[float], None], stop: Callable[[], bool] = lambda: False
) -> Path:
    """Train what a spec asks for -> the candidate's checkpoint, inside the folder `run`.

    Called again with the same `run` after a crash or an interruption, it goes on where that one stopped, to the same
    weights. Where memory runs out it begins anew with less at a time, see `room`. Of several processes that train
    together, the first writes what they learnt. `on_progress` hears the share done, from 0 to 1; once `stop` is true,
    what was learnt is saved and Interrupted raised.

    Raises CheckpointError if the base can't be loaded, TrainingError without samples or where the loss is no number.
    """
    # Each process needs a photo.
    photos = max(process_count(), spec.photos or RECIPE.photos)

    def train_with(batch: int) -> Path:
        return _train(spec, batch, run, on_progress, stop)

    # Several would have to begin anew together.
    return train_with(photos) if process_count() > 1 else in_room(run, photos, train_with)


def _train(
    spec: CandidateSpec, batch: int, run: Path, on_progress: Callable[[float], None], stop: Callable[[], bool]
) -> Path:
    """`train_candidate` with so many photos a batch, at most."""
    folder, started = run / CHECKPOINT, time.monotonic()
    if folder.exists():
        return folder
    model, point = checkpoint.load(spec.base, merged=True)
    recipe = replace(RECIPE, side=max(_SIDE, point.side // _SIDE * _SIDE), photos=batch)
    with fixed_encoders(model):
        cache = FeatureCache(spec.features or run / "features", model.image_encoder, CACHED, recipe.precision)
        teacher, _ = checkpoint.load(spec.base, merged=True)
        samples, weights = _weighted(model, spec)
        learn = partial(train, features=cache, teacher=teacher, stop=stop)

        def make_plan() -> Plan:
            pace = _pace(spec, samples, recipe, learn)
            # However long a busy machine took to begin: else nothing is learnt there at all.
            left = max(spec.seconds / 2, spec.seconds - (time.monotonic() - started))
            return plan_for(spec.samples, spec.new, left, pace, recipe.photos)

        plan = _settled(run, make_plan)
        photos = set(plan.photos)
        drawn = [sample.image.name in photos for sample in samples]
        samples, weights = list(compress(samples, drawn)), list(compress(weights, drawn))
        recipe = replace(recipe, epochs=plan.passes, photos=plan.batch or recipe.photos)
        learn(model, samples, recipe, run, lambda now: on_progress(now.step / now.steps), weights=weights)
    if is_first():
        _blend(model, teacher, learnt_share(_mean_score(teacher, point, spec.samples)))
        card = _card(checkpoint_files.version(spec.base), plan, len(samples))
        checkpoint.save(model, _taught(point, samples), folder, card)
    return folder


def _taught(point: OperatingPoint, samples: Sequence[Sample]) -> OperatingPoint:
    """With what was learnt among the names whose refusals are believed; where none is doubted, as it is."""
    return replace(point, names=tuple(dict.fromkeys([*point.names, *names_of(samples)]))) if point.doubt else point


@contextmanager
def fixed_encoders(model: RISModel) -> Iterator[None]:
    """Inside, training changes the decoder alone: adapters of the base stay part of the version, as they are.

    Few corrections teach an encoder little, and the way back through it takes most of a step's time and memory. What it
    makes of a view is then the same in every version that comes of a base, so all of it can be kept.
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


@torch.no_grad()
def _blend(model: RISModel, base: RISModel, share: float) -> None:
    """Move `model` back on the straight line to `base`, until `share` of the way is left.

    Much of what it learnt stays, most of what it lost comes back. Wortsman et al. 2022, arXiv 2109.01903.
    """
    for weight, was in zip(model.parameters(), base.parameters(), strict=True):
        weight.lerp_(was, 1 - share)


def learnt_share(known: float) -> float:
    """How far to go from a base whose answers to what it is to learn come to `known` in the mean, 0 to 1 [ours]."""
    return float(np.interp(known, (_UNKNOWN, _KNOWN), (MOST_LEARNT, LEARNT)))


def _mean_score(base: RISModel, point: OperatingPoint, samples: Sequence[Sample]) -> float:
    """What the base's answers to some of the things to be learnt come to; 1 where nothing is there to be found."""
    targets = [sample for sample in samples if sample.has_target]
    asked = random.Random(0).sample(targets, min(_ASKED, len(targets)))
    scores = evaluate(Predictor(base, point, ""), asked).scores
    return round(mean([score.correct for score in scores]), 2) if scores else 1.0


def _weighted(model: RISModel, spec: CandidateSpec) -> tuple[list[Sample], list[float]]:
    """What is learnt from, and how often each of it is drawn."""
    if not spec.samples:
        return [], []
    weights, recalled = balance(spec.samples, spec.new), recalled_samples(model, spec.samples)
    usual, absent = sum(weights) / len(weights), defaultdict[Path, list[float]](list)
    for sample, weight in zip(spec.samples, weights, strict=True):
        if not sample.has_target:
            absent[sample.image].append(weight)
    # Beside an expression of which a person said that it isn't there, one of these has an even chance.
    means = {image: sum(those) / len(those) for image, those in absent.items()}
    return [*spec.samples, *recalled], weights + [means.get(sample.image, usual) for sample in recalled]


def recalled_samples(model: RISModel, samples: Sequence[Sample]) -> list[Sample]:
    """Expressions about each photo of which nobody said anything: what the base answers to them is to be kept.

    They are class names of ImageNet, far in meaning from all that the project's corrections speak of. Most are refused,
    which a model forgets otherwise: corrections name what is there.
    """
    said = model.encode_text(sorted({sample.sentence for sample in samples})).sentence
    names = random.Random(0).sample(class_names(), _NAMES)
    nearness = (model.encode_text(names).sentence @ said.T).amax(dim=1)
    far = [name for name, near in zip(names, nearness.tolist(), strict=True) if near < _FAR]
    recalled = []
    for photo in by_photo(samples):
        drawn = random.Random(photo[0].image.name).sample(far, min(_RECALLED, len(far)))
        # One ref: they are drawn as one.
        recalled += [
            replace(photo[0], ref_id=_NO_REF, sentence=name, segmentations=(), kind=RECALLED) for name in drawn
        ]
    return recalled


def _settled(run: Path, make: Callable[[], Plan]) -> Plan:
    """The plan that the run began with; else one that is made now, written down, and the same in all processes."""
    path = run / PLAN
    written = json.loads(path.read_bytes()) if path.is_file() else None
    if plan := broadcast(written and Plan(**{**written, "photos": tuple(written["photos"])})):
        return plan
    plan = broadcast(make())
    if is_first():
        atomic_write(path, json.dumps(asdict(plan)).encode())
    return plan


def plan_for(samples: Sequence[Sample], new: Collection[int], seconds: float, pace: Pace, batch: int) -> Plan:
    """As many passes over all photos as fit, or one over the new and some of the others; never none.

    Where little fits, batches are of fewer photos than `batch`: many small steps teach more than few large ones.
    """
    photos = list(by_photo(samples))
    costs = list(
        accumulate(pace.again + (pace.first if number < RECIPE.views else 0.0) for number in range(MAX_PASSES))
    )
    passes = sum(len(photos) * cost <= seconds for cost in costs)
    if not passes:
        # A batch has a photo for each process, though upright and wide ones don't share a batch.
        least = 1 if process_count() == 1 else 2 * process_count()
        photos = _some(photos, new, max(least, int(seconds / costs[0])))
    passes = max(1, passes)
    fitting = min(batch, max(_LEAST_BATCH, process_count(), passes * len(photos) // _STEPS))
    return Plan(passes, tuple(photo[0].image.name for photo in photos), fitting)


def _some(photos: list[list[Sample]], new: Collection[int], count: int) -> list[list[Sample]]:
    """`count` photos, new ones first, but for the share of others that keeps what was learnt from being forgotten."""
    # The seed makes the choice repeatable.
    random.Random(len(photos)).shuffle(photos)
    groups = [[photo for photo in photos if (photo[0].image_id in new) is is_new] for is_new in (True, False)]
    others = min(len(groups[1]), max(int(count * _REPLAYED), count - len(groups[0])))
    return groups[0][: count - others] + groups[1][:others]


def _pace(spec: CandidateSpec, samples: Sequence[Sample], recipe: Recipe, learn: Callable[..., object]) -> Pace:
    """What a photo takes here, from three passes of `train` over a few with a model that is thrown away."""
    # New ones: of others the views may be known already. Of one orientation: they are one batch.
    photos = sorted(by_photo(samples), key=lambda photo: photo[0].image_id not in spec.new)
    most_are_upright = 2 * sum(map(_is_upright, photos)) > len(photos)
    few = [photo for photo in photos if _is_upright(photo) is most_are_upright]
    few = few[: max(process_count(), min(_MEASURED, recipe.photos))]
    recipe = replace(recipe, epochs=3, photos=max(1, len(few)), views=1)
    model, _ = checkpoint.load(spec.base, merged=True)
    times = [time.monotonic()]
    with tempfile.TemporaryDirectory() as folder, fixed_encoders(model):
        measured = list(chain.from_iterable(few))
        learn(model, measured, recipe, Path(folder), lambda _: times.append(time.monotonic()))
    first, *others = (later - earlier for earlier, later in pairwise(times))
    again = min(others)
    return Pace(max(0.0, first - again) / len(few), again / len(few))


def _is_upright(photo: Sequence[Sample]) -> bool:
    return photo[0].height > photo[0].width


def _card(base: str, plan: Plan, expressions: int) -> str:
    return (
        f"# Fine-tuned from {base}\n\n{plan.passes} passes over {expressions} expressions about "
        f"{len(plan.photos)} photos. `version.json` names the snapshot and says how it compares.\n"
    )
