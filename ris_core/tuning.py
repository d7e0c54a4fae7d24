"""What is trained of the encoders. Without torch: commands name their options after it; `encoders.adapters` does it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ris_core.errors import InputError

TunedEncoders: TypeAlias = Literal["frozen", "adapters", "full"]


@dataclass(frozen=True)
class Tuning:
    """What is trained of the encoders.

    encoders: "frozen", "adapters" (parameter-efficient) or "full".
    stages, text_stages: the last stages of the image and of the text encoder that get adapters; more than there are is
        all. With a `text_stages` of 0 the text encoder stays frozen, though the image encoder be trained in full.
    rank: of the adapters' matrices.
    """

    encoders: TunedEncoders = "frozen"
    stages: int = 1
    text_stages: int = 1
    rank: int = 8

    def __post_init__(self) -> None:
        if self.stages < 1 or self.rank < 1:
            raise InputError(f"Adapters need a stage and a rank of 1 or more, not {self.stages} and {self.rank}.")
