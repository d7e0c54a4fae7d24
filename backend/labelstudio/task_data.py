"""Where the labelling interface's `$photo.url` or `$images[0]` leads in a task's data. Knows no HTTP."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from backend.errors import BadRequest
from backend.labelstudio.label_config import LabelConfig

_STEP = re.compile(r"[^.\[\]]+")


def look_up(data: object, path: str) -> object:
    """What task data has at a path, which the editor follows the same way (lodash's `get`); None if nothing is there.

    A field of that very name comes before one that is reached by steps.
    """
    if isinstance(data, Mapping) and path in data:
        return data[path]
    for step in _STEP.findall(path):
        if isinstance(data, list):
            data = data[int(step)] if step.isdecimal() and int(step) < len(data) else None
        else:
            data = data.get(step) if isinstance(data, Mapping) else None
    return data


def group_of(task: Mapping[str, Any], config: LabelConfig) -> str:
    """What a task shares with others of its split (`LabelConfig.split_by`); "" if nothing is said."""
    value = look_up(task.get("data"), config.split_by) if config.split_by else None
    return "" if value is None else str(value)


def split_identity(group: str, picture: str) -> str:
    """What decides the split of a task: its group, or else its picture, by the SHA-256 of its file."""
    return f"group {group}" if group else picture


def path_of(address: str) -> str:
    """The path in an image's address, which gives no secret away; "" where the address is the image."""
    if address.startswith("data:"):
        return ""
    parts = urlsplit(address)
    # Label Studio's local files: /data/local-files/?d=folder/name.png
    return parse_qs(parts.query).get("d", [unquote(parts.path)])[0]


def image_address(task: Mapping[str, Any], config: LabelConfig) -> str:
    """What a task calls its image, without white space around; of a list, the first.

    Raises BadRequest, which says what the data has instead.
    """
    data, key = task.get("data"), config.image.key
    value = look_up(data, key)
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, str) and value.strip():
        return value.strip()
    if value in (None, "", []):
        fields = ", ".join(f'"{field}"' for field in data) if isinstance(data, Mapping) else ""
        what = f'Task {task.get("id")} has no "{key}", its image; its data has {fields or "nothing"}.'
        raise BadRequest(f'{what} Import it with an image, or correct value="${key}" of the Image tag.')
    what = f'The "{key}" of task {task.get("id")} is {_kind(value)}, not the address of an image.'
    raise BadRequest(f'{what} Correct value="${key}" of the Image tag: value="${key}.url" is the field url in it.')


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return f"an object of {', '.join(map(repr, value))}"
    return "blank" if isinstance(value, str) else f"a {type(value).__name__}"
