"""`ris settings`: every knob, what it may be and what it is; docs/settings.md is written by it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from backend.cli.options import JsonOption
from backend.terminal import out

if TYPE_CHECKING:
    from backend.settings import Settings

_HEADER = """\
# Settings
Each is a variable of the environment, or a line in `ris.env` of the home folder (`.ris`); the environment wins. Those
with a tick under *project* may have another value in `.ris/projects/<number>.env`. In place of a secret there may be
the path of a file that holds it: `RIS_PASSWORD_FILE=/run/secrets/password`. A name that is none of these is refused,
with the nearest one. `ris settings` prints what they are. Besides, `RIS_CACHE` is where fetched weights are kept
(`~/.cache/ris`).

This page is written by `ris settings --markdown`.

| setting | default | may be | project | |
|---|---|---|---|---|
"""
_LIMITS = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}", "exclusiveMaximum": "below {}"}
_KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "array": "a list, by commas"}


@dataclass(frozen=True)
class SettingRow:
    """A knob, in words. project: whether a project may have its own. value: what it is now, a secret's in asterisks."""

    name: str
    default: str
    allowed: str
    project: bool
    description: str
    value: str = ""


def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/settings.md.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the settings: what each does, may be and is."""
    from backend.settings import load

    if markdown:
        print(as_markdown(), end="")
        return
    listed = rows(load())
    if as_json:
        print(json.dumps([asdict(row) for row in listed]))
        return
    table = Table("setting", "is", "default", "may be", "")
    for row in listed:
        value = row.value if row.value != row.default else ""
        table.add_row(row.name, value, row.default, row.allowed, row.description, style="bold" if value else "")
    out.print(table)


def as_markdown() -> str:
    """docs/settings.md."""
    return _HEADER + "".join(
        f"| `{row.name}` | {_code(row.default)} | {row.allowed.replace('|', chr(92) + '|')} "
        f"| {'✓' if row.project else ''} | {row.description.replace('<', '&lt;')} |\n"
        for row in rows()
    )


def rows(current: Settings | None = None) -> list[SettingRow]:
    """All knobs, in the order of `backend.settings`; with values where there are some."""
    from backend.settings import PREFIX, Settings, is_own

    schema: Mapping[str, Any] = Settings.model_json_schema()["properties"]
    return [
        SettingRow(
            f"{PREFIX}{name}".upper(),
            _shown(field.default),
            _allowed(schema[name]),
            is_own(name),
            str(field.description),
            _shown(getattr(current, name)) if current else "",
        )
        for name, field in Settings.model_fields.items()
    ]


def _shown(value: Any) -> str:
    """A value as it is typed."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _allowed(schema: Mapping[str, Any]) -> str:
    """What JSON Schema says of a knob, as words."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    return "; ".join(part for kind in kinds for part in _parts(kind))


def _parts(kind: Mapping[str, Any]) -> Iterator[str]:
    if kind.get("writeOnly"):
        yield "a secret"
    elif "enum" in kind or "const" in kind:
        yield ", ".join(f"`{value}`" for value in kind.get("enum", [kind.get("const")]))
    elif kind.get("type") in _KINDS:
        yield " ".join(
            [_KINDS[kind["type"]], *(text.format(f"{kind[name]:,}") for name, text in _LIMITS.items() if name in kind)]
        )
    elif kind.get("format") == "path":
        yield "a path"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
