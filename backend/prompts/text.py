"""When two prompts are one expression."""

import unicodedata

# Brackets, quotation marks and the like at the edge of a word; a sign that stands for a word, or a part of one, stays.
_PUNCTUATION = frozenset({"Ps", "Pe", "Pi", "Pf", "Po"})
_SIGNS = "#%&@*/\\"
_APOSTROPHES = str.maketrans("\u2018\u2019\u02bc", "'" * 3)


def clean(prompt: str) -> str:
    """A sentence in lower case, its words one space apart and without punctuation around them.

    Prompts that agree in this are one expression: "the cup", "The cup." and "\u201cthe cup\u201d!" are.
    """
    return " ".join(filter(None, map(_bare, prompt.translate(_APOSTROPHES).lower().split())))


def spelled(prompt: str) -> str:
    """What `clean` was before it left punctuation out; what was kept under that name is still found."""
    return " ".join(prompt.lower().split())


def _bare(word: str) -> str:
    start, end = 0, len(word)
    while start < end and _is_punctuation(word[start]):
        start += 1
    while start < end and _is_punctuation(word[end - 1]):
        end -= 1
    return word[start:end]


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character) in _PUNCTUATION and character not in _SIGNS
