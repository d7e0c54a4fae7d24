"""How people choose one of several things in a photo: templates, in which {} stands for the noun.

Phrasings after those that people used in the ReferItGame (RefCOCO). Those for the right are the left's, mirrored.
"""

from ris_core.data.derive.words import NUMBERS, ORDINALS, mirror_words

TOP = ("the top {}", "{} at the top", "the upper {}", "top {}")
BOTTOM = ("the bottom {}", "{} at the bottom", "the lower {}", "bottom {}")
MIDDLE = ("the {} in the middle", "middle {}", "the middle {}", "{} in middle", "center {}", "{} in the center")
LARGEST = ("the largest {}", "biggest {}", "the biggest {}", "largest {}")
SMALLEST = ("the smallest {}", "smallest {}")
LARGER = ("the larger {}", "bigger {}", "the bigger {}", "larger {}", "the big {}")
SMALLER = ("the smaller {}", "smaller {}", "the small {}")
ALL = ("all the {}", "all {}", "the {}", "every one of the {}")

_LEFT_OF_TWO = ("the left {}", "{} on the left", "left {}", "the {} on the left", "{} on left", "{} on the left side")
_LEFTMOST = (
    "the leftmost {}",
    "left {}",
    "{} on the far left",
    "far left {}",
    "the {} on the left",
    "{} far left",
    "the {} furthest to the left",
    "first {} from the left",
)


def side(left: bool, among: int) -> tuple[str, ...]:
    """The outermost of so many."""
    return _turn(_LEFT_OF_TWO if among == 2 else _LEFTMOST, left)


def rank(place: int, left: bool) -> tuple[str, ...]:
    """Second or third from one side: `place` is 2 or 3."""
    word, short = ORDINALS[place]
    return _turn((f"the {word} {{}} from the left", f"{word} {{}} from left", f"{short} {{}} from the left"), left)


def count(number: int) -> tuple[str, ...]:
    """All of 2 to 6 things."""
    word = NUMBERS[number]
    every = ("both {}", "both of the {}") if number == 2 else (f"all {word} {{}}",)
    return (*every, f"the {word} {{}}", f"{word} {{}}")


def coloured(colour: str) -> tuple[str, ...]:
    """A thing of one colour."""
    return (f"the {colour} {{}}", f"{colour} {{}}", *(("the gray {}",) if colour == "grey" else ()))


def dressed(colour: str) -> tuple[str, ...]:
    """A person whose clothes are of one colour."""
    return (f"the {{}} in {colour}", f"{{}} in {colour}", f"{{}} wearing {colour}")


def _turn(templates: tuple[str, ...], left: bool) -> tuple[str, ...]:
    return templates if left else tuple(mirror_words(template) for template in templates)
