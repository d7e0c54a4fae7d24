"""The zero-shot segmenters by name: what each is made of, where that comes from, what it takes. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ris_core.errors import CheckpointError


@dataclass(frozen=True)
class Source:
    """Published weights on the Hugging Face hub.

    revision: a commit; None where none is known for sure: fetching asks the hub for the newest, and the pointer pins
    it. file: of the weights. beside: what else loading reads. megabytes: of the file, about. licence: its short name.
    free: whether it may be used without being asked first. gated: whether its owners grant access one by one.
    """

    repo: str
    revision: str | None
    licence: str
    megabytes: int
    file: str = "model.safetensors"
    beside: tuple[str, ...] = ("config.json",)
    free: bool = True
    gated: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The files that are taken."""
        return (self.file, *self.beside)


@dataclass(frozen=True)
class ZeroShotEntry:
    """sources: by part. memory: of machine or GPU while it answers, in MB, about. clicks: whether it takes them.

    thresholds: those of `OperatingPoint` that it begins with, as its users have them.
    """

    name: str
    sources: dict[str, Source]
    memory: int
    clicks: bool
    good_for: str
    thresholds: Mapping[str, Any]

    @property
    def disk(self) -> int:
        """MB, about."""
        return sum(source.megabytes for source in self.sources.values())

    @property
    def missing(self) -> str:
        """What to tell who asks for it where its weights aren't: what to run, and what that takes."""
        gated = " Its owners grant access one by one: `ris fetch` says how to ask." if self.gated else ""
        return (
            f"The weights of {self.name} aren't on this machine. Run `ris fetch {self.name}`: they take "
            f"{_gigabytes(self.disk)} of disk, and {_gigabytes(self.memory)} of memory while it answers.{gated}"
        )

    @property
    def gated(self) -> bool:
        """Whether the owners of a part grant access one by one."""
        return any(source.gated for source in self.sources.values())


def _gigabytes(megabytes: int) -> str:
    return f"{megabytes / 1000:.1f} GB"


_TEXT = ("config.json", "tokenizer.json", "tokenizer_config.json")
_DINO = Source(
    "IDEA-Research/grounding-dino-tiny", "a2bb814dd30d776dcf7e30523b00659f4f141c71", "Apache-2.0", 690, beside=_TEXT
)
_SAM2 = Source("facebook/sam2.1-hiera-tiny", None, "Apache-2.0", 160)
_SAM = Source("facebook/sam-vit-base", None, "Apache-2.0", 375)
_OWL = Source(
    "google/owlv2-base-patch16-ensemble", "cfd3195ba4ea9592eec887ded089f4c08eff231d", "Apache-2.0", 620, beside=_TEXT
)
_CLIPSEG = Source(
    "CIDAS/clipseg-rd64",
    "d5742706ddaa1cf7493b9785958bb16da104074f",
    "Apache-2.0",
    600,
    beside=(*_TEXT, "preprocessor_config.json"),
)
_FLORENCE = Source("florence-community/Florence-2-base", None, "MIT", 470, beside=_TEXT)
_SAM3 = Source(
    "facebook/sam3",
    "3c879f39826c281e95690f02c7821c4de09afae7",
    "SAM License",
    3300,
    beside=_TEXT,
    free=False,
    gated=True,
)

# A thing that a detector found is there.
_DINO_POINT, _OWL_POINT = ({"presence": least, "instance": least} for least in (0.35, 0.2))
_SAM3_POINT, _CLIPSEG_POINT = {"instance": 0.5}, {"mask": 0.4, "presence": 0.4}

CATALOGUE = {
    entry.name: entry
    for entry in (
        ZeroShotEntry(
            "grounding-dino+sam2", {"detector": _DINO, "masks": _SAM2}, 2400, True, "things by name", _DINO_POINT
        ),
        ZeroShotEntry(
            "grounding-dino+sam", {"detector": _DINO, "masks": _SAM}, 4500, True, "things by name", _DINO_POINT
        ),
        ZeroShotEntry("owlv2+sam2", {"detector": _OWL, "masks": _SAM2}, 1500, True, "many names at once", _OWL_POINT),
        ZeroShotEntry("sam3", {"model": _SAM3}, 5600, True, "every thing of a kind", _SAM3_POINT),
        ZeroShotEntry("clipseg", {"model": _CLIPSEG}, 1100, False, "rough masks on a CPU", _CLIPSEG_POINT),
        ZeroShotEntry("florence-2", {"model": _FLORENCE}, 2800, False, "full sentences", {}),
    )
}


def find_zero_shot(name: str) -> ZeroShotEntry:
    """The entry of that name. Raises CheckpointError if there is none."""
    if name not in CATALOGUE:
        raise CheckpointError(f"There is no zero-shot segmenter {name!r}. Choose from {', '.join(CATALOGUE)}.")
    return CATALOGUE[name]
