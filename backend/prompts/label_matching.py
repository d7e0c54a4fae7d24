"""Which label a sentence means. Pure: knows no files and no model.

A label is known by its names: value, alias, the attribute `predicted_values` (names separated by commas), what it is
asked by (`prompt`, `prompts`), and what the prompt sheet says of it. In this order:
1. one of its names starts in the sentence's head, the words before the first preposition: of "the man next to the
   car" that is "the man";
2. the head is about people and a label is called person; or, if vectors are at hand, the head or its last word means
   what one of the names means (`SAME_MEANING`);
3. a name occurs anywhere;
4. there is only one label;
5. one label is called other, object or thing, and a note says so.
Else the label stays open, and a note asks people to choose.
Names are whole words, whatever their case.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backend.labelstudio.label_config import Label, LabelConfig

SentenceVectors: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]
"""N sentences -> (N, D), each row of unit length: the closer two rows, the closer what the sentences mean."""

# Cosine of all-MiniLM-L6-v2 from which two names are taken to mean the same. Of 44 pairs that do, 24 have as much
# (puppy and dog 0.80, couch and sofa 0.86, automobile and car 0.87), of 57 that don't, two (potted plant and flower).
# From 0.6 it would be 33, but also a truck as a car (0.69) and a chair as a sofa (0.61). With the sample project's
# labels (person, cat, cup, rocket, building, flower, sky) 8 of 56 other words for them have as much, all with the right
# label, and of 92 nouns that are none of them one (potted plant again); from 0.6 it would be 20 and 2 (dog as cat),
# from 0.5 32 and 7. A wrong label is easily overlooked, while one that is open is a click.
SAME_MEANING = 0.7

_CATCH_ALL = ("other", "object", "thing")
# For these vectors a man and a woman have little in common with a person (0.41).
_PERSON = frozenset({"person", "people", "human"})
_PEOPLE = re.compile(
    r"\b(?:adults?|bab(?:y|ies)|boys?|child|children|drivers?|females?|gentlem[ae]n|girls?|guys?|humans?|kids?|lad(?:y|ies)|"
    r"males?|m[ae]n|pedestrians?|people|persons?|players?|riders?|someone|toddlers?|wom[ae]n|workers?)\s*$"
)
_ARTICLE = re.compile(r"^(?:(?:the|a|an|all|every|each|some|this|that|these|those|my)\s+)+")
_AFTER_HEAD = re.compile(
    r"\b(?:above|and|at|behind|below|beside|between|by|from|holding|in|inside|near|next|of|on|over|that|to|under|"
    r"wearing|which|who|whose|with|without)\b"
)


@dataclass(frozen=True)
class LabelMatch:
    """The label that a sentence means, None where that is open, and a sentence for people where they should look."""

    label: Label | None
    note: str = ""


class _Occurrence(NamedTuple):
    start: int
    end: int
    label: Label


def find_label(
    sentence: str,
    config: LabelConfig,
    further_names: Mapping[str, Sequence[str]] | None = None,
    vectors: SentenceVectors | None = None,
) -> LabelMatch:
    """The label that the mask for `sentence` gets; `further_names` of a label, by its value."""
    names = {label: [*own_names(label), *(further_names or {}).get(label.value, ())] for label in config.labels}
    text = sentence.casefold()
    cut = _AFTER_HEAD.search(text)
    head = text[: cut.start()] if cut else text
    anywhere = [found for label in names for name in names[label] for found in _occurrences(name, text, label)]
    in_head = [found for found in anywhere if found.start < len(head)]
    if in_head:
        # What an English noun phrase is about comes last: a table lamp is a lamp. Of names that end there the longest.
        return LabelMatch(max(in_head, key=lambda found: (found.end, -found.start)).label)
    label = _person(head, names) or (_closest(head, names, vectors) if vectors else None)
    if label is None and anywhere:
        label = min(anywhere, key=lambda found: (found.start, -found.end)).label
    if label or len(names) == 1:
        return LabelMatch(label or config.labels[0])
    if other := _catch_all(config.labels):
        return LabelMatch(other, f'no label is called anything like "{sentence}", so this is "{other.value}"')
    return LabelMatch(None, f'no label is called anything like "{sentence}", so it has none yet: choose one')


def own_names(label: Label) -> list[str]:
    """What the labelling interface calls a label; without articles, for sentences may have others."""
    attributes = label.attributes
    names = [label.value, label.alias or "", *attributes.get("predicted_values", "").split(",")]
    names += [bare(prompt) for name in ("prompt", "prompts") for prompt in alternatives(attributes.get(name, ""))]
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


def bare(sentence: str) -> str:
    """A sentence without its article: "cat" for "the cat"."""
    return _ARTICLE.sub("", sentence.strip().casefold())


def alternatives(text: str) -> list[str]:
    """Sentences that are written in one line, separated by |."""
    return [" ".join(part.split()) for part in text.split("|") if part.strip()]


def is_catch_all(label: Label) -> bool:
    """Whether a label is for whatever has none of its own."""
    return any(name.strip().casefold() in _CATCH_ALL for name in (label.value, label.alias or ""))


def _occurrences(name: str, text: str, label: Label) -> Iterator[_Occurrence]:
    if name.casefold() not in text:
        # Of thousands of labels few are named.
        return
    # Not \b: a name may begin or end with a sign, such as "C++".
    pattern = rf"(?<!\w){re.escape(name.casefold())}(?!\w)"
    yield from (_Occurrence(match.start(), match.end(), label) for match in re.finditer(pattern, text))


def _closest(head: str, names: Mapping[Label, Iterable[str]], vectors: SentenceVectors) -> Label | None:
    candidates = [(label, name) for label in names if not is_catch_all(label) for name in names[label]]
    phrase = bare(head)
    if not phrase or not candidates:
        return None
    # Adjectives lead away: "the small brown puppy" is further from a dog than "puppy".
    rows = vectors([phrase, phrase.split()[-1], *(name.casefold() for _, name in candidates)])
    closeness = (rows[2:] @ rows[:2].T).max(axis=1)
    best = int(closeness.argmax())
    return candidates[best][0] if closeness[best] >= SAME_MEANING else None


def _person(head: str, names: Mapping[Label, Iterable[str]]) -> Label | None:
    if not _PEOPLE.search(head):
        return None
    return next((label for label in names if _PERSON.intersection(map(str.casefold, names[label]))), None)


def _catch_all(labels: Sequence[Label]) -> Label | None:
    by_name = {name.casefold(): label for label in reversed(labels) for name in own_names(label)}
    return next((by_name[word] for word in _CATCH_ALL if word in by_name), None)
