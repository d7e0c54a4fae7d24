"""The designs and their switches, by name."""

from collections.abc import Callable
from typing import Any

from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.haris import HARIS, HARISOptions
from ris_core.models.lda import LDA, LDAOptions
from ris_core.models.maris import MARIS, MARISOptions
from ris_core.models.output import Output
from ris_core.models.vipa import VIPA, VIPAOptions

MODELS: dict[str, Callable[..., RISModel]] = {model.name: model for model in (VIPA, MARIS, HARIS, LDA)}
OPTIONS: dict[str, type[Any]] = {
    VIPA.name: VIPAOptions,
    MARIS.name: MARISOptions,
    HARIS.name: HARISOptions,
    LDA.name: LDAOptions,
}

__all__ = [
    "HARIS",
    "LDA",
    "MARIS",
    "MODELS",
    "OPTIONS",
    "VIPA",
    "HARISOptions",
    "ImageEmbedding",
    "LDAOptions",
    "MARISOptions",
    "Output",
    "RISModel",
    "VIPAOptions",
]
