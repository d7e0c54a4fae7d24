"""docs/commands.md: every command of `ris`, from what typer was told."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from backend.cli.main import app
from reference.markdown import code, table

_HEADER = """\
# Commands
`ris --help` lists them, and `ris COMMAND --help` says what stands here. Which installation a command is for:
[installations](installations.md#which-installation-a-command-is-for). It ends with 0 if it did what it says, with 2
where what was typed or given is wrong, and with 1 where something else went wrong; then a sentence says what to do.

This page is written by `make reference`.
"""
_TYPES = {str: "text", int: "a whole number", float: "a number", bool: ""}


@dataclass(frozen=True)
class Parameter:
    """What is typed, as the page says it. usage: its part of the command line."""

    typed: str
    allowed: str
    default: str
    says: str
    usage: str


def page() -> str:
    """docs/commands.md."""
    parts = [_HEADER]
    for panel, commands in groupby(app.registered_commands, lambda command: str(command.rich_help_panel)):
        parts.append(f"## {panel}\n")
        parts += [_section(command) for command in commands]
    return "\n".join(parts)


def _section(command: CommandInfo) -> str:
    assert command.callback is not None
    parameters = list(_parameters(command.callback))
    usage = " ".join(["ris", str(command.name), *(one.usage for one in parameters if one.usage)])
    says = str(inspect.getdoc(command.callback))
    rows = [(code(one.typed), one.allowed, one.default, one.says) for one in parameters]
    listed = f"\n{table(('', 'may be', 'default', ''), rows)}\n" if rows else ""
    return f"### ris {command.name}\n{says}\n```\n{usage}\n```\n{listed}"


def _parameters(callback: Callable[..., Any]) -> Iterator[Parameter]:
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        kind, info = get_args(hints[name])
        is_required = parameter.default is inspect.Parameter.empty
        typed = _typed(name, info, kind, parameter.default)
        yield Parameter(
            typed=typed,
            allowed=_allowed(kind, info),
            default="required" if is_required else _default(parameter.default, info),
            says=str(info.help or ""),
            usage=_usage(typed, kind, info, is_required),
        )


def _typed(name: str, info: ArgumentInfo | OptionInfo, kind: Any, default: Any) -> str:
    if isinstance(info, ArgumentInfo):
        return str(info.metavar or name.upper())
    # Within Annotated, what is given first is the option's name and no default.
    given = [text for text in (info.default, *(info.param_decls or ())) if isinstance(text, str)]
    option = given[0] if given else f"--{name.replace('_', '-')}"
    is_switch = kind is bool and not given and default is not inspect.Parameter.empty
    return f"{option}, --no-{option.removeprefix('--')}" if is_switch else option


def _usage(typed: str, kind: Any, info: ArgumentInfo | OptionInfo, is_required: bool) -> str:
    """Arguments and what must be given; options that needn't be are in the table."""
    several = "..." if _is_list(kind) else ""
    if isinstance(info, ArgumentInfo):
        return f"{typed}{several}" if is_required else f"[{typed}{several}]"
    return f"{typed} {(info.metavar or typed.removeprefix('--').upper())}" if is_required else ""


def _allowed(kind: Any, info: ArgumentInfo | OptionInfo) -> str:
    """Its type in words, or the choices that there are; with its range."""
    choices = _choices(kind)
    if choices:
        return ", ".join(map(code, choices))
    inner = _inner(kind)
    words = code(info.metavar) if info.metavar and isinstance(info, OptionInfo) else _TYPES.get(inner, "a path")
    limits = [f"from {info.min}" if info.min is not None else "", f"to {info.max}" if info.max is not None else ""]
    return " ".join(filter(None, [words, *limits])) + ("; again for more" if _is_list(kind) else "")


def _choices(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(member.value) for member in kind]
    return [choice for part in get_args(kind) for choice in _choices(part)]


def _inner(kind: Any) -> Any:
    """The type of one value: of `list[int] | None` int."""
    parts = [part for part in get_args(kind) if part is not type(None)]
    return _inner(parts[0]) if parts else kind


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list or any(_is_list(part) for part in get_args(kind))


def _default(value: Any, info: ArgumentInfo | OptionInfo) -> str:
    if isinstance(info.show_default, str):
        return info.show_default
    if isinstance(value, bool):
        return "on" if value else ""
    if isinstance(value, Enum):
        value = value.value
    return "" if value is None else code(str(value))
