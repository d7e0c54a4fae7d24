"""A detector and a mask decoder as one network (as in Grounded SAM, Ren et al. 2024, arXiv 2401.14159).

The detector finds boxes by words, the mask decoder draws what is in them; clicks go to the mask decoder alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ris_core.inference.frame import Image
from ris_core.inference.segmenter import PreparedImage
from ris_core.zero_shot.detector import Boxes, Detector
from ris_core.zero_shot.mask_decoder import MaskDecoder
from ris_core.zero_shot.network import Drawn, Found, Pointed, ZeroShotNetwork
from ris_core.zero_shot.suppression import distinct_boxes

# Things of one sentence, at most: each costs a pass of the mask decoder.
_MOST = 64


class Grounded(ZeroShotNetwork):
    """Of a photo what the detector keeps is in `levels`, and what the mask decoder keeps in `interactive`."""

    clickable = True

    def __init__(self, detector: Detector, mask_decoder: MaskDecoder) -> None:
        super().__init__()
        self.detector = detector
        self.mask_decoder = mask_decoder

    def encode(self, images: Sequence[Image]) -> list[PreparedImage]:
        """As `ZeroShotNetwork.encode`; the frame is the mask decoder's."""
        kept, drawable = self.detector.encode(images), self.mask_decoder.encode(images)
        return [PreparedImage([own], one.frame, one.levels) for own, one in zip(kept, drawable, strict=True)]

    def find(self, image: PreparedImage, sentences: Sequence[str], least: float) -> list[Found]:
        """As `ZeroShotNetwork.find`; a box with a score below `least` still counts for presence."""
        return [self._find(image, boxes, least) for boxes in self.detector.detect(image.levels[0], sentences)]

    def _find(self, image: PreparedImage, found: Boxes, least: float) -> Found:
        # What lies beside the photo, or has no inside, can't be drawn, and isn't there.
        inside = (found.boxes[:, 2:] > found.boxes[:, :2]).all(dim=1)
        boxes, scores = found.boxes[inside], found.scores[inside]
        presence = float(scores.max()) if len(scores) else 0.0
        boxes, scores = boxes[scores >= least], scores[scores >= least]
        kept = distinct_boxes(boxes, scores, _MOST)
        drawn = self.draw(image, _pointed(boxes[kept], image))
        if not drawn:
            empty = torch.zeros(0, device=self.device)
            return Found(empty.reshape(0, 1, 1), empty, empty, presence)
        masks = torch.stack([one.mask for one in drawn])
        qualities = torch.tensor([one.quality for one in drawn], device=self.device).clamp(0, 1)
        return Found(masks, scores[kept], qualities, presence)

    def features(self, image: PreparedImage) -> Tensor:
        """As `ZeroShotNetwork.features`, the mask decoder's."""
        return self.mask_decoder.features(PreparedImage(image.interactive, image.frame))

    def draw(self, image: PreparedImage, pointed: Sequence[Pointed]) -> list[Drawn]:
        """As `ZeroShotNetwork.draw`."""
        return self.mask_decoder.draw(image.interactive[0], pointed)


def _pointed(boxes: Tensor, image: PreparedImage) -> list[Pointed]:
    """(K, 4) shares of the photo -> each as somebody would draw it."""
    rows, columns = image.frame.inner
    sides = boxes * torch.tensor([columns, rows] * 2, device=boxes.device)
    nowhere = torch.zeros(0, 2, device=boxes.device), torch.zeros(0, dtype=torch.long, device=boxes.device)
    return [Pointed(*nowhere, box=own) for own in sides]
