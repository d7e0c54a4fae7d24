"""What users type stays: every command, option, default and help text that was once recorded in help.json.

New commands and options are free to come. Who changes one that is there changes the record too, and knows it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from backend.cli.main import app

RECORD = json.loads(Path(__file__).with_name("help.json").read_text(encoding="utf-8"))


def described(app: typer.Typer) -> dict[str, Any]:
    """Commands by panel, in their order, as JSON."""
    panels: dict[str, dict[str, Any]] = {}
    for command in app.registered_commands:
        assert command.callback is not None
        panels.setdefault(str(command.rich_help_panel), {})[command.callback.__name__] = {
            "help": inspect.getdoc(command.callback),
            "parameters": parameters(command.callback),
        }
    return panels


def parameters(callback: Callable[..., Any]) -> dict[str, Any]:
    """By the name that is typed: --json, or that of an argument."""
    hints = get_type_hints(callback, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(callback).parameters.items():
        kind, info = get_args(hints[name])
        found[typed_name(name, info)] = {
            "argument": isinstance(info, ArgumentInfo),
            "type": type_name(kind),
            "default": None if parameter.default is inspect.Parameter.empty else as_json(parameter.default),
            "required": parameter.default is inspect.Parameter.empty,
            "shown": info.show_default,
            "help": info.help,
            "range": [info.min, info.max],
        }
    return found


def typed_name(name: str, info: ArgumentInfo | OptionInfo) -> str:
    if isinstance(info, ArgumentInfo):
        return info.metavar or name
    # Within Annotated, what is given first is the option's name and no default.
    given = [info.default, *(info.param_decls or ())]
    return next((text for text in given if isinstance(text, str)), f"--{name.replace('_', '-')}")


def type_name(kind: Any) -> Any:
    """A word, or the choices there are."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [member.value for member in kind]
    inner = [type_name(part) for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is list:
        return [inner[0], "..."]
    return inner[0] if inner else kind.__name__


def as_json(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def test_every_command_is_as_it_was() -> None:
    now = described(app)
    assert list(now) == list(RECORD)
    for panel, commands in RECORD.items():
        assert [name for name in now[panel] if name in commands] == list(commands)
        for name, command in commands.items():
            assert now[panel][name]["help"] == command["help"]
            recorded = {typed: now[panel][name]["parameters"].get(typed) for typed in command["parameters"]}
            assert recorded == command["parameters"], name
