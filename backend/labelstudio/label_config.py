"""A project's labelling interface (Label Studio's XML), reduced to what is used. Knows no HTTP and no masks.

Used are one Image tag, the tags connected to it that can show an answer, the TextArea connected to it where prompts are
typed, the smart tags that people point with, and the Choices called "absent". Everything else in the interface may be
there and is left alone.

An answer is shown in each BrushLabels, BitmaskLabels, PolygonLabels and RectangleLabels tag that has its label.
A RectangleLabels tag with `smart="true"` beside another of these is what people point with ("this thing"), and
gets no answers. Attributes of a tag say how answers look in it; `Defaults` holds where they say nothing:

    objects="each"      one region a connected part; "instances": one a thing, also where things touch; "one": one
                        region for all that a prompt finds
    tolerance="1.5"     how far a polygon may run from the mask's outline, in pixels
    smallest="0.0005"   parts below this share of the image are specks: no object, polygon or rectangle of their own
"""

# Safe because entity declarations, the only XML feature that expands or fetches, are refused before parsing.
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import ClassVar, Literal, Self, TypeAlias

from backend.errors import ConfigError
from backend.settings import Settings

ControlKind: TypeAlias = Literal["brush", "bitmask", "polygon", "rectangle"]
Objects: TypeAlias = Literal["one", "each", "instances"]

# Far beyond what anybody labels with. A prompt is compared with the names of all labels; an answer is drawn in each
# tag.
MAX_CHARACTERS = 1_000_000
MAX_TAGS, MAX_DEPTH, MAX_LABELS, MAX_CONTROLS, MAX_ATTRIBUTE = 10_000, 100, 2_000, 50, 20_000

_KINDS: Mapping[str, ControlKind] = {
    "brushlabels": "brush",
    "bitmasklabels": "bitmask",
    "polygonlabels": "polygon",
    "rectanglelabels": "rectangle",
}
_POINTING: Mapping[str, Literal["click", "box"]] = {
    "keypoint": "click",
    "keypointlabels": "click",
    "rectangle": "box",
    "rectanglelabels": "box",
}
_OBJECTS: Mapping[str, Objects] = {"one": "one", "each": "each", "instances": "instances"}
_MOST_TOLERANT = 100.0
ABSENT = "absent"
_ONE_PICTURE = (
    "several pictures a task aren't supported. Import each as a task of its own, and show it by "
    '<Image name="image" value="$image"/>.'
)


# Nobody's question and nobody's remark: what stands there was written by us.
ANSWER = "ris_answer"
UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class Defaults:
    """How answers look in a tag that doesn't say. prompt_box: the TextArea where prompts are typed, "" to find it.

    split_by: see `LabelConfig`.
    """

    objects: Objects = "one"
    tolerance: float = 1.0
    smallest: float = 0.0005
    prompt_box: str = ""
    split_by: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As a project's settings have it."""
        answers = settings.prelabel_objects, settings.prelabel_tolerance, settings.prelabel_smallest
        return cls(*answers, settings.prompt_box, settings.split_by)


@dataclass(frozen=True)
class ImageObject:
    """An Image tag. `key` is where task data holds the image: `photo.url` for `value="$photo.url"`."""

    name: str
    key: str


@dataclass(frozen=True)
class Label:
    """A Label of a mask tag. `attributes` are those it has besides value and alias."""

    value: str
    alias: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def stored(self) -> str:
        """What Label Studio writes into annotations: the alias if there is one."""
        return self.alias or self.value


@dataclass(frozen=True)
class MaskControl:
    """A tag that shows answers.

    tolerance: in pixels, for polygons. objects: "one" region for all that a prompt finds, or one for "each"
    connected part. smallest: the least size of a part, as a share of the image.
    """

    kind: ControlKind
    name: str
    to_name: str
    labels: tuple[Label, ...]
    tolerance: float = Defaults.tolerance
    objects: Objects = Defaults.objects
    smallest: float = Defaults.smallest

    @property
    def type(self) -> str:
        """The type of its regions, and the field of their value that holds the labels."""
        return f"{self.kind}labels"

    def label(self, stored: str) -> Label | None:
        """The label that an annotation calls `stored`."""
        return next((label for label in self.labels if stored in (label.stored, label.value)), None)


@dataclass(frozen=True)
class TextAreaControl:
    """A TextArea tag. `key` is the field of task data that it shows, `caption` for `value="$caption"`, if any."""

    type: ClassVar[str] = "textarea"
    name: str
    to_name: str
    key: str | None = None


@dataclass(frozen=True)
class PointingControl:
    """A smart tag that people point with. kind: what they draw. labelled: each needs its label chosen before."""

    kind: Literal["click", "box"]
    name: str
    labelled: bool


@dataclass(frozen=True)
class LabelConfig:
    """`controls` holds at least one, in the interface's order.

    areas: every TextArea. prompt: the one where prompts are typed; None if there is none. absent: the Choices by which
    people say that what was asked for isn't in the picture; None if there is none. pointing: what people point with.
    tags: the names of all tags that are connected to something. others: the labels of tags that aren't `controls`.
    split_by: the field of task data whose tasks all go into one split; "" where the picture decides.
    absent_choice: what Label Studio writes where the first choice of these is made.
    """

    image: ImageObject
    controls: tuple[MaskControl, ...]
    areas: tuple[TextAreaControl, ...] = ()
    prompt: TextAreaControl | None = None
    absent: str | None = None
    pointing: tuple[PointingControl, ...] = ()
    tags: frozenset[str] = frozenset()
    others: tuple[Label, ...] = ()
    split_by: str = ""
    absent_choice: str = ""

    @property
    def prompt_place(self) -> str:
        """Where prompts are typed, as a sentence for people."""
        if self.prompt:
            return f'Prompts are typed in the TextArea "{self.prompt.name}".'
        others = ", ".join(f'"{area.name}"' for area in self.areas if area.name != ANSWER)
        what = f"{others} is taken for remarks: --prompt-box NAME chooses one" if others else "it has no TextArea"
        return f"Prompts can't be typed: {what}."

    @property
    def answer(self) -> TextAreaControl | None:
        """Where the editor says in words what came of a prompt: the TextArea named "ris_answer", which nobody reads."""
        return next((area for area in self.areas if area.name == ANSWER), None)

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """The labels of all controls, each value once, in order; where two differ, the earlier one's word counts."""
        merged: dict[str, Label] = {}
        for label in chain.from_iterable(control.labels for control in self.controls):
            earlier = merged.get(label.value, label)
            attributes = MappingProxyType({**label.attributes, **earlier.attributes})
            merged[label.value] = Label(label.value, earlier.alias or label.alias, attributes)
        return tuple(merged.values())

    def label(self, stored: str) -> Label | None:
        """The label that an annotation calls `stored`."""
        return self._by_name.get(stored)

    @cached_property
    def _by_name(self) -> dict[str, Label]:
        names = ((name, label) for label in reversed(self.labels) for name in (label.value, label.stored))
        return dict(names)

    def label_value(self, stored: str) -> str:
        """What a label is called that an annotation, drawn with any tag, calls `stored`; that, where none has it."""
        known = self.label(stored) or next((label for label in self.others if stored == label.stored), None)
        return known.value if known else stored

    def shown_in(self, label: Label | None) -> list[tuple[MaskControl, list[str]]]:
        """The controls that show a mask of that label, and what each writes for it; with none, the first."""
        if label is None:
            return [(self.controls[0], [])]
        found = ((control, control.label(label.value)) for control in self.controls)
        return [(control, [own_label.stored]) for control, own_label in found if own_label]


def label_name(label: Label | None) -> str:
    """What a label is called in datasets, "unlabelled" where it stayed open."""
    return label.value if label else UNLABELLED


def parse(xml: str, defaults: Defaults | None = None) -> LabelConfig:
    """Read a labelling interface. Raises ConfigError, which says what to add or correct, if it can't carry masks."""
    root = _read_xml(xml)
    _check_extent(root)
    image, answered = _answered(root)
    name = _name(image)
    defaults = defaults or Defaults()
    controls = (_control(tag, name, defaults) for tag in answered)
    areas = {
        TextAreaControl(_name(area), name, _shown_key(area)): area
        for area in _tags(root, "TextArea")
        if area.get("toName") == name
    }
    choices = {tag.get("name"): tag for tag in _tags(root, "Choices") if tag.get("toName") == name}
    return LabelConfig(
        ImageObject(name, _data_key(image)),
        tuple(controls),
        tuple(areas),
        _prompt({control: area for control, area in areas.items() if control.name != ANSWER}, defaults.prompt_box),
        ABSENT if ABSENT in choices else None,
        tuple(_pointing(root, name, answered)),
        frozenset(tag.get("name", "") for tag in root.iter() if tag.get("toName")),
        tuple(
            _label(label)
            for tag in root.iter()
            if tag.get("toName") == name and tag not in answered
            for label in _tags(tag, "Label")
            if label.get("value")
        ),
        defaults.split_by,
        absent_choice=next((_choice(tag) for tag in _tags(choices[ABSENT], "Choice")), "") if ABSENT in choices else "",
    )


def add_labels(xml: str, control: str, labels: Mapping[str, int | None]) -> str:
    """The labelling interface with more labels in the tag that is named so, each with its category number, if any.

    What else stands there stays: tags, comments and text, but not how attributes were quoted or broken into lines.
    """
    _read_xml(xml)
    # Checked above: nothing in it is expanded.
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))  # noqa: S314
    root = ET.fromstring(xml, parser)  # noqa: S314
    parent = next(tag for tag in root.iter() if tag.get("name") == control)
    for value, category in labels.items():
        number = {} if category is None else {"category": str(category)}
        ET.SubElement(parent, "Label", {"value": value, **number}).tail = parent.text
    return ET.tostring(root, encoding="unicode")


def _choice(tag: ET.Element) -> str:
    return tag.get("alias") or tag.get("value") or ""


def _pointing(root: ET.Element, image: str, answered: list[ET.Element]) -> Iterator[PointingControl]:
    for tag in _tags(root, *_POINTING):
        # Label Studio takes tags for smart unless they say otherwise.
        if tag.get("toName") == image and tag not in answered and tag.get("smart", "true").lower() == "true":
            kind = str(tag.tag).lower()
            yield PointingControl(_POINTING[kind], _name(tag), kind.endswith("labels"))


def _prompt(areas: Mapping[TextAreaControl, ET.Element], chosen: str) -> TextAreaControl | None:
    """The TextArea where prompts are typed: as chosen, else named "prompt", else smart, else one that shows data."""
    if chosen:
        if named := [control for control in areas if control.name == chosen]:
            return named[0]
        names = ", ".join(control.name for control in areas) or "none"
        raise ConfigError(
            f'Prompts are to be typed in the TextArea "{chosen}" (RIS_PROMPT_BOX), but the labelling interface has '
            f"{names}. Name another with `ris connect --project N --prompt-box NAME`."
        )
    ranks = {
        control: (control.name != "prompt", area.get("smart", "").lower() != "true", control.key is None)
        for control, area in areas.items()
    }
    # A box that is none of these is for remarks.
    best = min(ranks, key=lambda control: ranks[control], default=None)
    return best if best and not all(ranks[best]) else None


def _check_extent(root: ET.Element) -> None:
    """Raise ConfigError for an interface that nobody could label with; all that reads it takes time by its extent."""
    labels = sum(1 for _ in _tags(root, "Label"))
    controls = sum(1 for _ in _tags(root, *_KINDS))
    longest = max((len(text) for element in root.iter() for text in element.attrib.values()), default=0)
    for count, most, what in (
        (labels, MAX_LABELS, "labels"),
        (_depth(root), MAX_DEPTH, "tags within each other"),
        (sum(1 for _ in root.iter()), MAX_TAGS, "tags"),
        (controls, MAX_CONTROLS, "tags that show answers"),
        (longest, MAX_ATTRIBUTE, "characters in one attribute"),
    ):
        if count > most:
            raise ConfigError(
                f"The labelling interface has {count:,} {what}, more than {most:,}. Use fewer, or divide the project."
            )


def _depth(root: ET.Element) -> int:
    depth, level = 0, [root]
    while level:
        depth, level = depth + 1, [child for element in level for child in element]
    return depth


def _read_xml(xml: str) -> ET.Element:
    if len(xml) > MAX_CHARACTERS:
        raise ConfigError(
            f"The labelling interface has {len(xml):,} characters, more than {MAX_CHARACTERS:,}. Use fewer labels."
        )
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise ConfigError("The labelling interface declares a document type or entities: remove the <!...> lines.")
    try:
        return ET.fromstring(xml)  # noqa: S314
    except (ET.ParseError, ValueError) as error:
        raise ConfigError(f"The labelling interface isn't valid XML ({error}). Correct it in Label Studio.") from None


def _answered(root: ET.Element) -> tuple[ET.Element, list[ET.Element]]:
    """The Image tag, and the tags connected to it that get answers."""
    images = {_name(image): image for image in _tags(root, "Image")}
    if not images:
        raise ConfigError('The labelling interface has no Image tag: add <Image name="image" value="$image"/> to it.')
    connected = [tag for tag in _tags(root, *_KINDS) if tag.get("toName") in images]
    if not connected:
        raise ConfigError(
            "The labelling interface has no BrushLabels, BitmaskLabels, PolygonLabels or RectangleLabels tag connected "
            f'to an Image: add <BrushLabels name="brush" toName="{next(iter(images))}"><Label value="object"/>'
            "</BrushLabels> to it."
        )
    masks = [tag for tag in connected if _kind(tag) != "rectangle"]
    name = (masks or connected)[0].get("toName", "")
    if any(image is images[name] for repeater in _tags(root, "Repeater") for image in _tags(repeater, "Image")):
        raise ConfigError(f"The labelling interface repeats its Image tag (Repeater): {_ONE_PICTURE}")
    # What people point with is no answer, unless there is nothing else.
    pointing = [tag for tag in connected if masks and tag not in masks and tag.get("smart", "").lower() == "true"]
    return images[name], [tag for tag in connected if tag.get("toName") == name and tag not in pointing]


def _kind(tag: ET.Element) -> ControlKind:
    return _KINDS[str(tag.tag).lower()]


def _tags(root: ET.Element, *names: str) -> Iterator[ET.Element]:
    # Label Studio ignores the case of tag names.
    wanted = {name.lower() for name in names}
    return (element for element in root.iter() if str(element.tag).lower() in wanted)


def _name(element: ET.Element) -> str:
    name = element.get("name")
    if not name:
        raise ConfigError(f'A {element.tag} tag has no name: add name="{element.tag.lower()}" to it.')
    return name


def _shown_key(tag: ET.Element) -> str | None:
    value = tag.get("value", "")
    return value[1:] or None if value.startswith("$") else None


def _data_key(image: ET.Element) -> str:
    if "valuelist" in map(str.lower, image.keys()):
        raise ConfigError(f'The Image tag "{_name(image)}" shows a list of pictures (valueList): {_ONE_PICTURE}')
    if key := _shown_key(image):
        return key
    raise ConfigError(f'The Image tag "{_name(image)}" doesn\'t say which task data to show: give it value="$image".')


def _control(tag: ET.Element, image: str, defaults: Defaults) -> MaskControl:
    return MaskControl(
        kind=_kind(tag),
        name=_name(tag),
        to_name=image,
        labels=_labels(tag),
        tolerance=_number(tag, "tolerance", defaults.tolerance, _MOST_TOLERANT),
        objects=_objects(tag, defaults.objects),
        smallest=_number(tag, "smallest", defaults.smallest, 1.0),
    )


def _labels(tag: ET.Element) -> tuple[Label, ...]:
    if labels := tuple(_label(element) for element in _tags(tag, "Label") if element.get("value")):
        return labels
    raise ConfigError(f'The {tag.tag} tag "{_name(tag)}" has no labels: put <Label value="object"/> in it.')


def _label(element: ET.Element) -> Label:
    attributes = dict(element.attrib)
    value, alias = attributes.pop("value"), attributes.pop("alias", None)
    return Label(value, alias or None, MappingProxyType(attributes))


def _objects(tag: ET.Element, default: Objects) -> Objects:
    value = tag.get("objects", default)
    if value in _OBJECTS:
        return _OBJECTS[value]
    raise ConfigError(f'The {tag.tag} tag "{_name(tag)}" has objects="{value}": write one, each or instances.')


def _number(tag: ET.Element, attribute: str, default: float, most: float) -> float:
    text = tag.get(attribute, str(default))
    with suppress(ValueError):
        if 0 <= float(text) <= most:
            return float(text)
    raise ConfigError(
        f'The {tag.tag} tag "{_name(tag)}" has {attribute}="{text}": write a number from 0 to {most:g}, '
        f'such as {attribute}="{default:g}".'
    )
