"""docs/formats.md: the formats of exports, from the docstrings of the modules that write them."""

from __future__ import annotations

import sys
from collections import defaultdict
from inspect import cleandoc

from backend.datasets.formats import EXPORT_FORMATS, ExportFormat
from reference.markdown import code, table

_HEADER = """\
# Export formats
What `ris export --project 7 --format NAME` writes. [Exports](exports.md) says what goes into all of them, which
annotations count, and what reads them back.

This page is written by `make reference`.
"""


def page() -> str:
    """docs/formats.md."""
    rows = [(code(name), one.says, "yes" if one.is_exact else "no") for name, one in EXPORT_FORMATS.items()]
    parts = [_HEADER, table(("`--format`", "what it is", "every mask comes back pixel for pixel"), rows), ""]
    for module, names in _by_module().items():
        parts += [f"## {', '.join(map(code, names))}", cleandoc(str(sys.modules[module].__doc__)), ""]
    return "\n".join(parts)


def _by_module() -> dict[str, list[str]]:
    names = defaultdict(list)
    for name, one in EXPORT_FORMATS.items():
        names[_module(one)].append(name)
    return dict(names)


def _module(one: ExportFormat) -> str:
    return one.write.__module__
