"""The numbers of a project's categories, kept below home: a label has one for good, and nobody gets it afterwards.

A label's attribute `category` (<Label value="cup" category="41"/>) decides, as in Label Studio's own export; of two
labels that claim a number the first in the interface has it. Else a label keeps the number that it was given, and a
new one gets one above all that were ever in use: labels may be added, sorted and deleted, and what was trained on an
earlier export still means the same. A label whose number is claimed for another by an attribute gets a new one.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from itertools import count
from pathlib import Path

from backend.home import categories_file
from backend.labelstudio.label_config import LabelConfig
from backend.locks import exclusive
from ris_core.errors import DatasetError
from ris_core.files import atomic_write


def number_categories(home: Path, project: int, config: LabelConfig, used: Collection[str]) -> dict[str, int]:
    """The number of each of the interface's labels and of each label in `used`, masks outliving their label.

    Raises DatasetError if the file that keeps them can't be read.
    """
    file = categories_file(home, project)
    claims = dict(_claims(config))
    names = dict.fromkeys([*(label.value for label in config.labels), *sorted(used)])
    with exclusive(file.with_suffix(".lock")):
        kept, last = _read(file)
        numbers = _numbered(list(names), kept, claims, last)
        # A number that is claimed now is no longer that of a label which is away.
        others = {name: number for name, number in kept.items() if number not in numbers.values()}
        document = {"numbers": others | numbers, "last": max(last, *numbers.values())}
        if document != {"numbers": kept, "last": last}:
            atomic_write(file, json.dumps(document, ensure_ascii=False, sort_keys=True).encode(), mode=0o600)
    return numbers


def kept_numbers(home: Path, project: int) -> dict[str, int]:
    """The numbers that a project's labels were given. Raises DatasetError if the file that keeps them can't be read."""
    return _read(categories_file(home, project))[0]


def _numbered(names: Collection[str], kept: Mapping[str, int], claims: Mapping[str, int], last: int) -> dict[str, int]:
    taken: dict[int, str] = {}
    for name in names:
        if name in claims:
            taken.setdefault(claims[name], name)
    claimed = {name: number for number, name in taken.items()}
    fresh = count(1 + max(last, *taken, 0))

    def number(name: str) -> int:
        own = claimed.get(name, kept.get(name))
        return own if own is not None and taken.get(own, name) == name else next(fresh)

    return {name: number(name) for name in names}


def _claims(config: LabelConfig) -> Iterator[tuple[str, int]]:
    for label in (*config.labels, *config.others):
        category = label.attributes.get("category", "")
        # As many digits as every reader's integers have.
        if category.isascii() and category.isdecimal() and len(category) < 10:
            yield label.value, int(category)


def _read(file: Path) -> tuple[dict[str, int], int]:
    """The number of each name, and the greatest that was ever in use."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): int(number) for name, number in document["numbers"].items()}, int(document["last"])
    except FileNotFoundError:
        return {}, 0
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{file}, which keeps the numbers of the categories, can't be read ({error}). Bring it back from a copy, "
            "or delete it: then they are numbered anew, in the order of the labelling interface."
        ) from None
