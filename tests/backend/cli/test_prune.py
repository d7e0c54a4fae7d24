"""Old predictions go, those in use stay: on a small Label Studio that forgets its version as the real one does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from labelstudio.site import serve
from shelf import PROJECT, TOKEN, Shelf, data

from backend.cli import prune
from backend.cli.prune import is_old, prune_predictions
from backend.errors import LabelStudioError
from backend.labelstudio.client import LabelStudio
from backend.settings import Settings
from ris_core import checkpoint_files

OLD, OLDER, NEW = "lda-0000000a", "lda-0000000b", "lda-0000000c"


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "shelf.db")
    shelf.fill(data(4))
    return shelf


@pytest.fixture
def settings(
    shelf: Shelf, production: Path, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: production)
    monkeypatch.setenv("COLUMNS", "300")
    with serve(shelf) as site:
        yield make_settings(label_studio_url=site.url, label_studio_token=TOKEN)


def versions(shelf: Shelf) -> dict[str, int]:
    return dict(shelf.rows("SELECT model_version, COUNT(*) FROM prediction GROUP BY model_version"))


@pytest.mark.parametrize(
    ("name", "old"),
    [
        (f"{OLD}.3fa2c1", True),
        (OLD, True),
        (f"{OLD}.3fa2c1#failed", True),
        (f"{OLD}#failed", True),
        (f"{NEW}.3fa2c1", False),
        (f"{NEW}.999999#failed", False),
        (NEW, False),
        (f"{OLDER}.3fa2c1", False),
        ("another-1234abcd", False),
        ("lda-v2", False),
        ("", False),
    ],
)
def test_what_is_ours_and_in_use_nowhere_is_old(name: str, old: bool) -> None:
    assert is_old(name, NEW, f"{OLDER}.3fa2c1") == old


def test_old_versions_go_and_what_is_in_use_stays(
    shelf: Shelf, settings: Settings, production: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    current = checkpoint_files.version(production)
    for version in (f"{OLD}.1", f"{OLDER}.1", f"{current}.1", "somebody else's"):
        for task in (1, 2, 3):
            shelf.predict(task, version, 0.5)
    [(parent,)] = shelf.rows("SELECT id FROM prediction WHERE model_version = ? AND task = 2", f"{OLD}.1")
    shelf.annotated = {2: parent}
    prune_predictions(settings, PROJECT, delete=False)
    assert "Not needed any more: 5 predictions. --yes deletes them." in capsys.readouterr().out
    assert sum(versions(shelf).values()) == 12
    prune_predictions(settings, PROJECT, delete=True)
    assert versions(shelf) == {f"{OLD}.1": 1, f"{current}.1": 3, "somebody else's": 3}
    assert shelf.rows("SELECT id FROM prediction WHERE model_version = ?", f"{OLD}.1") == [(parent,)]
    assert f"{OLD}.1: 2 predictions; 1 that annotations were made from stay" in capsys.readouterr().out
    # The real one unsets it as well.
    assert shelf.model_version == "ris"


def test_what_label_studio_orders_by_stays(shelf: Shelf, settings: Settings) -> None:
    for version in (f"{OLD}.1", f"{OLDER}.1"):
        shelf.predict(1, version, 0.5)
    shelf.model_version = f"{OLD}.1"
    prune_predictions(settings, PROJECT, delete=True)
    assert (versions(shelf), shelf.model_version) == ({f"{OLD}.1": 1}, f"{OLD}.1")


def test_killed_before_the_version_was_set_again_the_next_run_sets_it(
    shelf: Shelf, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (f"{OLD}.1", f"{OLDER}.1"):
        shelf.predict(1, version, 0.5)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prune, "_restore", killed)
        with pytest.raises(KeyboardInterrupt):
            prune_predictions(settings, PROJECT, delete=True)
    assert (len(versions(shelf)), shelf.model_version) == (1, None)
    prune_predictions(settings, PROJECT, delete=True)
    assert (versions(shelf), shelf.model_version) == ({}, "ris")


def test_broken_off_it_goes_on_with_what_is_left(
    shelf: Shelf, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in (1, 2, 3, 4):
        shelf.predict(task, f"{OLD}.1", 0.5)
    shelf.annotated = {1: 1}
    deleted: list[int] = []
    delete = LabelStudio.delete_prediction

    def some(client: LabelStudio, prediction: int) -> None:
        if deleted:
            raise LabelStudioError("Label Studio is away.")
        deleted.append(prediction)
        delete(client, prediction)

    with monkeypatch.context() as patch:
        patch.setattr(LabelStudio, "delete_prediction", some)
        with pytest.raises(LabelStudioError):
            prune_predictions(settings, PROJECT, delete=True)
    assert versions(shelf) == {f"{OLD}.1": 3}
    prune_predictions(settings, PROJECT, delete=True)
    assert shelf.rows("SELECT id FROM prediction") == [(1,)]


def test_nothing_old_is_said_so(shelf: Shelf, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    prune_predictions(settings, PROJECT, delete=False)
    assert capsys.readouterr().out == "Not needed any more: 0 predictions.\n"
