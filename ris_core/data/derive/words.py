"""Nouns for the classes of COCO and of Clothing Co-Parsing: plurals and the few synonyms that are always true."""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
ORDINALS = {2: ("second", "2nd"), 3: ("third", "3rd")}

_WORDS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_COLOURED = frozenset(_WORDS["coloured"])
_SHARED = [*_WORDS["shared"], *([broad, name] for broad, names in _WORDS["broad"].items() for name in names)]


@dataclass(frozen=True)
class Noun:
    """A class in words. many: all of it. counted: whether one can be told from two: "skis" are both. is_pair: worn."""

    one: str
    many: str
    counted: bool = True
    is_pair: bool = False


def noun(name: str) -> Noun:
    """The noun of a class whose objects are told apart."""
    return Noun(name, _WORDS["plurals"].get(name) or _plural(name), name not in _WORDS["uncounted"])


def pair(name: str) -> Noun | None:
    """The noun of one shoe of a pair, say, where `name` is worn in twos."""
    return Noun(name.removesuffix("s"), name, is_pair=True) if name in _WORDS["pairs"] else None


def synonyms(name: str) -> tuple[str, ...]:
    """Other words that are true wherever `name` is, its own first of all."""
    return (name, *_WORDS["synonyms"].get(name, ()))


def has_colour(name: str) -> bool:
    """Whether people tell things of this class apart by a colour."""
    return name in _COLOURED


def alike(name: str) -> frozenset[str]:
    """Classes that may be meant by `name` too, itself among them."""
    return _united(_WORDS["alike"], name)


def may_be(name: str) -> frozenset[str]:
    """Classes that a thing labelled `name` may truly belong to, `name` among them: none of them is surely absent."""
    return _united(_SHARED, name)


def mentions(sentence: str, name: str) -> bool:
    """Whether a sentence speaks of the class `name`, of one alike, or of several: with one more it might not hold."""
    return _words_for(name).search(sentence) is not None


@cache
def _words_for(name: str) -> re.Pattern[str]:
    classes = alike(name) | may_be(name)
    words = {word for other in classes for word in (*synonyms(other), noun(other).many, other.removesuffix("s"))}
    return re.compile(rf"\b({'|'.join(sorted(map(re.escape, words)))})\b", re.IGNORECASE)


def _united(groups: Iterable[Sequence[str]], name: str) -> frozenset[str]:
    return frozenset({name}.union(*(group for group in groups if name in group)))


def _plural(word: str) -> str:
    return f"{word}es" if word.endswith(("s", "x", "ch", "sh")) else f"{word}s"


_SIDES = re.compile(r"\b(left|right)(most)?\b", re.IGNORECASE)


def mirror_words(sentence: str) -> str:
    """Swap left and right, as a mirrored photo does: "the leftmost cup" -> "the rightmost cup"."""

    def swap(match: re.Match[str]) -> str:
        word = match.group(1)
        other = "right" if word.lower() == "left" else "left"
        return (other.capitalize() if word[0].isupper() else other) + (match.group(2) or "")

    return _SIDES.sub(swap, sentence)
