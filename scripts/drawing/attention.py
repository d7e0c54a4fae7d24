"""What attention does on sample photos, by the weights that come with each design: maps laid over the photo.

A map's colours run from dark blue, 0, to yellow, 1, as it is: none is stretched but MARIS's, whose rows sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import torch
from drawing.measured import watched
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from backend.projects.samples import photos
from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.images import read_image
from ris_core.inference.canvas import on_canvas
from ris_core.inference.frame import Frame, fit
from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.haris import HARIS, Context, Fused, HARISLevel, HumanLikeAttention
from ris_core.models.layers import grid, grid_encoding, padding_cells, pick
from ris_core.models.lda import LDA, LanguageDrivenAttention, LDALevel
from ris_core.models.maris import MARIS, MARISLevel, MutualAwareAttention
from ris_core.models.vipa import VIPA, VIPALevel
from ris_core.overlay import PALETTE, outline, tint

Picture = NDArray[np.uint8]
TILE, GAP, CAPTION = 240, 6, 30
PAPER, INK = (251, 250, 247), (29, 39, 51)


@dataclass(frozen=True)
class Look:
    """A model that was asked one sentence about one photo.

    outputs: what each of its modules gave last, by its name.
    """

    model: RISModel
    point: OperatingPoint
    photo: Picture
    frame: Frame
    embedding: ImageEmbedding
    sentence: str
    mask: Tensor
    outputs: dict[str, Any]

    def answer(self) -> Picture:
        """The photo with the mask as the operating point has it."""
        inside = self._to_photo(torch.sigmoid(self.mask[0, 0]), cv2.INTER_LINEAR) > self.point.mask
        picture = self.photo.copy()
        tint(picture, inside, PALETTE[1])
        outline(picture, inside, PALETTE[1], max(1, max(picture.shape) // 200))
        return picture

    def heat(self, values: Tensor, grid: Tensor, cells: bool = False) -> Picture:
        """Values of a grid's cells, in [0, 1], over the grey photo; `cells`: as squares, instead of smoothed."""
        heights = values.reshape(grid.shape[-2:])
        warm = self._to_photo(heights, cv2.INTER_NEAREST if cells else cv2.INTER_LINEAR)
        colours = cv2.applyColorMap((warm.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[:, :, ::-1]
        grey = cv2.cvtColor(self.photo, cv2.COLOR_RGB2GRAY)[:, :, None]
        return np.asarray(0.4 * grey + 0.6 * colours, dtype=np.uint8)

    def _to_photo(self, values: Tensor, interpolation: int) -> NDArray[np.float32]:
        height, width = self.frame.canvas
        canvas = cv2.resize(values.numpy(), (width, height), interpolation=interpolation)
        rows, columns = self.frame.inner
        photo = cv2.resize(canvas[:rows, :columns], self.photo.shape[1::-1], interpolation=interpolation)
        return np.asarray(photo, dtype=np.float32)


@torch.inference_mode()
def look(design: str | None, photo: str, sentence: str) -> Look:
    """Ask the weights that come with a design, or the shipped ones, about a sample photo."""
    model, point = checkpoint.load(checkpoint_files.find(design), merged=True)
    image = read_image(dict(photos())[photo])
    frame = Frame.of(image, point.side, model.image_encoder.square)
    embedding = model.encode_image(*on_canvas([fit(image, frame)], [frame], torch.device("cpu")))
    text = model.encode_text([sentence])
    answer, outputs = watched(model, lambda: model(embedding, text, torch.tensor([0])))
    return Look(model, point, image, frame, embedding, sentence, answer.mask, outputs | {"text": text})


@torch.inference_mode()
def lda() -> Picture:
    """Spatial attention at three grids, for two sentences about one photo."""
    columns = []
    for sentence in ("the person", "the face"):
        seen = look(None, "astronaut.png", sentence)
        tiles = []
        for number in (3, 2, 1):
            attend = cast(LanguageDrivenAttention, cast(LDA, seen.model).attend[number])
            level = pick(cast(LDALevel, seen.embedding[number]), torch.tensor([0]))
            logits = attend.spatial_logits(level, seen.outputs["text"].sentence)
            stride = seen.model.image_encoder.strides[number]
            tiles.append((f"“{sentence}”, stride {stride}", seen.heat(torch.sigmoid(logits), level.valid)))
        columns.append([*tiles, (f"“{sentence}”, answer", seen.answer())])
    return sheet([list(row) for row in zip(*columns, strict=True)])


@torch.inference_mode()
def vipa() -> Picture:
    """What the sentence is like, and which cells it and two of its words retrieve."""
    seen = look("vipa", "astronaut.png", "the person in the orange suit")
    model, deep = cast(VIPA, seen.model), cast(VIPALevel, seen.embedding[-1])
    scores, relevance = seen.outputs["retrieve"]
    kept = model.retrieve.kept(scores, deep.valid.flatten(1))[0]
    # The sentence, [CLS] and "the" come before "person"; "suit" is before [SEP].
    cues = (("the sentence", 0), ("“person”", 3), ("“suit”", len(kept) - 2))
    relevant = ("relevance", seen.heat(torch.sigmoid(relevance), deep.valid))
    tiles = [(f"kept by {name}", seen.heat(kept[number], deep.valid, cells=True)) for name, number in cues]
    return sheet([[relevant, tiles[0], ("answer", seen.answer())], tiles[1:]])


@torch.inference_mode()
def maris() -> Picture:
    """One word in the matrix of the last block: which cells it reads, and which cells read it."""
    seen = look("maris", "astronaut.png", "the person in the orange suit")
    blocks = cast(MARIS, seen.model).blocks
    block, valid = cast(MutualAwareAttention, blocks[-1]), cast(MARISLevel, seen.embedding[0]).valid
    affinity = block.affinity(*seen.outputs[f"blocks.{len(blocks) - 2}"])
    assert block.vision_guided and block.language_guided
    by_cell = block.vision_guided.weights(affinity, seen.outputs["text"].key_padding_mask).mean(dim=1)[0]
    by_word = block.language_guided.weights(affinity.transpose(2, 3), padding_cells(valid)).mean(dim=1)[0]
    tiles = []
    # [CLS] and "the" come before "person".
    for name, number in (("person", 2), ("suit", len(by_word) - 2)):
        told, read = by_word[number], by_cell[:, number]
        tiles.append((f"“{name}” reads", seen.heat(told / told.max(), valid)))
        tiles.append((f"“{name}” is read", seen.heat(read / read.max(), valid)))
    return sheet([[*tiles[:2], ("answer", seen.answer())], tiles[2:]])


@torch.inference_mode()
def haris() -> Picture:
    """How much of what each cell gathered in the first round is fed back, block by block."""
    seen = look("haris", "coffee.png", "the white cup on the table")
    text, tiles = seen.outputs["text"], []
    cells, words = seen.embedding[0][0], seen.outputs["words"]
    model = cast(HARIS, seen.model)
    for number, name in enumerate(("deep", "middle", "shallow")):
        valid = cast(HARISLevel, seen.embedding[number]).valid
        if number:
            cells, words = seen.outputs[f"blocks.{number - 1}"]
            cells = seen.embedding[number][0] + model.descend[number - 1](cells)
        context = Context(text.sentence, grid_encoding(grid(cells, valid)), text.key_padding_mask, padding_cells(valid))
        attention = cast(HumanLikeAttention, model.blocks[number]).language_weighted
        gathered = attention.one_round(Fused(cells, words), context)
        fed_back = seen.outputs[f"blocks.{number}.language_weighted.feedback"]
        torch.testing.assert_close(attention.feedback(gathered, text.sentence), fed_back)
        tiles.append((f"{name} level", seen.heat(attention.feedback.modulation(gathered, text.sentence), valid)))
    return sheet([tiles[:2], [*tiles[2:], ("answer", seen.answer())]])


def sheet(rows: list[list[tuple[str, Picture]]]) -> Picture:
    """Captioned tiles of one photo, row by row, the first row the longest; narrow enough for a phone."""
    height = round(TILE * rows[0][0][1].shape[0] / rows[0][0][1].shape[1])
    width = len(rows[0]) * (TILE + GAP) + GAP
    page = Image.new("RGB", (width, len(rows) * (height + CAPTION + GAP) + GAP), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(20)
    for row, tiles in enumerate(rows):
        top = GAP + row * (height + CAPTION + GAP)
        for column, (caption, picture) in enumerate(tiles):
            left = GAP + column * (TILE + GAP)
            pen.text((left + 2, top + 2), caption, font=font, fill=INK)
            tile = cv2.resize(picture, (TILE, height), interpolation=cv2.INTER_AREA)
            page.paste(Image.fromarray(tile), (left, top + CAPTION))
    return np.asarray(page)
