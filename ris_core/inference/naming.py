"""The part of a sentence that names a thing, without the words that choose among several: "left dog" -> "dog".

Rules, ours, over the words that people used in RefCOCO. Knows no torch.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

_WORDS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_PLACE, _LEADING, _TRAILING = (frozenset(_WORDS[name]) for name in ("place", "leading", "trailing"))
_OWNERS, _PRONOUNS, _ARTICLES = (frozenset(_WORDS[name]) for name in ("owners", "pronouns", "articles"))
_MODIFIERS, _QUANTITIES = frozenset(_WORDS["modifiers"]), frozenset(_WORDS["quantities"])
_KINDS: dict[str, str] = {word: name for name, words in _WORDS["kinds"].items() for word in words}
# Of two things: what comes after says which, not what.
_RELATION = re.compile(
    r"\b(?:(?:right |just |standing |sitting )?(?:in (?:the )?(?:front|back) of|on top of|next to|beside|behind|between"
    r"|above|below|underneath|beneath|under|near|closest to|nearest to|closer to|nearer to|to the (?:left|right) of"
    r"|(?:left|right) of|away from|facing|across from|opposite))\b(?! (?:us|you|me|camera|the (?:camera|viewer|"
    r"(?:far )?(?:left|right|top|bottom|middle|center|centre|edge|side|corner|back|front|photo|picture|pic|image))))"
)


def name_part(sentence: str) -> str:
    """What is left of a sentence once place, size and order are taken away; empty if nothing is.

    >>> name_part("second zebra from the left"), name_part("the man on the far right"), name_part("middle")
    ('zebra', 'man', '')
    """
    words = _head(" ".join(sentence.lower().replace(",", " ").split())).split()
    drop = [word in _PLACE for word in words]
    for number, is_place in enumerate([word in _PLACE for word in words]):
        if is_place:
            _spread(words, drop, number, -1, _LEADING)
            _spread(words, drop, number, 1, _TRAILING)
    kept = [word for word, gone in zip(words, drop, strict=True) if not gone]
    return _stripped(" ".join(kept))


def _stripped(sentence: str) -> str:
    words = sentence.lower().replace(",", " ").split()
    while words and words[0] in _ARTICLES | _OWNERS:
        words.pop(0)
    while words and words[-1] in _ARTICLES:
        words.pop()
    return " ".join(words)


def _head(sentence: str) -> str:
    relation = _RELATION.search(sentence)
    head = sentence[: relation.start()].strip() if relation else sentence
    return head if head and set(head.split()) - _ARTICLES - _PLACE else sentence


def _spread(words: list[str], drop: list[bool], number: int, step: int, glue: frozenset[str]) -> None:
    """Drop the glue beside a place, up to the next word that isn't."""
    at = number + step
    while 0 <= at < len(words) and (words[at] in glue or words[at] in _PLACE):
        drop[at] = True
        at += step


def head_part(sentence: str) -> str:
    """The words of a sentence up to what they have, wear or do: "the old man in a red hat" -> "old man".

    >>> head_part("girl with the red pillow"), head_part("guy pulling the big suitcase"), head_part("white van left")
    ('girl', 'guy', 'white van')
    """
    head: list[str] = []
    for word in name_part(sentence).split():
        if head and (word in _MODIFIERS or (word.endswith("ing") and len(word) > 5)):
            break
        head.append(word)
    return " ".join(head)


def kind_of(sentence: str) -> str:
    """The class that a sentence's noun is a word for, by `naming.toml`; empty where the noun is none of its words.

    >>> kind_of("the lady in red on the left"), kind_of("yellow taxi"), kind_of("left dog")
    ('person', 'car', '')
    """
    words = head_part(sentence).split()
    for length in (2, 1):
        if kind := _KINDS.get(" ".join(words[-length:])):
            return kind
    # People leave out "in": "guy gray shirt"; but "her umbrella" is one.
    said = any(_KINDS.get(word) == "person" and word not in _PRONOUNS for word in words[:-1])
    return "person" if said and not {words[-1], " ".join(words[-2:])} & set(_KINDS.values()) else ""


def names_place(sentence: str) -> bool:
    """Whether a sentence says where a thing is, how large, or which in an order.

    >>> names_place("second zebra from the left"), names_place("the zebra")
    (True, False)
    """
    return _stripped(sentence) != name_part(sentence)


def kind_phrase(sentence: str) -> str:
    """What to ask for to see all that a sentence might mean; empty where the sentence itself is that.

    >>> kind_phrase("the lady on the left"), kind_phrase("second zebra from the left"), kind_phrase("the dogs")
    ('person', 'zebra', '')
    """
    phrase = kind_of(sentence) or head_part(sentence)
    return "" if phrase == _stripped(sentence) or _QUANTITIES.issuperset(phrase.split()) else phrase
