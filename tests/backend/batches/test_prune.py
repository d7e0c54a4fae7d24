"""Old predictions go, those in use stay: on a small Label Studio that forgets its version as the real one does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from labelstudio.site import serve
from shelf import PROJECT, TOKEN, Shelf, data

from backend.batches.prune import OldVersion, delete_old, find_old, is_old
from backend.errors import LabelStudioError
from backend.labelstudio.client import LabelStudio

OLD, OLDER, NEW = "lda-0000000a", "lda-0000000b", "lda-0000000c"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "shelf.db")
    shelf.fill(data(4))
    return shelf


@pytest.fixture
def client(shelf: Shelf) -> Iterator[LabelStudio]:
    with serve(shelf) as site, LabelStudio(site.url, TOKEN) as client:
        yield client


def prune(client: LabelStudio) -> list[OldVersion]:
    """Delete what is old while NEW is in production."""
    old = find_old(client, PROJECT, NEW)
    delete_old(client, PROJECT, old)
    return old


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
        ("grounding-dino+sam2-0000000a.3fa2c1", True),
        ("grounding-dino+sam-0000000a", True),
        ("florence-2-0000000a.3fa2c1#failed", True),
        ("grounding-dinoosam2-0000000a", False),
        ("grounding-dino+sam2-v2", False),
        ("another-1234abcd", False),
        ("lda-v2", False),
        ("", False),
    ],
)
def test_what_is_ours_and_in_use_nowhere_is_old(name: str, old: bool) -> None:
    assert is_old(name, NEW, f"{OLDER}.3fa2c1") == old


def test_old_versions_go_and_what_is_in_use_stays(shelf: Shelf, client: LabelStudio) -> None:
    for version in (f"{OLD}.1", f"{OLDER}.1", f"{NEW}.1", "somebody else's"):
        for task in (1, 2, 3):
            shelf.predict(task, version, 0.5)
    ids = [number for (number,) in shelf.rows("SELECT id FROM prediction ORDER BY id")]
    shelf.annotated = {2: ids[1]}
    old, heard = find_old(client, PROJECT, NEW), []
    assert sorted(old, key=lambda version: version.name) == [
        OldVersion(f"{OLD}.1", (ids[0], ids[2]), 1),
        OldVersion(f"{OLDER}.1", tuple(ids[3:6]), 0),
    ]
    assert sum(versions(shelf).values()) == 12
    delete_old(client, PROJECT, old, lambda done, total, version: heard.append((done, total, version)))
    assert versions(shelf) == {f"{OLD}.1": 1, f"{NEW}.1": 3, "somebody else's": 3}
    assert shelf.rows("SELECT id FROM prediction WHERE model_version = ?", f"{OLD}.1") == [(ids[1],)]
    assert heard[-1][:2] == (5, 5)
    assert {version for _, _, version in heard} == {f"{OLD}.1", f"{OLDER}.1"}
    # The real one unsets it as well.
    assert shelf.model_version == "ris"


def test_what_label_studio_orders_by_stays(shelf: Shelf, client: LabelStudio) -> None:
    for version in (f"{OLD}.1", f"{OLDER}.1"):
        shelf.predict(1, version, 0.5)
    shelf.model_version = f"{OLD}.1"
    prune(client)
    assert (versions(shelf), shelf.model_version) == ({f"{OLD}.1": 1}, f"{OLD}.1")


def test_killed_before_the_version_was_set_again_the_next_run_sets_it(
    shelf: Shelf, client: LabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (f"{OLD}.1", f"{OLDER}.1"):
        shelf.predict(1, version, 0.5)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LabelStudio, "update_project", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(client)
    assert (len(versions(shelf)), shelf.model_version) == (1, None)
    prune(client)
    assert (versions(shelf), shelf.model_version) == ({}, "ris")


def test_broken_off_it_goes_on_with_what_is_left(
    shelf: Shelf, client: LabelStudio, monkeypatch: pytest.MonkeyPatch
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
            prune(client)
    assert versions(shelf) == {f"{OLD}.1": 3}
    prune(client)
    assert shelf.rows("SELECT id FROM prediction") == [(1,)]


def test_nothing_old_is_an_empty_list(shelf: Shelf, client: LabelStudio) -> None:
    assert prune(client) == []


def test_the_name_of_a_zero_shot_segmenter_in_production_is_spared() -> None:
    production = "owlv2+sam2-0000000a"
    assert not is_old(f"{production}.3fa2c1", production, None)
    assert is_old("owlv2+sam2-0000000b.3fa2c1", production, None)
    assert is_old(f"{OLD}.3fa2c1", production, None)
