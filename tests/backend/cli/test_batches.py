"""`ris prelabel`, `jobs`, `cancel` and `resume` on a real Valkey, against a small Label Studio."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from labelstudio.site import serve
from redis import Redis
from shelf import PROJECT, TOKEN, Shelf, data

from backend import services
from backend.active_learning.strategies import STRATEGIES
from backend.active_learning.task_scores import NothingToRank
from backend.batches import runner
from backend.batches.store import BatchStore
from backend.cli import batches, doors
from backend.errors import LabelStudioNotFound, NotFound
from backend.labelstudio.client import LabelStudio
from backend.settings import load
from ris_core import checkpoint_files
from ris_core.errors import PromptError


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
    # Rich would wrap what a test reads.
    monkeypatch.setenv("COLUMNS", "300")
    with serve(shelf) as site:
        for name, value in {
            "RIS_HOME": str(tmp_path / "home"),
            "RIS_REDIS_URL": redis_url,
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


def ordered(capsys: pytest.CaptureFixture[str], **options: object) -> dict[str, object]:
    given = {"view": None, "prompts": [], "label": None, "force": False, "detach": True, "as_json": True}
    batches.prelabel(PROJECT, **{**given, **options})  # type: ignore[arg-type]
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_a_project_is_ordered_followed_and_reported(
    shelf: Shelf, work: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.do("UPDATE task SET data = '{}' WHERE id = 2")

    def help_out() -> None:
        batches = services.prelabelling(load())
        while not (found := batches.all()):
            time.sleep(0.05)
        work(found[0].id)

    worker = threading.Thread(target=help_out)
    worker.start()
    batches.prelabel(PROJECT, None, [], None, force=False, detach=False, as_json=False)
    worker.join()
    printed = capsys.readouterr().out
    assert "4 of 5 tasks predicted, 1 left out." in printed
    assert 'Left out: task 2. Task 2 has no "image"' in printed
    assert sum(count for (count,) in shelf.rows("SELECT COUNT(*) FROM prediction")) == 4
    batches.show(load(), as_json=True)
    [batch] = json.loads(capsys.readouterr().out)["batches"]
    assert batch["reasons"].keys() == {"2"}


def test_batches_and_jobs_are_listed(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    batch = ordered(capsys)["id"]
    batches.show(load(), as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert [(each["id"], each["state"], each["total"]) for each in listed["batches"]] == [(batch, "running", 5)]
    [job] = listed["jobs"]
    assert (job["function"], job["status"], job["arguments"]) == ("prelabel", "queued", [batch])
    assert listed["workers"] == {"training": 0, "batches": 0}
    batches.show(load(), as_json=False)
    printed = capsys.readouterr().out
    assert str(batch) in printed
    assert "Workers: 0 for training, 0 for batches." in printed


def test_a_batch_is_cancelled_and_resumed(
    shelf: Shelf, work: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    batch = str(ordered(capsys)["id"])
    batches.cancel(load(), batch)
    assert f"Batch {batch} is cancelled: 0 of 5 tasks predicted." in capsys.readouterr().out
    work(batch)
    assert shelf.rows("SELECT COUNT(*) FROM prediction") == [(0,)]
    batches.resume(load(), batch)
    assert "is running" in capsys.readouterr().out
    work(batch)
    assert shelf.rows("SELECT COUNT(*) FROM prediction") == [(5,)]


def test_a_cancelled_batch_ends_the_wait_with_a_sentence(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    batch = str(ordered(capsys)["id"])
    timer = threading.Timer(0.7, lambda: services.prelabelling(load()).cancel(batch))
    timer.start()
    ended = batches.follow(services.prelabelling(load()), batch)
    assert ended.state == "cancelled"


def test_prompts_given_are_kept_with_the_batch_and_ask_anew(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    order = ordered(capsys, prompts=["a zebra", "a dog"], label="other")
    assert (order["prompts"], order["force"]) == ([["a zebra", "other"], ["a dog", "other"]], True)


def test_mistakes_are_told_before_anything_is_ordered(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PromptError):
        ordered(capsys, prompts=[" "])
    with pytest.raises(LabelStudioNotFound):
        batches.prelabel(99, None, [], None, force=False, detach=True, as_json=True)
    with pytest.raises(NotFound, match="ris jobs"):
        batches.cancel(load(), "nowhere")
    assert services.prelabelling(load()).all() == []


def rank(capsys: pytest.CaptureFixture[str], strategy: str | None = None) -> dict[str, object]:
    batches.rank(load(PROJECT), PROJECT, strategy, as_json=True)
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_tasks_are_ranked_anew_without_predicting(
    shelf: Shelf, work: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NothingToRank, match="Predict first"):
        rank(capsys)
    batch = ordered(capsys)
    work(str(batch["id"]))
    before = shelf.rows("SELECT id, score, result FROM prediction ORDER BY id")
    shelf.annotated = {2: None}
    ranked = rank(capsys, "diversity")
    assert (ranked["tasks"], ranked["open"], ranked["version"]) == (5, 4, batch["version"])
    after = shelf.rows("SELECT id, score, result FROM prediction ORDER BY id")
    assert [(row[0], row[2]) for row in after] == [(row[0], row[2]) for row in before]
    assert sorted(score for _, score, _ in after if score != before[1][1]) == pytest.approx([0, 0.25, 0.5, 0.75])
    assert after[1] == before[1]
    # The same strategy over the same pairs changes nothing; the project's own one is what was there before.
    assert rank(capsys, "diversity")["changed"] == 0
    rank(capsys)
    restored = [score for (score,) in shelf.rows("SELECT score FROM prediction ORDER BY id")]
    assert restored == pytest.approx([score for _, score, _ in before], abs=1e-6)


def test_ranking_says_what_it_takes_and_whether_label_studio_goes_by_it(
    shelf: Shelf, work: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    work(str(ordered(capsys)["id"]))
    with pytest.raises(NothingToRank, match="RIS_PRELABEL_SCORE=disagreement"):
        rank(capsys, "disagreement")
    batches.rank(load(PROJECT), PROJECT, "random", as_json=False)
    assert f"ris refresh --project {PROJECT}" in capsys.readouterr().out
    shutil.rmtree(load().home / "pairs")
    with pytest.raises(NothingToRank, match=f"ris prelabel --project {PROJECT} --force"):
        rank(capsys)


def test_a_refresh_by_command_predicts_what_is_not_annotated(
    shelf: Shelf, work: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.annotated = {2: None}
    batches.refresh(load(), PROJECT)
    printed = capsys.readouterr().out
    [batch] = services.prelabelling(load()).all()
    assert f"Batch {batch.id}: 4 tasks. Once it is done, Label Studio goes by {batch.order.version}." in printed
    work(batch.id)
    with LabelStudio(load().label_studio_url, TOKEN) as client:
        assert services.refresh(load(), client).tend(PROJECT) == "done"
    assert shelf.model_version == batch.order.version


def test_a_refresh_says_where_label_studio_is_not_told(
    shelf: Shelf, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIS_PRELABEL_REFRESH", "false")
    batches.refresh(load(), PROJECT)
    assert "RIS_PRELABEL_REFRESH is off, so Label Studio isn't told" in capsys.readouterr().out


def test_the_command_offers_every_strategy() -> None:
    assert [each.value for each in doors.Ranked] == ["confidence", *STRATEGIES]
