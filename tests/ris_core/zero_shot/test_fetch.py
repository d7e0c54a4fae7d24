"""Weights and pointer are fetched whole or not at all: from the hub, from a folder, killed, cut, gated, twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from encoders import servers
from pointers import make_commit

from ris_core import checkpoint_files
from ris_core.errors import CheckpointError
from ris_core.files import sha256
from ris_core.zero_shot.fetch import fetch_zero_shot
from ris_core.zero_shot.parts import ORIGIN
from ris_core.zero_shot.pointer import part_folder, parts_of
from ris_core.zero_shot_catalogue import CATALOGUE

NAME = "grounding-dino+sam2"
DINO, SAM2 = CATALOGUE[NAME].sources["detector"], CATALOGUE[NAME].sources["masks"]
NEWEST = "c0ffee" + "0" * 34


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    for part, source in CATALOGUE[NAME].sources.items():
        make_commit(source, tmp_path / "copies" / part)
    return tmp_path / "copies"


@pytest.fixture
def commits(tmp_path: Path) -> dict[tuple[str, str], Path]:
    assert DINO.revision
    return {
        (DINO.repo, DINO.revision): make_commit(DINO, tmp_path / "dino", 50_000),
        (SAM2.repo, "0" * 40): make_commit(SAM2, tmp_path / "older"),
        (SAM2.repo, NEWEST): make_commit(SAM2, tmp_path / "sam2"),
    }


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def nothing_in(cache: Path) -> bool:
    return not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


_CODE = (
    "import sys\n"
    "from ris_core.errors import CheckpointError\n"
    "from ris_core.zero_shot.fetch import fetch_zero_shot\n"
    "for name in sys.argv[1:]:\n"
    "    try:\n"
    "        print(fetch_zero_shot(name, on_note=print))\n"
    "    except CheckpointError as error:\n"
    "        sys.exit(str(error))\n"
    "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
)


def start(address: str, *names: str, **variables: str) -> subprocess.Popen[str]:
    """Fetch in a process of its own, for the hub's client reads its address as it is imported."""
    home = Path(os.environ["RIS_CACHE"]).parent / "hub"
    hub = variables | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-W", "error", "-c", _CODE, *names]
    return subprocess.Popen(
        command,
        env=os.environ | hub | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def fetched(address: str, *names: str, **variables: str) -> tuple[int, str, str]:
    with start(address, *names, **variables) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_from_the_hub(commits: dict[tuple[str, str], Path], cache: Path) -> None:
    """A commit that is known, and one that nobody knew; a part that two share comes once."""
    shared = CATALOGUE["owlv2+sam2"].sources["detector"]
    assert shared.revision
    commits[shared.repo, shared.revision] = make_commit(shared, cache.parent / "owl")
    with servers.hub(commits) as address:
        code, out, err = fetched(address, NAME, NAME, "owlv2+sam2")
        assert code == 0, err
        asked = [file for method, file, _ in servers.requests if method == "GET"]
    assert asked.count(SAM2.file) == 3
    note, first, second, other = out.splitlines()
    assert note == f"{SAM2.repo} is taken at {NEWEST}, its newest commit, and stays at that."
    assert first == second == str(checkpoint_files.find(NAME))
    assert other == str(checkpoint_files.find("owlv2+sam2"))
    parts = parts_of(Path(first))
    assert parts == {"detector": part_folder(DINO, str(DINO.revision)), "masks": part_folder(SAM2, NEWEST)}
    for part, source in CATALOGUE[NAME].sources.items():
        assert visible(parts[part]) == sorted([*source.names, ORIGIN])
    sources = checkpoint_files.read_config(Path(first))["sources"]
    assert sources["masks"]["revision"] == NEWEST
    assert sources["masks"]["files"] == {name: sha256(commits[SAM2.repo, NEWEST] / name) for name in SAM2.names}
    card = (Path(first) / checkpoint_files.CARD).read_text()
    assert all(word in card for word in (DINO.repo, str(DINO.revision), NEWEST, "Apache-2.0"))
    assert not visible(cache / "downloads")


def test_killed_while_downloading_it_goes_on_from_there(commits: dict[tuple[str, str], Path], cache: Path) -> None:
    stall = threading.Event()
    with servers.hub(commits, stall=stall) as address:
        with start(address, NAME) as process:
            while not (arrived := _arrived(cache)):
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
        assert not checkpoint_files.pointer_folder(NAME).exists()
        assert not part_folder(DINO, str(DINO.revision)).exists()
        with pytest.raises(CheckpointError, match="ris fetch"):
            checkpoint_files.find(NAME)
        stall.set()
        code, _, err = fetched(address, NAME)
        assert code == 0, err
        resumed = [first for method, file, first in servers.requests if (method, file) == ("GET", DINO.file)]
    assert max(resumed) >= arrived > 0
    assert checkpoint_files.version(checkpoint_files.find(NAME))
    parts_of(checkpoint_files.find(NAME))


def _arrived(cache: Path) -> int:
    sizes = [path.stat().st_size for path in cache.glob("downloads/*/*.safetensors")]
    return max(sizes, default=0)


def test_what_asks_for_access_is_told_in_a_sentence(tmp_path: Path, cache: Path) -> None:
    [source] = CATALOGUE["sam3"].sources.values()
    assert source.revision
    commit = make_commit(source, tmp_path / "sam3")
    with servers.hub({(source.repo, source.revision): commit}, gated=[source.repo]) as address:
        code, _, err = fetched(address, "sam3")
    assert code == 1
    assert err.strip().endswith(
        "The hub doesn't give facebook/sam3 to everybody (401): ask for access at "
        "https://huggingface.co/facebook/sam3, "
        "then run `hf auth login` or set HF_TOKEN. Or run `ris fetch sam3 --file FOLDER` with a folder that has "
        f"{', '.join(source.names)} of facebook/sam3."
    )
    assert not checkpoint_files.pointer_folder("sam3").exists()
    # Whoever has it otherwise needs no network.
    assert fetch_zero_shot("sam3", commit) == checkpoint_files.find("sam3")


def test_without_a_network_the_way_out_is_told() -> None:
    # Else the hub's client tries for half a minute.
    code, _, err = fetched("http://127.0.0.1:9", NAME, HF_HUB_OFFLINE="1")
    assert code == 1
    assert "grounding-dino-tiny@a2bb814d can't be listed" in err
    assert f"run `ris fetch {NAME} --file FOLDER` with a folder that has in detector/ model.safetensors" in err
    assert "Traceback" not in err


def test_a_damaged_or_pickled_commit_is_refused(commits: dict[tuple[str, str], Path], cache: Path) -> None:
    for folder in commits.values():
        weights = folder / DINO.file
        weights.write_bytes(weights.read_bytes()[:-4])
    with servers.hub(commits) as address:
        code, _, err = fetched(address, NAME)
        assert code == 1
        assert "isn't a safetensors file, or not all of it" in err
        assert not visible(cache / "downloads")
        for folder in commits.values():
            (folder / DINO.file).rename(folder / "pytorch_model.bin")
        code, _, err = fetched(address, NAME)
    assert code == 1
    assert "model.safetensors is missing. Its weights are pickled, and only safetensors are taken." in err


def test_copies_take_the_place_of_downloads(copies: Path, cache: Path) -> None:
    """Without a commit anywhere, the weights themselves name it."""
    folder = fetch_zero_shot(NAME, copies)
    assert checkpoint_files.is_zero_shot(folder)
    sources = checkpoint_files.read_config(folder)["sources"]
    assert sources["detector"]["revision"] == DINO.revision
    assert sources["masks"]["revision"] == sha256(copies / "masks" / SAM2.file)
    shutil.rmtree(copies)
    before = checkpoint_files.version(folder)
    assert fetch_zero_shot(NAME) == folder
    assert checkpoint_files.version(folder) == before
    parts_of(folder)


def test_a_copy_of_the_hubs_client_knows_its_commit(copies: Path) -> None:
    note = copies / "masks" / ".cache" / "huggingface" / "download" / f"{SAM2.file}.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{NEWEST}\netag\n0.0\n")
    snapshot = copies.parent / "snapshots" / str(DINO.revision)
    (copies / "detector").rename(snapshot.parent.mkdir() or snapshot)
    (copies / "detector").symlink_to(snapshot)
    sources = checkpoint_files.read_config(fetch_zero_shot(NAME, copies))["sources"]
    assert [sources[part]["revision"] for part in ("detector", "masks")] == [DINO.revision, NEWEST]


@pytest.mark.parametrize("missing", ["masks", "masks/config.json", "detector/tokenizer.json", f"detector/{DINO.file}"])
def test_copies_that_lack_something_are_refused(missing: str, copies: Path, cache: Path) -> None:
    path = copies / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=missing.rpartition("/")[2].replace(".", r"\.")):
        fetch_zero_shot(NAME, copies)
    assert nothing_in(cache)


def test_a_copy_cut_short_or_pickled_is_refused(copies: Path, cache: Path) -> None:
    weights = copies / "detector" / DINO.file
    content = weights.read_bytes()
    for cut in (0, 4, len(content) - 1):
        weights.write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=r"detector/model\.safetensors isn't a safetensors file, or not all"):
            fetch_zero_shot(NAME, copies)
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(CheckpointError, match="pickled, and only safetensors"):
        fetch_zero_shot(NAME, copies)
    with pytest.raises(CheckpointError, match="isn't a folder: it should have in detector/ model"):
        fetch_zero_shot(NAME, copies / "detector" / "config.json")
    assert nothing_in(cache)


def test_a_damaged_part_is_refused_and_fetched_again(copies: Path) -> None:
    folder = fetch_zero_shot(NAME, copies)
    before = checkpoint_files.version(folder)
    damaged = parts_of(folder)["masks"] / SAM2.file
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    with pytest.raises(CheckpointError, match=r"isn't the file that grounding-dino\+sam2 was fetched with"):
        parts_of(folder)
    assert fetch_zero_shot(NAME, copies) == folder
    parts_of(folder)
    assert checkpoint_files.version(folder) == before
    # A part alone is enough where the other is at hand.
    shutil.rmtree(copies / "detector")
    fetch_zero_shot(NAME, copies)
    (folder / checkpoint_files.CONFIG).write_text("{")
    fetch_zero_shot(NAME, copies)
    assert checkpoint_files.version(folder) == before


def test_two_at_once_make_one(copies: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(fetch_zero_shot, [NAME, NAME], [copies, copies])
    assert first == second
    parts_of(first)


def test_a_full_disk_is_told_before_anything_is_written(
    copies: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(CheckpointError, match=rf"takes 20 MB more in {cache}, where 1 MB are free. Make room"):
        fetch_zero_shot(NAME, copies)
    assert nothing_in(cache)


def test_a_folder_that_cannot_be_written_is_told(copies: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("RIS_CACHE", str(tmp_path / "a-file" / "cache"))
    with pytest.raises(CheckpointError, match=r"a-file/cache can't be written"):
        fetch_zero_shot(NAME, copies)


def test_killed_at_any_step_it_leaves_nothing_that_is_taken_for_whole(copies: Path, cache: Path) -> None:
    """Each time the process dies a few file operations later; the last time it comes to its end."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "left = [int(sys.argv[1])]\n"
        "def die(event, _):\n"
        "    if event in ('open', 'os.rename', 'os.mkdir', 'os.link', 'shutil.rmtree', 'shutil.copyfile'):\n"
        "        left[0] -= os.environ['RIS_CACHE'] in str(_)\n"
        "        if left[0] < 0:\n"
        "            os._exit(9)\n"
        "from ris_core.zero_shot.fetch import fetch_zero_shot\n"
        "import safetensors.numpy\n"
        "sys.addaudithook(die)\n"
        f"fetch_zero_shot({NAME!r}, Path(sys.argv[2]))\n"
    )
    ends = []
    for step in (0, 3, 7, 12, 16, 21, 26, 30, 35, 40, 46, 1000):
        shutil.rmtree(cache, ignore_errors=True)
        ended = subprocess.run([sys.executable, "-c", code, str(step), str(copies)], check=False, timeout=60)
        ends.append(ended.returncode)
        for source in CATALOGUE[NAME].sources.values():
            for folder in cache.glob(f"{source.repo.replace('/', '--')}-*"):
                assert json.loads((folder / ORIGIN).read_text())["files"].keys() == set(source.names)
        if checkpoint_files.pointer_folder(NAME).exists():
            parts_of(checkpoint_files.pointer_folder(NAME))
        folder = fetch_zero_shot(NAME, copies)
        parts_of(folder)
        assert not [path for path in cache.glob(".*/") if path.is_dir()], "what was left half done is swept up"
    assert ends[-1] == 0
    assert ends.count(9) >= 8
