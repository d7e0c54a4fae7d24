"""Print a benchmark's figures and append them, with the machine, to benchmarks/results/NAME.json."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from backend.locks import exclusive
from ris_core.files import atomic_write


def record(
    name: str, figures: Mapping[str, float], aims: Mapping[str, str] | None = None, /, **conditions: object
) -> None:
    """`figures` as a table on the console, with what is aimed at, and as one more entry of the results."""
    table = Table("figure", "value", *(["aim"] if aims else []), title=f"{name}: {machine()}")
    for figure, value in figures.items():
        table.add_row(figure, str(value), *([aims.get(figure)] if aims else []))
    Console().print(table)
    keep(name, figures, **conditions)


def keep(name: str, figures: Mapping[str, object], **conditions: object) -> None:
    """`figures` as one more entry of the results."""
    entry = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        **conditions,
        "figures": dict(figures),
    }
    append(name, entry)


def append(name: str, entry: Mapping[str, Any]) -> None:
    """One more entry of the results, as it is; several processes may add theirs."""
    with exclusive(_file(name).with_suffix(".lock")):
        atomic_write(_file(name), (json.dumps([*results(name), entry], indent=2) + "\n").encode())


def results(name: str) -> list[dict[str, Any]]:
    """What was kept so far, oldest first."""
    known: list[dict[str, Any]] = json.loads(_file(name).read_text(encoding="utf-8")) if _file(name).exists() else []
    return known


def _file(name: str) -> Path:
    return Path(__file__).parent / "results" / f"{name}.json"


def machine() -> str:
    """Processor, cores and versions, as far as they matter to a figure."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name"))
        model = next(lines, model).rpartition(":")[2].strip()
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores{device}, Python {platform.python_version()}, torch {torch.__version__}"
