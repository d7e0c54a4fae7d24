"""How wrong a model is about a batch of photos and expressions: what training descends on. Knows no steps, no files."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ris_core.encoders.base import TextFeatures, Trunk
from ris_core.losses import total_loss
from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.layers import valid_cells
from ris_core.models.output import Output
from ris_core.training.batches import TrainingBatch
from ris_core.training.feature_cache import FeatureCache, join_trunks, move_trunk
from ris_core.training.recipe import Recipe


class Objective:
    """The loss of a model's answers; where a teacher is to be answered alike, of what that one says.

    cache: of what the frozen stages make of views; None where views don't come again, or sentences take part in them.
    """

    def __init__(
        self, model: RISModel, recipe: Recipe, features: Path | FeatureCache, teacher: RISModel | None = None
    ) -> None:
        """Moves model and teacher to the GPU, if there is one; `features` is a cache or the folder for one."""
        self._model, self._teacher = model.place(), teacher.place() if teacher else None
        self._precision = recipe.precision
        self.cache: FeatureCache | None = None
        if recipe.views and not model.early_fusion:
            if isinstance(features, Path):
                features = FeatureCache(features, model.image_encoder, precision=recipe.precision)
            self.cache = features

    def loss(self, batch: TrainingBatch) -> Tensor:
        """One number, with its gradient, for at least one expression."""
        model, batch = self._model, batch.to(self._model.device)
        with torch.autocast(model.device.type, getattr(torch, self._precision), self._precision != "float32"):
            trunk = None if model.early_fusion else self._trunk(batch)
            text = model.encode_text(batch.sentences)
            output = _in_float(model(_embed(model, batch, trunk), text, batch.index))
            if self._teacher and batch.recalled.any():
                batch = _recall(self._teacher, batch, trunk, text)
        valid = valid_cells(batch.valid, output.mask)[batch.index]
        return total_loss(output, batch.targets, valid, batch.present, model.loss)

    @torch.no_grad()
    def _trunk(self, batch: TrainingBatch) -> Trunk:
        """What the frozen stages make of a batch: from the cache, and into it."""
        if self.cache is None:
            return self._model.trunk(batch.pixels, batch.valid)
        new_pixels, trunks = iter(batch.pixels), list[Trunk]()
        for key, cached, valid in zip(batch.keys, batch.trunks, batch.valid, strict=True):
            # One by one, and as it will be read: what others hold makes no difference to what is learnt.
            trunk = cached or self.cache.write(key, self._model.trunk(next(new_pixels)[None], valid[None]))
            trunks.append(move_trunk(trunk, self._model.device))
        return join_trunks(trunks)


@torch.no_grad()
def _recall(teacher: RISModel, batch: TrainingBatch, trunk: Trunk | None, text: TextFeatures) -> TrainingBatch:
    """The batch with the teacher's answers as targets, where they are to be."""
    recalled = batch.recalled
    answers = _in_float(teacher(_embed(teacher, batch, trunk), text[recalled], batch.index[recalled]))
    targets, present = batch.targets.clone(), batch.present.clone()
    targets[recalled], present[recalled] = answers.mask.sigmoid(), answers.presence.sigmoid()
    return replace(batch, targets=targets, present=present)


def _embed(model: RISModel, batch: TrainingBatch, trunk: Trunk | None) -> ImageEmbedding:
    return model.read_trunk(trunk, batch.valid) if trunk else model.encode_image(batch.pixels, batch.valid)


def _in_float(output: Output) -> Output:
    """The parts of an output that the loss reads, in float32."""
    return output._replace(**{name: getattr(output, name).float() for name in ("mask", "presence", "quality")})
