"""What the frozen stages of an image encoder make of training views, kept on disk: computed once, read many times.

A cache: deleting it costs time and nothing else. A file's name covers all that shaped its content.
"""

import hashlib
import math
import os
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ris_core.encoders.base import ImageEncoder, Trunk, fingerprint
from ris_core.files import atomic_write, sha256
from ris_core.training.augment import View
from ris_core.training.recipe import Recipe, TrainingPrecision


class FeatureCache:
    """Trunks by photo and view, in float16: half the bytes, and finer than what training does to them."""

    def __init__(
        self,
        folder: Path,
        encoder: ImageEncoder,
        max_bytes: int | None = None,
        precision: TrainingPrecision = Recipe.precision,
    ) -> None:
        """Of `encoder`, only its stem and frozen stages matter; `precision` is what it runs in.

        The folder may hold `max_bytes`: what was read longest ago is deleted, and a full one isn't added to.
        """
        frozen = nn.ModuleList(encoder.stages[: encoder.frozen])
        stages = {id(stage) for stage in encoder.stages}
        others = [child for child in encoder.children() if id(child) not in stages and child is not encoder.stages]
        self._folder = folder
        self._encoder = f"{fingerprint(nn.ModuleList([frozen, *others]))} {precision}"
        # Room is made now and not while it is used: passes read all of it in turn, so the oldest is needed next.
        self._room = math.inf if max_bytes is None else max_bytes - prune(folder, max_bytes // 2)

    def key(self, photo: Path, view: View) -> str:
        """Under which the trunk of a view is kept."""
        text = f"{self._encoder} {_content(photo)} {view.key()}"
        return hashlib.sha256(text.encode()).hexdigest()

    def read(self, key: str) -> Trunk | None:
        """The trunk of one view, if it is there and whole."""
        path = self._path(key)
        try:
            tensors = load(path.read_bytes())
            os.utime(path)
        except (OSError, SafetensorError):
            return None
        return _trunk(tensors)

    def write(self, key: str, trunk: Trunk) -> Trunk:
        """Keep the trunk of one view, (1, C, H, W) a level, if there is room -> the trunk as it would be read."""
        tensors = {f"level.{number}": level for number, level in enumerate(trunk.levels)}
        # After a stage the state mostly is that stage's level.
        if not trunk.levels or trunk.state is not trunk.levels[-1]:
            state = (trunk.state,) if isinstance(trunk.state, Tensor) else trunk.state
            tensors |= {f"state.{number}": part for number, part in enumerate(state)}
        halves = {name: tensor.detach().cpu().half().contiguous() for name, tensor in tensors.items()}
        data = save(halves)
        if len(data) <= self._room:
            self._room -= len(data)
            atomic_write(self._path(key), data)
        return _trunk(halves)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"


def prune(folder: Path, max_bytes: int) -> int:
    """Where a cache holds more than `max_bytes`, delete what was read longest ago -> the bytes that are left."""
    files = [(path.stat(), path) for path in folder.rglob("*") if path.is_file()]
    left = sum(status.st_size for status, _ in files)
    for status, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
        if left <= max_bytes:
            break
        path.unlink(missing_ok=True)
        left -= status.st_size
    return left


def _trunk(tensors: dict[str, Tensor]) -> Trunk:
    parts = {name: tensor.float() for name, tensor in tensors.items()}
    levels = tuple(parts[f"level.{number}"] for number in range(sum(name.startswith("level") for name in parts)))
    state = tuple(parts[name] for name in sorted(parts) if name.startswith("state"))
    return Trunk(levels, (state if len(state) > 1 else state[0]) if state else levels[-1])


def join_trunks(trunks: list[Trunk]) -> Trunk:
    """B trunks of one photo -> one of B."""
    columns = zip(*(_parts(trunk) for trunk in trunks), strict=True)
    return _rebuild(trunks[0], [[torch.cat(same) for same in zip(*parts, strict=True)] for parts in columns])


def move_trunk(trunk: Trunk, device: torch.device) -> Trunk:
    """The same trunk on `device`."""
    return _rebuild(trunk, [[part.to(device) for part in parts] for parts in _parts(trunk)])


def _parts(trunk: Trunk) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    return trunk.levels, (trunk.state,) if isinstance(trunk.state, Tensor) else trunk.state


def _rebuild(like: Trunk, parts: list[list[Tensor]]) -> Trunk:
    levels, state = map(tuple, parts)
    if like.levels and like.state is like.levels[-1]:
        return Trunk(levels, levels[-1])
    return Trunk(levels, state[0] if isinstance(like.state, Tensor) else state)


@lru_cache(maxsize=100_000)
def _content(photo: Path) -> str:
    return sha256(photo)
