"""Points and boxes as they are typed, in pixels of a photo."""

from __future__ import annotations

from collections.abc import Sequence

from ris_core.errors import InputError
from ris_core.inference.prompt import Box, Point, Prompt


def read_prompts(
    sentences: Sequence[str], points: Sequence[str], beside: Sequence[str], box: str | None, size: tuple[int, int]
) -> list[str | Prompt]:
    """What is asked of a photo of that (height, width). points, beside: "X,Y". box: "X,Y,X,Y".

    Raises InputError: nothing is asked, or what was pointed at is outside the photo or nowhere.
    """
    if not points and not beside and box is None:
        if not sentences:
            raise InputError('Nothing is asked: say what to find ("the cat"), or point at it (--point 120,80).')
        return list(sentences)
    if len(sentences) > 1:
        raise InputError(f"Points and a box are about one thing, but {len(sentences)} were asked for: give one prompt.")
    if not sentences and not points and box is None:
        raise InputError("--not says only where the thing isn't: say where it is with --point or --box, or in words.")
    places = [*(_point("--point", text, size) for text in points), *(_point("--not", text, size) for text in beside)]
    return [Prompt(next(iter(sentences), ""), places, _box(box, size) if box is not None else None)]


def _point(option: str, text: str, size: tuple[int, int]) -> Point:
    across, down = _numbers(option, text, 2, size)
    height, width = size
    # Of a pixel the middle is meant.
    return Point((across + 0.5) / width, (down + 0.5) / height, option == "--point")


def _box(text: str, size: tuple[int, int]) -> Box:
    left, top, right, bottom = _numbers("--box", text, 4, size)
    if left >= right or top >= bottom:
        raise InputError(f"--box {text} is empty: give its left, top, right and bottom, such as --box 40,30,200,180.")
    height, width = size
    return Box(left / width, top / height, right / width, bottom / height)


def _numbers(option: str, text: str, count: int, size: tuple[int, int]) -> list[float]:
    """`count` numbers, column and row in turns, within the photo."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        example = "120,80" if count == 2 else "40,30,200,180"
        raise InputError(f"{option} {text} isn't {count} numbers in pixels, such as {option} {example}.")
    height, width = size
    # A box may end at the photo's edge, a point is on a pixel.
    most = (width, height) if count == 4 else (width - 1, height - 1)
    if not all(0 <= number <= most[place % 2] for place, number in enumerate(numbers)):
        raise InputError(f"{option} {text} is outside the photo, which has {width} x {height} pixels.")
    return numbers
