"""`ris train-listener`: what teaches a model to choose by place, from sentences and boxes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table

from backend.cli.training import EncoderOption, OutOption
from backend.terminal import bars, err, out
from ris_core.training.recipe import Design


def train_listener(
    refs: Annotated[Path, typer.Option(help="Folder of RefCOCO's sentences and boxes, as .jsonl or .jsonl.gz files.")],
    folder: OutOption,
    without: Annotated[
        Optional[Path], typer.Option(help="File of COCO's numbers of photos to leave out, which are measured on.")
    ] = None,
    text_encoder: EncoderOption = Design.text_encoder,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the sentences.")] = 6,
    seed: Annotated[int, typer.Option(help="Same seed, same machine: same weights.")] = 0,
) -> None:
    """Teach which of several things a sentence means by place and size, from sentences and boxes without photos."""
    from ris_core.training.listener_pipeline import train_and_measure
    from ris_core.training.pipeline import check_free

    check_free(folder)
    with bars() as on_progress:
        measured = train_and_measure(refs, folder, without, text_encoder, epochs, seed, on_progress)
    table = Table("sentences of", "how many", "right", "by chance", title="held-out photos")
    for name, row in measured.figures.items():
        table.add_row(name, f"{row.sentences:,}", f"{row.right:.3f}", f"{row.chance:.3f}")
    out.print(table)
    err.print(f"Learnt from {measured.sentences:,} sentences about {measured.photos:,} photos. Saved as {folder}.")
