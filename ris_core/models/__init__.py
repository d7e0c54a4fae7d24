"""The designs and their switches, by name."""

from typing import Any

from ris_core.models.base import RISModel
from ris_core.models.haris import HARIS
from ris_core.models.lda import LDA
from ris_core.models.maris import MARIS
from ris_core.models.vipa import VIPA

MODELS: dict[str, type[RISModel]] = {model.name: model for model in (VIPA, MARIS, HARIS, LDA)}
OPTIONS: dict[str, type[Any]] = {name: model.switches for name, model in MODELS.items()}
