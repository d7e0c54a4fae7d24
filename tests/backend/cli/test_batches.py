"""`ris prelabel`, `refresh`, `rank`, `cancel` and `resume` on a real Valkey, against a small Label Studio."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from checkpoints import random_checkpoint
from labelstudio.site import serve
from pointers import fake_pointer
from redis import Redis
from shelf import PROJECT, TOKEN, Shelf, data

from backend import services
from backend.active_learning.strategies import STRATEGIES
from backend.batches import runner
from backend.batches.store import BatchStore
from backend.cli.batches import RankedBy
from backend.labelstudio.client import LabelStudio
from backend.settings import load
from ris_core import checkpoint_files

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture
def shelf(
    tmp_path: Path, redis_url: str, weights: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None
) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "shelf.db")
    shelf.fill(data(5))
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: weights)
    with serve(shelf) as site:
        for name, value in {
            "RIS_HOME": str(tmp_path / "home"),
            "RIS_REDIS_URL": redis_url,
            "RIS_WEBHOOK_SECRET": "hook-secret",
            "RIS_LABEL_STUDIO_URL": site.url,
            "RIS_LABEL_STUDIO_TOKEN": TOKEN,
        }.items():
            monkeypatch.setenv(name, value)
        yield shelf


@pytest.fixture
def work(redis: Redis) -> Callable[[str], None]:
    """What a worker does with a batch."""

    def run(batch: str) -> None:
        settings, batches = load(), BatchStore(redis)
        with LabelStudio(settings.label_studio_url, TOKEN) as client:
            runner.run(batch, services.runner_services(settings, client, batches))

    return run


@pytest.fixture
def ris(run_ris: Run) -> Run:
    """Run a command on the project -> exit code, standard output, standard error."""
    return lambda name, *arguments: run_ris(name, "--project", str(PROJECT), *arguments)


@pytest.fixture
def order(ris: Run) -> Callable[..., dict[str, Any]]:
    """Order a batch and don't wait for it -> the batch as JSON."""
    return lambda *arguments: json.loads(ris("prelabel", "--detach", "--json", *arguments)[1])


def test_a_project_is_ordered_followed_and_reported(shelf: Shelf, work: Callable[[str], None], ris: Run) -> None:
    shelf.do("UPDATE task SET data = '{}' WHERE id = 2")

    def help_out() -> None:
        batches = services.batch_service(load())
        while not (ordered := batches.all()):
            time.sleep(0.05)
        work(ordered[0].id)

    worker = threading.Thread(target=help_out)
    worker.start()
    code, printed, _ = ris("prelabel")
    worker.join()
    assert code == 0
    assert "4 of 5 tasks predicted, 1 left out." in printed
    assert 'Left out: task 2. Task 2 has no "image"' in printed
    assert sum(count for (count,) in shelf.rows("SELECT COUNT(*) FROM prediction")) == 4


def test_a_batch_that_is_not_waited_for_says_where_to_look(shelf: Shelf, ris: Run) -> None:
    code, printed, _ = ris("prelabel", "--detach")
    [batch] = services.batch_service(load()).all()
    assert (code, printed) == (0, f"Batch {batch.id}: 5 tasks. See: ris jobs\n")


def test_a_batch_is_cancelled_and_resumed(
    shelf: Shelf, work: Callable[[str], None], order: Callable[..., dict[str, Any]], run_ris: Run
) -> None:
    batch = order()["id"]
    said = f"Batch {batch} is cancelled: 0 of 5 tasks predicted. Go on with: ris resume {batch}\n"
    assert run_ris("cancel", batch)[:2] == (0, said)
    work(batch)
    assert shelf.rows("SELECT COUNT(*) FROM prediction") == [(0,)]
    assert run_ris("resume", batch)[:2] == (0, f"Batch {batch} is running: 0 of 5 tasks predicted.\n")
    assert [json.loads(run_ris(command, batch, "--json")[1])["state"] for command in ("cancel", "resume")] == [
        "cancelled",
        "running",
    ]
    work(batch)
    assert shelf.rows("SELECT COUNT(*) FROM prediction") == [(5,)]


def test_a_batch_that_is_cancelled_ends_the_wait_with_a_sentence(shelf: Shelf, ris: Run) -> None:
    def cancel() -> None:
        batches = services.batch_service(load())
        while not (ordered := [batch for batch in batches.all() if batch.state == "running"]):
            time.sleep(0.05)
        batches.cancel(ordered[0].id, "Nobody wants it.")

    canceller = threading.Thread(target=cancel)
    canceller.start()
    code, printed, error = ris("prelabel", "--json")
    canceller.join()
    assert (code, json.loads(printed)["state"]) == (1, "cancelled")
    assert "was stopped. Nobody wants it. Go on with: ris resume" in error


def test_prompts_given_are_kept_with_the_batch_and_ask_anew(shelf: Shelf, order: Callable[..., dict[str, Any]]) -> None:
    batch = order("--prompt", "a zebra", "--prompt", "a dog", "--label", "other")
    assert (batch["prompts"], batch["force"]) == ([["a zebra", "other"], ["a dog", "other"]], True)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("prelabel", "--project", str(PROJECT), "--prompt", " "), 2, "is empty"),
        (("prelabel", "--project", "99"), 1, "Label Studio"),
        (("cancel", "nowhere"), 1, "ris jobs"),
        (("rank", "--project", str(PROJECT)), 1, f"Predict first: ris prelabel --project {PROJECT}"),
        (("rank", "--project", str(PROJECT), "--strategy", "beauty"), 2, "'coverage'"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_mistakes_are_told_before_anything_is_ordered(
    shelf: Shelf, run_ris: Run, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    ended, printed, error = run_ris(*arguments)
    assert (ended, printed) == (code, "")
    assert sentence in error
    assert services.batch_service(load()).all() == []


def test_tasks_are_ranked_anew_without_predicting(
    shelf: Shelf, work: Callable[[str], None], order: Callable[..., dict[str, Any]], ris: Run
) -> None:
    batch = order()
    work(batch["id"])
    before = shelf.rows("SELECT id, score, result FROM prediction ORDER BY id")
    shelf.annotated = {2: None}
    ranked = json.loads(ris("rank", "--strategy", "diversity", "--json")[1])
    counts = {"tasks": 5, "open": 4, "changed": ranked["changed"], "ordered": False}
    assert ranked == {"project": PROJECT, "version": batch["version"], "strategy": "diversity", **counts}
    after = shelf.rows("SELECT id, score, result FROM prediction ORDER BY id")
    assert [(row[0], row[2]) for row in after] == [(row[0], row[2]) for row in before]
    code, printed, _ = ris("rank", "--strategy", "diversity")
    assert code == 0
    assert printed.startswith("4 tasks are ranked by diversity; 0 scores are new.\n")
    assert f"doesn't order by {batch['version']} yet: ris refresh --project {PROJECT}" in printed
    # The project's own strategy is what was there before.
    assert json.loads(ris("rank", "--json")[1])["strategy"] == "confidence"
    restored = [score for (score,) in shelf.rows("SELECT score FROM prediction ORDER BY id")]
    assert restored == pytest.approx([score for _, score, _ in before], abs=1e-6)


def test_a_refresh_by_command_predicts_what_is_not_annotated(
    shelf: Shelf, work: Callable[[str], None], ris: Run
) -> None:
    shelf.annotated = {2: None}
    code, printed, _ = ris("refresh")
    assert code == 0
    [batch] = services.batch_service(load()).all()
    assert f"Batch {batch.id}: 4 tasks. Once it is done, Label Studio goes by {batch.spec.version}." in printed
    # Begun again, it is the same batch.
    begun = json.loads(ris("refresh", "--json")[1])
    assert (begun["id"], begun["origin"], begun["total"]) == (batch.id, "promotion", 4)
    work(batch.id)
    with LabelStudio(load().label_studio_url, TOKEN) as client:
        assert services.rollout(load(), client).reconcile(PROJECT) == "done"
    assert shelf.model_version == batch.spec.version


def test_a_refresh_says_where_label_studio_is_not_told(shelf: Shelf, ris: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_PRELABEL_REFRESH", "false")
    assert "RIS_PRELABEL_REFRESH is off, so Label Studio isn't told" in ris("refresh")[1]


def test_the_command_offers_every_strategy() -> None:
    assert get_args(RankedBy) == ("confidence", *STRATEGIES)


NAME = "grounding-dino+sam2"


def test_a_zero_shot_segmenter_predicts_without_being_in_production(
    shelf: Shelf,
    work: Callable[[str], None],
    order: Callable[..., dict[str, Any]],
    ris: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its name, by the version that it then is, and by what Label Studio calls its predictions."""
    monkeypatch.setenv("RIS_CACHE", str(tmp_path / "cache"))
    code, _, error = ris("prelabel", "--model", NAME, "--detach")
    assert (code, error.count("\n")) == (1, 1)
    assert f"Run `ris fetch {NAME}`" in error
    pointer = fake_pointer(NAME, tmp_path / "cache", monkeypatch)
    batch = order("--model", NAME)
    assert batch["model"] == checkpoint_files.version(pointer)
    assert batch["version"].startswith(f"{batch['model']}.")
    registry = services.registry(load())
    assert registry.version(PROJECT, batch["model"]).card["origin"] == "zero-shot"
    assert registry.current(PROJECT) == registry.base
    work(batch["id"])
    assert shelf.rows("SELECT DISTINCT model_version FROM prediction") == [(batch["version"],)]
    assert shelf.rows("SELECT COUNT(*) FROM prediction") == [(5,)]
    for again in (batch["model"], batch["version"]):
        assert order("--model", again)["version"] == batch["version"]
    assert order()["model"] == registry.base.name
    code, _, error = ris("prelabel", "--model", "lda-00000000", "--detach")
    assert code != 0
    assert "has no version lda-00000000" in error


def test_projects_may_start_at_a_zero_shot_segmenter(
    shelf: Shelf,
    work: Callable[[str], None],
    order: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pointer = fake_pointer(NAME, tmp_path / "cache", monkeypatch)
    monkeypatch.setenv("RIS_MODEL", NAME)
    batch = order()
    assert batch["model"] == checkpoint_files.version(pointer)
    work(batch["id"])
    assert shelf.rows("SELECT DISTINCT model_version FROM prediction") == [(batch["version"],)]
