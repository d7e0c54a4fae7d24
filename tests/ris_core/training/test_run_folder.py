"""A run's folder keeps what is newest, whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ris_core.images import read_image
from ris_core.training.run_folder import METRICS, OVERLAYS, RunFolder, read_metrics


def sheet(shade: int) -> np.ndarray:
    return np.full((8, 8, 3), shade, np.uint8)


def test_only_the_newest_sheets_are_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    for epoch in range(25):
        run.keep_sheet(epoch, sheet(10 * epoch))
    names = sorted(path.name for path in (tmp_path / OVERLAYS).iterdir())
    assert names == [f"pass-{number:03d}.jpg" for number in range(6, 26)]
    assert abs(int(read_image(tmp_path / OVERLAYS / "pass-025.jpg").mean()) - 240) <= 2


def test_a_pass_that_is_done_again_shows_its_new_sheet(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    for shade in (20, 200):
        run.keep_sheet(0, sheet(shade))
    (path,) = (tmp_path / OVERLAYS).iterdir()
    assert read_image(path).mean() > 190


def test_a_process_that_does_not_speak_writes_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", {}, active=False)
    run.log(step=1, loss=0.5)
    run.keep_sheet(0, sheet(0))
    run.draw_curves()
    assert not (tmp_path / "run").exists()


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    run.log(step=1, loss=0.5)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]
