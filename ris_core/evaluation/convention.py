"""How a model is measured. Without torch: commands name their options after it; `evaluate` does it.

Two conventions. "original": at the photo's own size and at the operating point. "lavt", for tables whose rows follow
LAVT's code: photo and target are resized to a square without padding, compared there, a pixel belongs to the mask from
P = 0.5, and no sentence is refused unless its mask is empty.
"""

from typing import Literal, TypeAlias

Convention: TypeAlias = Literal["original", "lavt"]

ACCEPTED = 0.95
"""The share of the targets of a validation split that an operating point is to answer, and not refuse."""

# People accept a mask where they would have drawn another: two people's masks of one thing agree to 0.85 to 0.9. So a
# mask that was accepted is known no better than this, and no answer to it, not even the very same mask, is worth more.
ACCEPTED_TOLERANCE = 0.85
