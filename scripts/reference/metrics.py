"""The table of docs/metrics.md, from what is counted and read; the text around it is people's."""

from __future__ import annotations

from collections.abc import Iterator

from backend.metrics import REGISTRY
from backend.web.scrape import GAUGES
from reference.markdown import code, table

_HEAD = ("metric", "type", "labels", "what it says")


def page(current: str) -> str:
    """docs/metrics.md with the table as it should be. Raises ValueError if it has none."""
    first, *others = current.split("\n\n")
    parts = [first, *others]
    at = [number for number, part in enumerate(parts) if part.startswith("| metric |")]
    if len(at) != 1:
        raise ValueError("docs/metrics.md needs one table that begins with '| metric |'.")
    parts[at[0]] = table(_HEAD, [*_counted(), *_read()])
    return "\n\n".join(parts)


def _counted() -> Iterator[tuple[str, str, str, str]]:
    for family in REGISTRY.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield code(name), family.type, ", ".join(_labels(family.name)), family.documentation


def _labels(name: str) -> tuple[str, ...]:
    # Labels that no value was given for yet are nowhere but in the collector.
    collector = REGISTRY._names_to_collectors[name]
    return tuple(collector._labelnames)  # type: ignore[attr-defined]


def _read() -> Iterator[tuple[str, str, str, str]]:
    for gauge in GAUGES:
        yield code(gauge.name), "gauge", ", ".join(gauge.labels), gauge.says
