"""A prediction beside what a person made of it, as a picture. Knows no model.

A snapshot holds the corrected masks; the predicted ones are Label Studio's, as long as it keeps them.
"""

import io
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from backend.datasets.annotations import Correction, DrawnObject, Expression
from backend.datasets.edits import find_parent
from backend.datasets.history import SnapshotExpression
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.responses import Json
from ris_core import overlay
from ris_core.images import Pixels, read_image
from ris_core.masks import Mask

WIDTH = 420
"""Of a picture, in pixels, at most; also its height."""
_QUALITY = 85


def submitted_mask(expression: SnapshotExpression) -> Mask:
    """HxW bool: all that the sentence means."""
    masks = [instance.mask() for instance in expression.instances]
    return _union(masks, expression)


def predicted_mask(expression: SnapshotExpression, predictions: Sequence[Json], config: LabelConfig) -> Mask | None:
    """HxW bool: what was predicted for an expression; None if none of its task's `predictions` is what it came from."""
    correction = _correction(expression)
    prediction = find_parent(correction, predictions, config)
    if prediction is None:
        return None
    said = correction.expressions[0]
    masks = prediction.masks(said)
    size = expression.image.height, expression.image.width
    if not (masks or said.cleaned in prediction.prompts) or any(mask.shape != size for mask in masks):
        return None
    return _union(masks, expression)


def draw_pair(expression: SnapshotExpression, predicted: Mask | None) -> bytes:
    """The photo as a JPEG, with what was predicted, if that is known, and what was submitted. Raises ImageError."""
    photo = read_image(expression.image.path)
    small = _shrunk(photo)
    # In this order, so that each has one colour in all pictures.
    masks = [("submitted", _fitted(submitted_mask(expression), small))]
    if predicted is not None:
        masks.append(("predicted", _fitted(predicted, small)))
    buffer = io.BytesIO()
    Image.fromarray(overlay.draw(small, masks)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _union(masks: Sequence[Mask], expression: SnapshotExpression) -> Mask:
    nothing = np.zeros((expression.image.height, expression.image.width), dtype=np.bool_)
    union: Mask = np.logical_or.reduce([nothing, *masks])
    return union


def _shrunk(photo: Pixels) -> Pixels:
    scale = WIDTH / max(photo.shape[:2])
    if scale >= 1:
        return photo
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _fitted(mask: Mask, photo: Pixels) -> Mask:
    size = photo.shape[1], photo.shape[0]
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), dtype=np.bool_)


def _correction(expression: SnapshotExpression) -> Correction:
    """The annotation as far as a snapshot holds it: its objects, and this one of its sentences."""
    told = [instance.provenance for instance in expression.image.instances]
    objects = tuple(
        DrawnObject(str(one["region"]), "", instance.rle, str(one["origin"]))
        for one, instance in zip(told, expression.image.instances, strict=True)
    )
    meant = [str(instance.provenance["region"]) for instance in expression.instances]
    parents = [one.get("parent_prediction") for one in told]
    said = Expression(expression.ref.raw, tuple(meant))
    correction = Correction(expression.image.number, 0, "", objects, (said,))
    return replace(correction, parent_prediction=parents[0] if parents else None)
