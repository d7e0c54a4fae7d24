"""Nouns for the classes of COCO and of Clothing Co-Parsing: plurals and the few synonyms that are always true.

A synonym must hold in every photo: a person isn't always a man, nor a purse always a handbag. Source: ours.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
ORDINALS = {2: ("second", "2nd"), 3: ("third", "3rd")}

_PLURALS = {
    "person": "people",
    "sheep": "sheep",
    "knife": "knives",
    "mouse": "mice",
    "scissors": "scissors",
    "skis": "skis",
    "broccoli": "broccoli",
}
_UNCOUNTED = {"scissors", "skis", "broccoli"}
_SYNONYMS = {
    "airplane": ("plane",),
    "bicycle": ("bike",),
    "cell phone": ("phone", "mobile phone"),
    "couch": ("sofa",),
    "dining table": ("table",),
    "donut": ("doughnut",),
    "fire hydrant": ("hydrant",),
    "hair drier": ("hair dryer",),
    "motorcycle": ("motorbike",),
    "potted plant": ("plant",),
    "refrigerator": ("fridge",),
    "remote": ("remote control",),
    "sports ball": ("ball",),
    "tennis racket": ("racket",),
    "tv": ("television",),
    "jumper": ("pullover",),
    "pants": ("trousers",),
    "skin": ("bare skin",),
    "sneakers": ("trainers",),
    "sunglasses": ("shades",),
    "t-shirt": ("tee",),
    "watch": ("wristwatch",),
}
# Worn in twos; labelled together.
_PAIRS = (
    *("boots", "clogs", "earrings", "flats", "gloves", "heels", "loafers"),
    *("pumps", "sandals", "shoes", "sneakers", "socks", "wedges"),
)
# Mostly of one paint or dye. The others are bare skin, food, screens or patterns, or show what lies behind them.
_COLOURED = {
    *("airplane", "backpack", "bear", "bird", "boat", "bowl", "bus", "car", "cat", "chair", "couch", "cow"),
    *("cup", "dog", "fire hydrant", "frisbee", "handbag", "horse", "keyboard", "kite", "motorcycle", "skateboard"),
    *("snowboard", "sports ball", "suitcase", "surfboard", "tie", "toothbrush", "train", "truck", "umbrella", "vase"),
    *("teddy bear", "bag", "belt", "blazer", "blouse", "bodysuit", "boots", "cape", "cardigan", "clogs", "coat"),
    *("dress", "flats", "gloves", "hat", "heels", "hoodie", "jacket", "jeans", "jumper", "leggings", "loafers"),
    *("pants", "pumps", "purse", "romper", "sandals", "scarf", "shirt", "shoes", "shorts", "skirt", "sneakers"),
    *("socks", "suit", "sweater", "sweatshirt", "swimwear", "t-shirt", "tights", "top", "vest", "wallet", "wedges"),
}
# Classes that people mix up, or whose names they use for each other.
_ALIKE = (
    {"bus", "car", "train", "truck"},
    {"bear", "teddy bear"},
    {"chair", "couch"},
    {"bowl", "cup", "vase"},
    {"backpack", "handbag", "suitcase"},
    {"skateboard", "snowboard", "surfboard"},
    {"bag", "purse", "wallet"},
    {"boots", "clogs", "flats", "heels", "loafers", "pumps", "sandals", "shoes", "sneakers", "wedges"},
    {"leggings", "socks", "stockings", "tights"},
    {"jeans", "leggings", "pants", "shorts", "skirt", "tights"},
    {"blouse", "bodysuit", "cardigan", "hoodie", "jumper", "shirt", "sweater", "sweatshirt", "t-shirt", "top", "vest"},
    {"blazer", "cape", "cardigan", "coat", "hoodie", "jacket", "suit", "vest"},
    {"bodysuit", "dress", "romper", "skirt", "swimwear", "top"},
)
# Classes that one thing may truly belong to, whichever of them it is labelled as: jeans are pants.
_SHARED = (
    *({"shoes", name} for name in _PAIRS if name not in ("earrings", "gloves", "socks")),
    *({"heels", name} for name in ("boots", "pumps", "sandals", "wedges")),
    *({"sandals", name} for name in ("clogs", "flats", "wedges")),
    *({"top", name} for name in ("bodysuit", "cardigan", "hoodie", "jumper", "sweater", "sweatshirt", "vest")),
    *({"jacket", name} for name in ("blazer", "cardigan", "coat", "hoodie", "suit", "vest")),
    *(
        {"accessories", name}
        for name in ("bag", "belt", "bracelet", "earrings", "glasses", "gloves", "hat", "necklace")
    ),
    *({"accessories", name} for name in ("purse", "ring", "scarf", "sunglasses", "tie", "wallet", "watch")),
    *({"intimate", name} for name in ("bodysuit", "bra", "panties", "stockings")),
    {"blouse", "shirt", "t-shirt", "top"},
    {"cardigan", "hoodie", "jumper", "sweater", "sweatshirt"},
    {"blazer", "coat", "suit"},
    {"cape", "coat"},
    {"bag", "purse"},
    {"purse", "wallet"},
    {"clogs", "flats", "loafers"},
    {"jeans", "pants"},
    {"leggings", "pants"},
    {"pants", "suit"},
    {"leggings", "stockings", "tights"},
    {"socks", "stockings"},
    {"dress", "romper"},
    {"romper", "shorts"},
    {"bra", "swimwear"},
    {"bodysuit", "swimwear"},
    {"glasses", "sunglasses"},
    {"bear", "teddy bear"},
    {"car", "truck"},
)


@dataclass(frozen=True)
class Noun:
    """A class in words. many: all of it. counted: whether one can be told from two: "skis" are both. is_pair: worn."""

    one: str
    many: str
    counted: bool = True
    is_pair: bool = False


def noun(name: str) -> Noun:
    """The noun of a class whose objects are told apart."""
    return Noun(name, _PLURALS.get(name) or _plural(name), name not in _UNCOUNTED)


def pair(name: str) -> Noun | None:
    """The noun of one shoe of a pair, say, where `name` is worn in twos."""
    return Noun(name.removesuffix("s"), name, is_pair=True) if name in _PAIRS else None


def synonyms(name: str) -> tuple[str, ...]:
    """Other words that are true wherever `name` is, its own first of all."""
    return (name, *_SYNONYMS.get(name, ()))


def has_colour(name: str) -> bool:
    """Whether people tell things of this class apart by a colour."""
    return name in _COLOURED


def alike(name: str) -> frozenset[str]:
    """Classes that may be meant by `name` too, itself among them."""
    return _united(_ALIKE, name)


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


def _united(groups: Iterable[set[str]], name: str) -> frozenset[str]:
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
