"""Good input made bad: JSON, its bytes, XML and any bytes, by the numbers of a seeded generator."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Json = Any

ODD_TEXTS = (
    "",
    " ",
    "\0",
    "a\r\nX-Injected: 1",
    "\x1b[31m\x07",
    "\ud800",
    "\udfff\ud800",
    "😀" * 50,
    "\u202eabc",
    "é" * 300,
    "../../../etc/passwd",
    "file:///etc/passwd",
    "http://[::1",
    "data:image/png;base64,====",
    "{{7*7}}",
    "' OR 1=1 --",
    "9" * 5000,
    "NaN",
    "a" * 100_000,
    "1.",
    "2026-99-99T99:99:99Z",
    "0000-00-00",
    "9999-12-31T23:59:59.999999+23:59",
)
ODD_NUMBERS = (
    *(0, -1, 1, 2**31 - 1, 2**31, 2**53, 2**63, -(2**63), 2**64, 10**30, 10**400),
    *(0.1, -0.0, 1e308, -1e308, 1e-308, float("nan"), float("inf"), float("-inf")),
)
ODD_VALUES = (None, True, False, [], {}, [[]], [{}], {"": {}}, {"a": None})
ENCODINGS = ("utf-16", "utf-32-le", "utf-8-sig", "utf-7")


def odd_value(rng: Random) -> Json:
    """What nobody expects where it stands."""
    return copy.deepcopy(rng.choice((rng.choice(ODD_TEXTS), rng.choice(ODD_NUMBERS), rng.choice(ODD_VALUES))))


def mutated_json(rng: Random, value: Json) -> Json:
    """A copy in which one to four things are odd, missing, doubled, deep or of another's kind."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(value))
        if not places:
            return odd_value(rng)
        holder, key = rng.choice(places)
        rng.choice(_CHANGES)(rng, holder, key)
    return value


def _places(value: Json) -> Iterator[tuple[Json, Any]]:
    """All values that are within others, as their holder and their key; of a long list only the ends."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value))) if len(value) <= 8 else [0, 1, len(value) // 2, len(value) - 1]
    else:
        return
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _replace(rng: Random, holder: Json, key: Any) -> None:
    holder[key] = odd_value(rng)


def _remove(rng: Random, holder: Json, key: Any) -> None:
    del holder[key]


def _bury(rng: Random, holder: Json, key: Any) -> None:
    for _ in range(rng.choice((1, 5, 200))):
        holder[key] = rng.choice(([holder[key]], {"a": holder[key]}))


def _repeat(rng: Random, holder: Json, key: Any) -> None:
    if isinstance(holder, list):
        holder[key : key + 1] = [copy.deepcopy(holder[key]) for _ in range(rng.choice((2, 3, 300)))]
    else:
        holder[str(key) + rng.choice(("", " ", "_", "s"))] = copy.deepcopy(holder[key])


def _swap_kind(rng: Random, holder: Json, key: Any) -> None:
    value = holder[key]
    if isinstance(value, str):
        holder[key] = rng.choice(([value], len(value), {"text": value}, value.upper(), value * 3))
    elif isinstance(value, bool | int | float) or value is None:
        holder[key] = rng.choice((str(value), [value], -1 if value is None else -value, not value))
    elif isinstance(value, list):
        holder[key] = rng.choice((dict(enumerate(map(str, value[:5]))), str(value)[:200], value[::-1]))
    else:
        holder[key] = rng.choice(([list(item) for item in value.items()], str(value)[:200], list(value.values())))


_CHANGES: tuple[Callable[[Random, Json, Any], None], ...] = (_replace, _replace, _remove, _bury, _repeat, _swap_kind)


def mutated_document(rng: Random, value: Json) -> bytes:
    """JSON that is mutated as a value; now and then as text, too."""
    text = json.dumps(mutated_json(rng, value), ensure_ascii=rng.random() < 0.5)
    data = text.encode("utf-8", "surrogatepass")
    way = rng.randrange(12)
    if way == 0:
        return mutated_bytes(rng, data)
    if way == 1:
        return data[: rng.randrange(len(data) + 1)]
    if way == 2:
        # Of two of one name the last counts, or nothing does.
        return re.sub(rb'"(\w+)": ', rb'"\1": 0, "\1": ', data, count=rng.randrange(1, 5))
    if way == 3:
        depth = rng.choice((500, 5_000, 100_000))
        return re.sub(rb": null|: \d+", lambda match: b": " + b"[" * depth + b"]" * depth, data, count=1)
    if way == 4:
        return text.encode(rng.choice(ENCODINGS), "replace")
    if way == 5:
        return data + rng.choice((b"x", data, b"\0", b"\n" * 1000, b"]"))
    return data


def mutated_bytes(rng: Random, data: bytes) -> bytes:
    """Bytes flipped, dropped, doubled, moved, cut off or overwritten at one to eight places."""
    mutated = bytearray(data)
    for _ in range(rng.randrange(1, 9)):
        if not mutated:
            break
        start = rng.randrange(len(mutated))
        # What says something about the rest stands at the beginning.
        start = rng.choice((start, min(start, rng.randrange(64))))
        end = min(len(mutated), start + rng.choice((1, 1, 2, 4, 16, 64)))
        way = rng.randrange(7)
        if way <= 1:
            mutated[start] ^= 1 << rng.randrange(8)
        elif way == 2:
            mutated[start:end] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * (end - start)
        elif way == 3:
            del mutated[start:end]
        elif way == 4:
            mutated[start:start] = mutated[start:end] * rng.choice((1, 2, 50))
        elif way == 5:
            mutated[start:end] = rng.randbytes(end - start)
        elif rng.random() < 0.5:
            del mutated[start:]
    return bytes(mutated)


DOCTYPES = (
    '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;'
    '&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;"><!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;">'
    '<!ENTITY f "&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;">]>',
    '<!DOCTYPE v [<!ENTITY f SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE v SYSTEM "http://127.0.0.1:1/a.dtd">',
    '<!DOCTYPE v [<!ENTITY % p SYSTEM "http://127.0.0.1:1/"> %p;]>',
)
TAGS = ("View", "Image", "TextArea", "BrushLabels", "PolygonLabels", "Label", "Choices", "Choice", "Repeater", "Video")
ATTRIBUTES = ("name", "toName", "value", "smart", "alias", "background", "predicted_values", "perRegion", "objects")
ODD_ATTRIBUTES = (
    "",
    "$",
    "$$",
    "$a.b[0]",
    "$a[",
    "$" * 100,
    "img",
    "prompt",
    "&f;",
    "&#0;",
    "&#xD800;",
    "1e400",
    "nan",
)


def mutated_xml(rng: Random, xml: str) -> str:
    """A labelling interface in which one to four things are odd."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        xml = rng.choice(_OF_XML)(rng, xml)
    return xml


def _tag(rng: Random, xml: str) -> re.Match[str] | None:
    return rng.choice(list(re.finditer(r"<\w[^>]*>", xml)) or [None])  # type: ignore[list-item]


def _other_attribute(rng: Random, xml: str) -> str:
    attributes = list(re.finditer(r"\b(\w+)=\"[^\"]*\"", xml))
    if not attributes:
        return xml
    chosen = rng.choice(attributes)
    value = rng.choice((rng.choice(ODD_ATTRIBUTES), rng.choice(ODD_TEXTS)))
    name = rng.choice((chosen[1], chosen[1], rng.choice(ATTRIBUTES)))
    new = rng.choice((f'{name}="{value}"', f"{name}={value}", "", f'{chosen[0]} {name}="{value}"'))
    return xml[: chosen.start()] + new + xml[chosen.end() :]


def _other_tag(rng: Random, xml: str) -> str:
    chosen = _tag(rng, xml)
    if not chosen:
        return xml
    named = re.sub(r"(?<=<)\w+", rng.choice(TAGS), chosen[0], count=1)
    new = rng.choice((named, "", chosen[0] * 2, chosen[0] * rng.choice((60, 3000)), f"<a:{chosen[0][1:]}"))
    return xml[: chosen.start()] + new + xml[chosen.end() :]


def _nested(rng: Random, xml: str) -> str:
    tag, depth = rng.choice(TAGS), rng.choice((2, 90, 110, 3000, 30_000))
    return f"<View>{f'<{tag}>' * depth}{xml}{f'</{tag}>' * depth}</View>"


def _with_labels(rng: Random, xml: str) -> str:
    count = rng.choice((3, 1999, 2001, 5000))
    labels = "".join(f'<Label value="{rng.choice(("a", "é", str(number)))}"/>' for number in range(count))
    return xml.replace("</BrushLabels>", f"{labels}</BrushLabels>", 1)


def _with_entities(rng: Random, xml: str) -> str:
    return rng.choice(DOCTYPES) + xml.replace('value="', 'value="&f;', 1)


def _prefixed(rng: Random, xml: str) -> str:
    prefixes = ('<?xml version="1.1"?>', '<?xml version="1.0" encoding="utf-16"?>', "<!--", "<![CDATA[", "\ufeff", "x")
    return rng.choice(prefixes) + xml


def _garbled(rng: Random, xml: str) -> str:
    return mutated_bytes(rng, xml.encode("utf-8", "replace")).decode(
        "utf-8", rng.choice(("replace", "surrogateescape"))
    )


_OF_XML: tuple[Callable[[Random, str], str], ...] = (
    *(_other_attribute, _other_attribute, _other_tag, _other_tag),
    *(_nested, _with_labels, _with_entities, _prefixed, _garbled),
)
