"""From sentences and boxes to a listener with its card. Nothing of it prints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from ris_core.checkpoint import parameters
from ris_core.data.readers.refer_lines import ReferredThing, read_refer_lines
from ris_core.encoders import text_encoder
from ris_core.errors import InputError
from ris_core.inference.naming import names_place
from ris_core.models import listener as listener_files
from ris_core.models.listener import Listener
from ris_core.training.listener import ListenerRecipe, SentenceFeatures, accuracy, held_out, train_listener
from ris_core.training.pipeline import OnStage


@dataclass(frozen=True)
class Figures:
    """right: share of the sentences whose box was chosen. chance: the share that guessing gets right."""

    sentences: int
    right: float
    chance: float


@dataclass(frozen=True)
class Taught:
    """sentences, photos: learnt from. figures: of held-out photos, by the file that the sentences came from."""

    sentences: int
    photos: int
    figures: Mapping[str, Figures]


def train_and_measure(
    refs: Path,
    folder: Path,
    without: Path | None,
    encoder: str,
    epochs: int,
    seed: int,
    on_progress: OnStage,
) -> Taught:
    """Teach a listener on nine tenths of the photos, measure it on the last, write it at `folder`.

    Args:
        refs: as for `read_refer_lines`.
        without: a file of COCO's numbers of photos to leave out, separated by blanks or commas.

    Raises InputError if `without` isn't that, and as `read_refer_lines` and `train_listener` do.
    """
    left_out = _numbers(without) if without else frozenset[int]()
    things = [thing for thing in read_refer_lines(refs) if len(thing.boxes) > 1]
    left_out &= {thing.image_id for thing in things}
    things = [thing for thing in things if thing.image_id not in left_out]
    taught = [thing for thing in things if not held_out(thing.image_id)]
    features = SentenceFeatures(text_encoder(encoder))
    recipe = ListenerRecipe(epochs=epochs, seed=seed)
    listener = train_listener(taught, features, recipe=recipe, on_progress=on_progress)
    figures = measure(listener, [thing for thing in things if held_out(thing.image_id)], features)
    report = Taught(len(taught), len({thing.image_id for thing in taught}), figures)
    listener_files.save(listener, folder, _card(listener, report, recipe, sorted(left_out)))
    return report


def measure(listener: Listener, things: Sequence[ReferredThing], features: SentenceFeatures) -> dict[str, Figures]:
    """By source, and of the sentences that speak of places."""
    groups: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for thing, right in zip(things, accuracy(listener, things, features), strict=True):
        names = ["all", thing.source, *(["with a word for a place"] if names_place(thing.sentence) else [])]
        for name in names:
            groups[name].append((right, 1 / len(thing.boxes)))
    return {name: _figures(rows) for name, rows in sorted(groups.items())}


def _figures(rows: Iterable[tuple[bool, float]]) -> Figures:
    right, chance = zip(*rows, strict=True)
    return Figures(len(right), mean(right), mean(chance))


def _numbers(path: Path) -> frozenset[int]:
    try:
        return frozenset(int(number) for number in path.read_text(encoding="utf-8").replace(",", " ").split())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} isn't a list of numbers of photos: {error}.") from None


def _card(listener: Listener, report: Taught, recipe: ListenerRecipe, left_out: Sequence[int]) -> str:
    rows = "\n".join(
        f"| {name} | {row.sentences} | {row.right:.3f} | {row.chance:.3f} |" for name, row in report.figures.items()
    )
    photos = ", ".join(map(str, left_out)) or "none"
    return f"""# A listener: which of several things a sentence means by place and size

{parameters(listener):,} parameters, kept in half precision. It sees boxes and words, never a photo.

Taught by {report.sentences:,} sentences about {report.photos:,} photos from the validation and test splits of RefCOCO,
RefCOCO+ and RefCOCOg (lichengunc/refer, Apache-2.0), and by made sentences; {recipe.epochs} passes, seed {recipe.seed}.
**No figure on RefCOCO, RefCOCO+ or RefCOCOg can be claimed for a model that uses it: it has seen their sentences.**
COCO's photos that were left out since something is measured on them: {photos}.

Held out: a tenth of the photos, by the SHA-256 of COCO's number. The candidates are the boxes that sentences of the
set are about.

| sentences of | how many | right | by chance |
| --- | --- | --- | --- |
{rows}
"""
