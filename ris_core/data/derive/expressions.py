"""Referring expressions derived from the masks and pixels of a photo's things: "the left dog", "red bus", "both cups".

Left alone are classes of which more may be in the photo than is labelled, and those with one object labelled twice.
"""

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from ris_core.data.derive import phrases
from ris_core.data.derive.choices import SMALL, Choice, Thing, choices
from ris_core.data.derive.colours import TRACE, UNTRUE, colour_shares, contradictions, dominant, is_dark
from ris_core.data.derive.words import NUMBERS, alike, has_colour, synonyms
from ris_core.images import Pixels
from ris_core.masks import Mask, iou

ExpressionKind: TypeAlias = Literal["name", "synonym", "derived", "attribute", "plural", "absent", "contradicted"]
Shares: TypeAlias = dict[str, float]

_PARAPHRASES = 3
# Of two masks' union: one object, labelled by two people.
_TWICE = 0.5
# Of a person's height from the top and, at least, of its width: the clothes that people go by when someone stands.
_CHEST, _STANDING = (0.2, 0.5), 1.5


@dataclass(frozen=True)
class DerivedExpression:
    """Sentences that mean the same things of a photo; none of them for what isn't there."""

    kind: ExpressionKind
    sentences: tuple[str, ...]
    things: tuple[Thing, ...] = ()


class _Wording(NamedTuple):
    """Templates, see `phrases`, the word to put into them, and what is then meant."""

    kind: ExpressionKind
    templates: tuple[str, ...]
    word: str
    things: tuple[Thing, ...]


class _Untrue(NamedTuple):
    """What can be said in a colour that the thing doesn't have."""

    colour: str
    wording: _Wording


def derive_expressions(
    things: Sequence[Thing], image: Pixels, seed: str, unsure: Collection[str] = ()
) -> list[DerivedExpression]:
    """All expressions that a photo's things allow, and one at most that contradicts its colours.

    things: every object that is labelled, however small. image: HxWx3 RGB. seed: fixes which phrasings are drawn; the
    photo's name. unsure: classes of which more may be there than `things`.
    """
    rng, dark = random.Random(seed), is_dark(image)
    groups = {group[0].name: group for group in _classes(things, unsure)}
    colours = {name: [{} if dark else _shares(thing, image) for thing in group] for name, group in groups.items()}
    wordings = [
        wording
        for name, group in groups.items()
        for wording in (*map(_chosen, choices(group)), *_together(group), *_coloured(group, colours[name]))
    ]
    never = [untrue for group in groups.values() for untrue in _contradicted(group, colours)]
    if never:
        wordings += _seldom(never, rng.choice(never), random.Random(f"untrue {seed}"))
    return [DerivedExpression(wording.kind, _say(wording, rng), wording.things) for wording in wordings]


def _classes(things: Sequence[Thing], unsure: Collection[str]) -> Iterator[tuple[Thing, ...]]:
    groups: dict[str, list[Thing]] = defaultdict(list)
    for thing in things:
        if thing.name not in unsure:
            groups[thing.name].append(thing)
    for group in groups.values():
        if all(iou(one.mask, other.mask) < _TWICE for one, other in combinations(group, 2)):
            yield tuple(group)


def _chosen(choice: Choice) -> _Wording:
    return _Wording("derived", choice.templates, choice.thing.noun.one, (choice.thing,))


def _together(group: tuple[Thing, ...]) -> Iterator[_Wording]:
    noun = group[0].noun
    if len(group) < 2 or sum(thing.share for thing in group) < SMALL:
        return
    yield _Wording("plural", phrases.ALL, noun.many, group)
    if noun.counted and len(group) in NUMBERS and all(thing.share >= SMALL for thing in group):
        yield _Wording("plural", phrases.count(len(group)), noun.many, group)


def _coloured(group: tuple[Thing, ...], shares: Sequence[Shares]) -> Iterator[_Wording]:
    """The only one of its colour; or all of them, where they share it."""
    names = [dominant(own) for own in shares]
    for place, (thing, colour) in enumerate(zip(group, names, strict=True)):
        others = [*shares[:place], *shares[place + 1 :]]
        if colour and thing.share >= SMALL and all(other and other.get(colour, 0.0) < TRACE for other in others):
            yield _Wording("attribute", _in_colour(thing.name, colour), thing.noun.one, (thing,))
    if len(group) > 1 and names[0] and len(set(names)) == 1:
        yield _Wording("attribute", _in_colour(group[0].name, names[0]), group[0].noun.many, group)


def _seldom(never: Sequence[_Untrue], drawn: _Untrue, rng: random.Random) -> list[_Wording]:
    """One of them or none, so that no colour gives away by itself that a sentence is untrue."""
    if rng.random() < UNTRUE[drawn.colour]:
        return [drawn.wording]
    # Most clothes are black; to be doubted at all it must be said of others wherever it can.
    black = [untrue.wording for untrue in never if untrue.colour == "black"]
    return [rng.choice(black)] if black else []


def _contradicted(group: tuple[Thing, ...], colours: Mapping[str, Sequence[Shares]]) -> Iterator[_Untrue]:
    """Colours that none has, nor what may be taken for one; only where the colour of each is beyond doubt."""
    name = group[0].name
    names = [dominant(shares) for shares in colours[name]]
    doubtless = zip(names, colours[name], strict=True)
    never = [set(contradictions(own, shares)) if own else set() for own, shares in doubtless]
    around = [shares for other in alike(name) for shares in colours.get(other, ())]
    for colour in sorted(set.intersection(*never)):
        if all(shares.get(colour, 0.0) < TRACE for shares in around):
            yield _Untrue(colour, _Wording("contradicted", _in_colour(name, colour), group[0].noun.one, ()))


def _shares(thing: Thing, image: Pixels) -> Shares:
    """Of the pixels that people would go by; none where they wouldn't."""
    if thing.name == "person":
        chest = _chest(thing)
        return {} if chest is None else colour_shares(image, chest)
    return colour_shares(image, thing.mask) if has_colour(thing.name) else {}


def _chest(person: Thing) -> Mask | None:
    rows, columns = np.flatnonzero(person.mask.any(axis=1)), np.flatnonzero(person.mask.any(axis=0))
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    if height < _STANDING * width:
        return None
    first, last = (rows[0] + round(part * height) for part in _CHEST)
    chest = np.zeros_like(person.mask)
    chest[first:last] = person.mask[first:last]
    return chest


def _in_colour(name: str, colour: str) -> tuple[str, ...]:
    return phrases.dressed(colour) if name == "person" else phrases.coloured(colour)


def _say(wording: _Wording, rng: random.Random) -> tuple[str, ...]:
    """A few of the ways to say it, now and then by another word for the thing."""
    chosen = rng.sample(wording.templates, min(_PARAPHRASES, len(wording.templates)))
    if wording.kind == "contradicted":
        chosen = chosen[:1]
    return tuple(template.format(rng.choice(synonyms(wording.word))) for template in chosen)
