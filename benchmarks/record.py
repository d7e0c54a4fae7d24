"""Print a benchmark's figures and append them, with the machine, to benchmarks/results/NAME.json."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from ris_core.files import atomic_write


def record(name: str, figures: Mapping[str, float], **conditions: object) -> None:
    """`figures` as a table on the console and as one more entry of the results."""
    entry = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        **conditions,
        "figures": dict(figures),
    }
    path = Path(__file__).parent / "results" / f"{name}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    atomic_write(path, (json.dumps([*known, entry], indent=2) + "\n").encode())
    table = Table("figure", "value", title=f"{name}: {entry['machine']}")
    for figure, value in figures.items():
        table.add_row(figure, str(value))
    Console().print(table)


def machine() -> str:
    """Processor, cores and versions, as far as they matter to a figure."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name"))
        model = next(lines, model).rpartition(":")[2].strip()
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
