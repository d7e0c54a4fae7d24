"""SAM 3 (Carion et al. 2025, arXiv 2511.16719; SAM License): every thing of a kind by words, one thing by clicks.

Its two halves, the detector for words and the tracker for clicks, share a vision transformer, which sees a photo once;
each has a neck of its own, which makes levels of what that saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ris_core.encoders.weights import pretrained, tokenizer
from ris_core.inference.frame import Frame, Image
from ris_core.inference.passes import in_batches
from ris_core.inference.segmenter import PreparedImage
from ris_core.zero_shot.mask_decoder import MaskDecoder
from ris_core.zero_shot.network import Drawn, Found, Pointed, ZeroShotNetwork, square_map
from ris_core.zero_shot.pixels import Scale, normalised, resized, stretched_frame

Made = TypeVar("Made")

# From [0, 255] to [-1, 1].
_SCALE: Scale = (127.5,) * 3, (127.5,) * 3


class Sam3(ZeroShotNetwork):
    """Of a photo what the vision transformer saw is kept, a fifth of what the levels would take."""

    clickable = True

    def __init__(self, detector: Any, tracker: Any, words: Any) -> None:
        """detector: Sam3Model. tracker: Sam3TrackerModel, whose vision transformer gives way to the detector's.

        words: the tokenizer.
        """
        super().__init__()
        self.detector = detector
        self.side = detector.config.vision_config.backbone_config.image_size
        tracker.vision_encoder.backbone = detector.vision_encoder.backbone
        self.clicks = _Clicks(tracker, self.side)
        self._words = words
        self._for_words = _Latest(self._levels)
        self._for_clicks = _Latest(self.clicks.levels)

    @classmethod
    def load(cls, folder: Path) -> Sam3:
        """From the files of the hub. Raises CheckpointError if one is missing or damaged."""
        from transformers import Sam3Model, Sam3TrackerModel  # noqa: PLC0415 - takes seconds

        tracker: Any = pretrained(Sam3TrackerModel, folder)
        # More than half of all weights, which needn't be in memory twice even for the time of loading.
        tracker.vision_encoder.backbone = nn.Identity()
        return cls(pretrained(Sam3Model, folder), tracker, tokenizer(folder))

    def encode(self, images: Sequence[Image]) -> list[PreparedImage]:
        """As `ZeroShotNetwork.encode`; the frame is the whole canvas, whatever a photo's shape."""
        frames = [stretched_frame(image, self.side) for image in images]
        pixels = torch.stack([normalised(resized(image, (self.side, self.side)), _SCALE) for image in images])
        seen = self.clicks.see(pixels.to(self.device, self.dtype))
        return [PreparedImage([(seen[number : number + 1].clone(),)], frame) for number, frame in enumerate(frames)]

    def find(self, image: PreparedImage, sentences: Sequence[str], least: float) -> list[Found]:
        """As `ZeroShotNetwork.find`; it says of no mask how good it is."""
        levels = self._for_words(image.levels[0][0])
        # Each sentence needs the levels for itself, so that as many go together as photos do.
        return list(in_batches(sentences, self.photos_together, lambda some: self._find(levels, some, least)))

    def _find(self, levels: _Levels, sentences: Sequence[str], least: float) -> list[Found]:
        attended, words = self._read(sentences)
        seen = levels.times(len(sentences))
        output = self.detector(vision_embeds=seen, text_embeds=words, attention_mask=attended)
        presences = output.presence_logits[:, 0].float().sigmoid()
        scores = output.pred_logits.float().sigmoid() * presences[:, None]
        return [
            _found(masks, own, float(presence), least)
            for masks, own, presence in zip(output.pred_masks, scores, presences, strict=True)
        ]

    def _read(self, sentences: Sequence[str]) -> tuple[Tensor, Any]:
        """Which places hold words, and what the text encoder makes of them; of too long a sentence the first ones."""
        longest = self.detector.config.text_config.max_position_embeddings
        tokens = self._words(
            list(sentences), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        ).to(self.device)
        text = self.detector.get_text_features(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        return tokens.attention_mask, text

    def _levels(self, seen: Tensor) -> _Levels:
        """(1, C, h, w) -> what the detector's neck makes of it."""
        return _Levels(*self.detector.vision_encoder.neck(seen))

    def features(self, image: PreparedImage) -> Tensor:
        """As `ZeroShotNetwork.features`: what the vision transformer saw."""
        return image.levels[0][0][0]

    def draw(self, image: PreparedImage, pointed: Sequence[Pointed]) -> list[Drawn]:
        """As `ZeroShotNetwork.draw`."""
        return self.clicks.draw(self._for_clicks(image.levels[0][0]), pointed)


class _Levels(NamedTuple):
    """As the detector takes them in the place of pixels: levels (N, C, h, w), and the positions of their cells."""

    fpn_hidden_states: Sequence[Tensor]
    fpn_position_encoding: Sequence[Tensor]
    hidden_states: None = None
    attentions: None = None

    def times(self, count: int) -> _Levels:
        """Those of one photo for as many sentences; nothing is copied."""
        maps, positions = ([level.expand(count, -1, -1, -1) for level in kind] for kind in self[:2])
        return _Levels(maps, positions)


class _Clicks(MaskDecoder):
    """The tracker, of photos alone."""

    def __init__(self, network: Any, side: int) -> None:
        """network: Sam3TrackerModel."""
        super().__init__()
        self.network = network
        self.side = side

    def frame(self, image: Image) -> Frame:
        """As `MaskDecoder.frame`."""
        return stretched_frame(image, self.side)

    def see(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) normalised -> what the vision transformer makes of it, (B, C, h, w)."""
        return square_map(self.network.vision_encoder.backbone(pixels).last_hidden_state)

    def levels(self, seen: Tensor) -> tuple[Tensor, ...]:
        """What `see` made -> the three levels that the decoder reads, the deepest last."""
        decoder = self.network.mask_decoder
        fine, middle, deep, _ = self.network.vision_encoder.neck(seen)[0]
        # Sam3TrackerModel adds this to the fourth level, and drops that level then; the decoder learnt with it on the
        # third, where Sam3TrackerVideoModel adds it.
        without_memory = self.network.no_memory_embedding.reshape(1, -1, 1, 1)
        return decoder.conv_s0(fine), decoder.conv_s1(middle), deep + without_memory

    def embed(self, pixels: Tensor) -> Sequence[Tensor]:
        """As `MaskDecoder.embed`."""
        return self.levels(self.see(pixels))

    def decode(self, embedding: Sequence[Tensor], **prompts: Any) -> tuple[Tensor, Tensor]:
        """As `MaskDecoder.decode`."""
        output = self.network(image_embeddings=list(embedding), **prompts)
        return output.pred_masks[:, 0], output.iou_scores[:, 0]


class _Latest(Generic[Made]):
    """What was last made of a photo: its prompts come one after the other, that of all photos would fill memory."""

    def __init__(self, make: Callable[[Tensor], Made]) -> None:
        self._make = make
        self._kept: tuple[Tensor, Made] | None = None

    def __call__(self, seen: Tensor) -> Made:
        # Read and replaced at once: threads that ask about several photos only make it more often.
        kept = self._kept
        if kept is None or kept[0] is not seen:
            self._kept = kept = seen, self._make(seen)
        return kept[1]


def _found(masks: Tensor, scores: Tensor, presence: float, least: float) -> Found:
    """masks (Q, h, w) and scores (Q,) of a sentence's queries -> the sure ones."""
    sure = scores >= least
    return Found(masks[sure].float(), scores[sure], torch.ones_like(scores[sure]), presence)
