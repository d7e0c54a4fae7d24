"""A project's labelling interface (Label Studio's XML), reduced to what is used. Knows no HTTP and no masks.

Used are one Image tag, the BrushLabels tag connected to it, and the TextArea tags connected to it, where
prompts are typed. Everything else in the interface may be there and is left alone.
"""

from __future__ import annotations

# Safe because entity declarations, the only XML feature that expands or fetches, are refused before parsing.
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from backend.errors import ConfigError

_PROMPT = "prompt"


@dataclass(frozen=True)
class ImageObject:
    """An Image tag. `key` is the field of task data that holds the image: `image` for `value="$image"`."""

    name: str
    key: str


@dataclass(frozen=True)
class Label:
    """A Label of the mask tag. `attributes` are those it has besides value and alias."""

    value: str
    alias: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def stored(self) -> str:
        """What Label Studio writes into annotations: the alias if there is one."""
        return self.alias or self.value


@dataclass(frozen=True)
class BrushControl:
    name: str
    to_name: str
    labels: tuple[Label, ...]

    def label(self, stored: str) -> Label | None:
        """The label that an annotation calls `stored`."""
        return next((label for label in self.labels if stored in (label.stored, label.value)), None)


@dataclass(frozen=True)
class TextAreaControl:
    name: str
    to_name: str


@dataclass(frozen=True)
class LabelConfig:
    image: ImageObject
    brush: BrushControl
    prompts: tuple[TextAreaControl, ...] = ()

    @property
    def prompt(self) -> TextAreaControl | None:
        """Where prompts are typed: the TextArea named "prompt", else the first; None if there is none."""
        named = (control for control in self.prompts if control.name == _PROMPT)
        return next(named, self.prompts[0] if self.prompts else None)


def parse(xml: str) -> LabelConfig:
    """Read a labelling interface. Raises ConfigError, which says what to add, if it can't carry masks."""
    root = _read_xml(xml)
    brush, images = _connected_brush(root)
    image = images[brush.get("toName", "")]
    name = _name(brush)
    return LabelConfig(
        image=ImageObject(_name(image), _data_key(image)),
        brush=BrushControl(name, _name(image), _labels(brush, name)),
        prompts=tuple(
            TextAreaControl(_name(area), _name(image))
            for area in _tags(root, "TextArea")
            if area.get("toName") == _name(image)
        ),
    )


def _read_xml(xml: str) -> ET.Element:
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise ConfigError("The labelling interface declares a document type or entities: remove the <!...> lines.")
    try:
        return ET.fromstring(xml)  # noqa: S314
    except (ET.ParseError, ValueError) as error:
        raise ConfigError(f"The labelling interface isn't valid XML ({error}). Correct it in Label Studio.") from None


def _connected_brush(root: ET.Element) -> tuple[ET.Element, dict[str, ET.Element]]:
    images = {_name(image): image for image in _tags(root, "Image")}
    if not images:
        raise ConfigError('The labelling interface has no Image tag: add <Image name="image" value="$image"/> to it.')
    for brush in _tags(root, "BrushLabels"):
        if brush.get("toName") in images:
            return brush, images
    raise ConfigError(
        "The labelling interface has no BrushLabels tag connected to an Image: add <BrushLabels "
        f'name="brush" toName="{next(iter(images))}"><Label value="object"/></BrushLabels> to it.'
    )


def _tags(root: ET.Element, tag: str) -> Iterator[ET.Element]:
    # Label Studio ignores the case of tag names.
    return (element for element in root.iter() if str(element.tag).lower() == tag.lower())


def _name(element: ET.Element) -> str:
    name = element.get("name")
    if not name:
        raise ConfigError(f'A {element.tag} tag has no name: add name="{element.tag.lower()}" to it.')
    return name


def _data_key(image: ET.Element) -> str:
    value = image.get("value", "")
    if len(value) < 2 or not value.startswith("$"):
        raise ConfigError(
            f'The Image tag "{_name(image)}" doesn\'t say which task data to show: give it value="$image".'
        )
    return value[1:]


def _labels(brush: ET.Element, name: str) -> tuple[Label, ...]:
    labels = tuple(_label(element) for element in _tags(brush, "Label") if element.get("value"))
    if not labels:
        raise ConfigError(f'The BrushLabels tag "{name}" has no labels: put <Label value="object"/> in it.')
    return labels


def _label(element: ET.Element) -> Label:
    attributes = dict(element.attrib)
    value, alias = attributes.pop("value"), attributes.pop("alias", None)
    return Label(value, alias or None, MappingProxyType(attributes))
