"""Weights are fetched whole or not at all: wrong, cut short, killed half way, twice at once, from the hub."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from encoders import servers, tiny
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertModel

from ris_core.encoders import IMAGE_ENCODERS, TEXT_ENCODERS
from ris_core.encoders.bert import Bert
from ris_core.encoders.fetch import fetch
from ris_core.encoders.swin import Swin
from ris_core.encoders.weights import ORIGIN, WEIGHTS, Hub, Official, locate, pretrained, tokenizer
from ris_core.errors import CheckpointError
from ris_core.files import sha256

NAME = "sam-vit-b"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty, and so is the hub's."""
    monkeypatch.setenv("RIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    file = tmp_path / "file.pth"
    torch.save({"a": torch.arange(200_000.0), "b": torch.ones(3)}, file)
    return file


def comes_from(monkeypatch: pytest.MonkeyPatch, url: str, digest: str) -> Official:
    source = Official(url, digest, dict)
    monkeypatch.setitem(IMAGE_ENCODERS, NAME, replace(IMAGE_ENCODERS[NAME], source=source))
    return source


def visible(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def test_what_is_at_hand_needs_no_fetching() -> None:
    assert (fetch("minilm") / "model" / WEIGHTS).is_file()


def test_an_unknown_encoder_is_named() -> None:
    with pytest.raises(CheckpointError, match="no encoder 'resnet'"):
        fetch("resnet")


def test_a_download_is_checked_converted_and_found(
    checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[int, int | None]] = []
    with servers.one_file(checkpoint.read_bytes()) as (url, _):
        source = comes_from(monkeypatch, url, sha256(checkpoint))
        folder = fetch(NAME, on_progress=lambda *step: steps.append(step))
    size = checkpoint.stat().st_size
    assert steps[-1] == (size, size)
    assert folder == cache / "file" == source.find() == locate(NAME, source)
    assert load_file(folder / WEIGHTS)["b"].tolist() == [1, 1, 1]
    assert sorted(visible(folder)) == [WEIGHTS, ORIGIN]


def test_fetching_again_does_nothing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.one_file(checkpoint.read_bytes()) as (url, requests):
        comes_from(monkeypatch, url, sha256(checkpoint))
        assert fetch(NAME) == fetch(NAME)
    assert len(requests) == 1


def test_two_at_once_download_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.one_file(checkpoint.read_bytes()) as (url, requests), ThreadPoolExecutor(2) as pool:
        comes_from(monkeypatch, url, sha256(checkpoint))
        first, second = pool.map(fetch, [NAME, NAME])
    assert first == second
    assert len(requests) == 1


def test_a_file_takes_the_place_of_a_download(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comes_from(monkeypatch, "http://127.0.0.1:9/file.pth", sha256(checkpoint))
    assert (fetch(NAME, checkpoint) / WEIGHTS).is_file()
    assert checkpoint.is_file()


def test_no_network_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    comes_from(monkeypatch, "http://127.0.0.1:9/file.pth", "0")
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:9/file\.pth can't be downloaded.*--file FILE"):
        fetch(NAME)
    assert not visible(cache)


def test_a_missing_page_is_told(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.one_file(checkpoint.read_bytes()) as (url, _):
        comes_from(monkeypatch, url + "x", "0")
        with pytest.raises(CheckpointError, match=r"can't be downloaded.*404"):
            fetch(NAME)


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_file_cut_short_is_refused(
    checkpoint: Path, cut: int, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comes_from(monkeypatch, "http://127.0.0.1:9/file.pth", sha256(checkpoint))
    short = tmp_path / "short.pth"
    short.write_bytes(checkpoint.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"short\.pth isn't the published file, or not all of it: its SHA-256 is"):
        fetch(NAME, short)
    assert not visible(cache)


def test_a_file_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comes_from(monkeypatch, "http://127.0.0.1:9/file.pth", "0")
    with pytest.raises(CheckpointError, match=r"nowhere\.pth can't be read: No such file"):
        fetch(NAME, tmp_path / "nowhere.pth")


def test_a_folder_that_cannot_be_written_is_told(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("RIS_CACHE", str(tmp_path / "a-file" / "cache"))
    comes_from(monkeypatch, "http://127.0.0.1:9/file.pth", sha256(checkpoint))
    with pytest.raises(CheckpointError, match=r"a-file/cache/file can't be written"):
        fetch(NAME, checkpoint)


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("was-run",)


_CONTENTS = {"text": b"no checkpoint", "code": pickle.dumps(_Code(), 2), "list": pickle.dumps([1, 2], 2)}


@pytest.mark.parametrize("content", _CONTENTS.values(), ids=_CONTENTS)
def test_nothing_but_tensors_is_unpickled(
    content: bytes, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file.pth"
    file.write_bytes(content)
    comes_from(monkeypatch, "http://127.0.0.1:9/file.pth", sha256(file))
    with pytest.raises(CheckpointError, match=r"file\.pth (can't be read as a checkpoint|holds something else)"):
        fetch(NAME, file)
    assert not (tmp_path / "was-run").exists()
    assert not visible(cache)


@pytest.mark.parametrize("part", [WEIGHTS, ORIGIN])
def test_a_damaged_copy_is_refused_and_fetched_again(
    part: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = comes_from(monkeypatch, "http://127.0.0.1:9/file.pth", sha256(checkpoint))
    damaged = fetch(NAME, checkpoint) / part
    damaged.write_bytes(damaged.read_bytes()[:-3] + b"\0\0\0")
    with pytest.raises(CheckpointError, match=r"isn't the file that sam-vit-b was fetched with.*ris fetch sam-vit-b"):
        locate(NAME, source)
    assert fetch(NAME, checkpoint) == locate(NAME, source)


def test_killed_half_way_leaves_nothing_half_done(
    checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys\n"
        "from dataclasses import replace\n"
        "from ris_core.encoders import IMAGE_ENCODERS\n"
        "from ris_core.encoders.fetch import fetch\n"
        "from ris_core.encoders.weights import Official\n"
        f"entry = IMAGE_ENCODERS[{NAME!r}]\n"
        f"IMAGE_ENCODERS[{NAME!r}] = replace(entry, source=Official(sys.argv[1], sys.argv[2], dict))\n"
        f"fetch({NAME!r}, on_progress=lambda done, _: print(done, flush=True))\n"
    )
    stalled = threading.Event()
    with servers.one_file(checkpoint.read_bytes(), stalled) as (url, _):
        command = [sys.executable, "-c", code, url, sha256(checkpoint)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"RIS_CACHE": str(cache)}) as process:
            assert process.stdout is not None
            assert int(process.stdout.readline()) > 0
            process.send_signal(signal.SIGKILL)
        stalled.set()
    left = [path for path in cache.iterdir() if path.is_dir()]
    assert len(left) == 1
    assert not visible(cache)
    source = comes_from(monkeypatch, url, sha256(checkpoint))
    assert source.find() is None
    assert fetch(NAME, checkpoint) == source.find()
    assert not left[0].exists()


def as_pickled(commit: Path) -> Path:
    """As the hub has CLIP and Swin: without safetensors, and with whole numbers that no network reads any more."""
    unread = {"swin.encoder.layers.0.blocks.0.attention.self.relative_position_index": torch.arange(4)}
    torch.save(load_file(commit / WEIGHTS) | unread, commit / "pytorch_model.bin")
    (commit / WEIGHTS).unlink()
    return commit


def levels(encoder: Swin) -> list[Tensor]:
    return encoder(tiny.pixels())


def test_a_copy_of_a_commit_takes_the_place_of_the_hub(tmp_path: Path) -> None:
    expected = levels(tiny.image("swin", tmp_path / "commit"))
    fetch("swin-base", as_pickled(tmp_path / "commit"))
    assert all(torch.equal(a, b) for a, b in zip(levels(Swin.load("swin-base")), expected, strict=True))


def test_a_copy_of_a_commit_that_lacks_a_file_is_refused(tmp_path: Path, cache: Path) -> None:
    commit = as_pickled(tiny.save_swin(tmp_path / "commit"))
    (commit / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"isn't a copy of hub microsoft/swin-base.*: config\.json is missing"):
        fetch("swin-base", commit)
    with pytest.raises(CheckpointError, match=r"isn't a copy of hub microsoft/swin-tiny"):
        fetch("swin-tiny", commit)
    assert not visible(cache)


def test_weights_of_the_hub_have_the_published_digest(tmp_path: Path) -> None:
    for name, commit in (
        ("swin-tiny", tiny.save_swin(tmp_path / "swin")),
        ("bert-base", tiny.save_bert(tmp_path / "b")),
    ):
        with pytest.raises(CheckpointError, match=r"model\.safetensors isn't the published file"):
            fetch(name, commit)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin isn't the published file"):
        fetch("clip-text-b16", as_pickled(tiny.save_clip(tmp_path / "clip")))


def test_weights_that_are_not_at_hand_are_told_with_the_command(cache: Path, tmp_path: Path) -> None:
    for name in ("sam-vit-b", "swin-base", "clip-vit-b16"):
        with pytest.raises(
            CheckpointError, match=rf"{name}.*aren't on this machine: looked in {cache}.*ris fetch {name}"
        ):
            IMAGE_ENCODERS[name].load()
    with pytest.raises(CheckpointError, match=f"and in {tmp_path / 'hub'}"):
        IMAGE_ENCODERS["swin-tiny"].load()


def test_from_the_hub(tmp_path: Path) -> None:
    """Through the hub's own client, in a process of its own since it reads its address when imported; then offline."""
    bert = tiny.save_bert(tmp_path / "bert")
    swin, text = IMAGE_ENCODERS["swin-base"].source, TEXT_ENCODERS["bert-base"].source
    assert isinstance(swin, Hub) and isinstance(text, Hub)
    expected = levels(tiny.image("swin", tmp_path / "swin"))
    commits = {(swin.repo, swin.revision): as_pickled(tmp_path / "swin"), (text.repo, text.revision): bert}
    code = (
        "import socket, sys\n"
        "from dataclasses import replace\n"
        "import torch\n"
        "from ris_core.encoders import IMAGE_ENCODERS, TEXT_ENCODERS\n"
        "from ris_core.encoders.bert import Bert\n"
        "from ris_core.encoders.fetch import fetch\n"
        "entry = TEXT_ENCODERS['bert-base']\n"
        "source = replace(entry.source, digest=sys.argv[1])\n"
        "TEXT_ENCODERS['bert-base'] = replace(entry, source=source, load=lambda: Bert.load(source))\n"
        "fetch('bert-base'), fetch('swin-base')\n"
        "socket.socket.connect = None\n"
        "fetch('bert-base'), fetch('swin-base')\n"
        "words = TEXT_ENCODERS['bert-base'].load()(['the cat']).words\n"
        "levels = IMAGE_ENCODERS['swin-base'].load()(torch.load(sys.argv[2]))\n"
        "torch.save([words, *levels], sys.argv[3])\n"
    )
    torch.save(tiny.pixels(), tmp_path / "pixels.pt")
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with servers.hub(commits) as address:
        subprocess.run(
            [
                sys.executable,
                "-W",
                "error",
                "-c",
                code,
                sha256(bert / WEIGHTS),
                tmp_path / "pixels.pt",
                tmp_path / "found.pt",
            ],
            check=True,
            timeout=100,
            env=os.environ | environment | {"HF_ENDPOINT": address},
            capture_output=True,
        )
    words, *found = torch.load(tmp_path / "found.pt")
    assert torch.equal(words, Bert("bert", tokenizer(bert), pretrained(BertModel, bert))(["the cat"]).words)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    # Nothing that is pickled stays.
    assert not list(tmp_path.glob("home/**/*.bin")) and not list(tmp_path.glob("cache/**/*.bin"))


def test_swin_of_another_size_is_refused(tmp_path: Path) -> None:
    """A commit whose configuration and weights don't belong together."""
    commit = tiny.save_swin(tmp_path / "commit")
    config = (commit / "config.json").read_text()
    (commit / "config.json").write_text(config.replace('"embed_dim": 16', '"embed_dim": 32'))
    fetch("swin-base", as_pickled(commit))
    with pytest.raises(CheckpointError, match=r"doesn't hold the weights of a SwinModel: .* is \(.*\), not \(.*\) and"):
        Swin.load("swin-base")
