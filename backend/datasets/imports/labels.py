"""The labels that a dataset needs, in a project's labelling interface or in one that is made for it. Pure."""

import re
from collections.abc import Collection, Mapping
from xml.sax.saxutils import quoteattr

from backend.datasets.imports.folders import FoundFolder, FoundPicture
from backend.labelstudio.label_config import UNLABELLED, LabelConfig, add_labels
from backend.labelstudio.regions import control_for_masks
from backend.projects.connect import LABEL_CONFIG
from ris_core.errors import InputError

_LABEL = re.compile(r"\s*<Label [^>]*/>")


def check_labels(folder: FoundFolder, config: LabelConfig) -> None:
    """Raise InputError if the interface has no label for a category of which the folder has an object."""
    used = {found.category for row in folder.rows() if isinstance(row, FoundPicture) for found in row.objects}
    missing = [name for name in _missing(folder, config) if name in used]
    if missing:
        tag = control_for_masks(config).name
        lines = (f'\n  <Label value={quoteattr(name)} category="{folder.categories[name]}"/>' for name in missing)
        raise InputError(
            f"The labelling interface has no label for {len(missing)} of the dataset's categories. Run it again with "
            f'--add-labels, or add to the tag "{tag}" under Settings, Labeling Interface:{"".join(lines)}'
        )


def with_labels(xml: str, config: LabelConfig, folder: FoundFolder, kept: Mapping[str, int]) -> str:
    """The interface `xml`, read as `config`, with all categories of the folder as labels.

    A category keeps its number unless that is another's. kept: the numbers that the project's exports have given.
    """
    missing = _missing(folder, config)
    claimed = {int(number) for label in config.labels if (number := label.attributes.get("category", "")).isdecimal()}
    taken = claimed | {number for name, number in kept.items() if name not in missing}
    return add_labels(xml, control_for_masks(config).name, _numbered(folder, missing, taken)) if missing else xml


def interface_for(folder: FoundFolder) -> str:
    """The labelling interface for a project of the folder's own: the sample project's, with the folder's categories."""
    names = [name for name in folder.categories if name != UNLABELLED]
    return add_labels(_LABEL.sub("", LABEL_CONFIG), "brush", _numbered(folder, names, ())) if names else LABEL_CONFIG


def _missing(folder: FoundFolder, config: LabelConfig) -> list[str]:
    return [name for name in folder.categories if name != UNLABELLED and config.label(name) is None]


def _numbered(folder: FoundFolder, names: Collection[str], taken: Collection[int]) -> dict[str, int | None]:
    """The categories with their numbers, None for one that is another's or that no label can have."""
    numbers: dict[str, int | None] = {}
    for name in names:
        number = folder.categories[name]
        is_free = isinstance(number, int) and 0 <= number < 10**9 and number not in {*taken, *numbers.values()}
        numbers[name] = number if is_free else None
    return numbers
