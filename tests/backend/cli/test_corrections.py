"""`ris corrections`: sentences, tables and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import absent, annotation, drawn, task, typed
from labelstudio.site import Site
from studio import PROJECT, TOKEN, Studio

Run = Callable[..., tuple[int, str, str]]
MASK = np.zeros((20, 20), dtype=np.bool_)
MASK[5:15, 5:15] = True
HALF = MASK & (np.arange(20) < 10)


@pytest.fixture
def studio() -> Studio:
    cat = drawn("a", MASK, "cat", "a cat", origin="prediction")
    predictions = [{"id": 7, "result": [cat], "model_version": "lda-1.aa"}]
    half = drawn("a", HALF, "cat", "a cat", origin="prediction-changed")
    tasks: list[dict[str, Any]] = [
        task(1, annotation(1, cat, parent_prediction=7, lead_time=3.0)),
        task(2, annotation(2, half, parent_prediction=7, lead_time=5.0)),
        task(3, annotation(3, typed("a cup"), absent())),
        task(4),
    ]
    return Studio([{**row, "predictions": predictions} for row in tasks])


@pytest.fixture
def home(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Iterator[Path]:
    (tmp_path / "ris.env").write_text(f"RIS_LABEL_STUDIO_URL={site.url}\nRIS_LABEL_STUDIO_TOKEN={TOKEN}\n")
    monkeypatch.setenv("RIS_HOME", str(tmp_path))
    return tmp_path


def test_the_command_says_it_in_sentences_and_as_json(home: Path, run_ris: Run, studio: Studio) -> None:
    code, printed, _ = run_ris("corrections", "--project", str(PROJECT))
    assert code == 0
    assert "3 annotations, 3 expressions: 1 accepted, 1 corrected, 0 rejected, 0 manual, 1 absent." in printed
    assert "Of 2 that a prediction is known for, 50% were submitted without a change" in printed
    assert "0.675" in printed
    assert "An annotation takes 4.0 s" in printed
    # Predictions that are deleted meanwhile don't change what is known.
    for row in studio.tasks:
        row["predictions"] = []
    found = json.loads(run_ris("corrections", "--project", str(PROJECT), "--json")[1])
    assert (found["project"], found["iou"], found["accepted_share"]) == (PROJECT, 0.675, 0.5)
    assert found["by_version"]["lda-1.aa"]["corrected"] == 1


def test_what_is_left_out_is_said(home: Path, run_ris: Run, studio: Studio) -> None:
    ellipse = {"id": "e", "from_name": "e", "to_name": "img", "type": "ellipselabels", "value": {"x": 1}}
    studio.tasks[3]["annotations"] = [annotation(4, ellipse)]
    printed = " ".join(run_ris("corrections", "--project", str(PROJECT))[1].split())
    assert "3 annotations" in printed
    assert "Task 4: left out: shapes that aren't masks: ellipse" in printed
    skipped = json.loads(run_ris("corrections", "--project", str(PROJECT), "--json")[1])["skipped"]
    assert skipped == [{"task": 4, "reason": "left out: shapes that aren't masks: ellipse"}]


def test_a_project_without_annotations_says_so(home: Path, run_ris: Run, studio: Studio) -> None:
    studio.tasks[:] = [task(1)]
    assert "has no submitted annotation yet" in run_ris("corrections", "--project", str(PROJECT))[1]
