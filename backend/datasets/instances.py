"""From a correction and its picture to a picture of a dataset. Pure.

Ids are hashes of Label Studio's ids: the same region has the same id in every export.
"""

from collections.abc import Mapping
from operator import itemgetter

from backend.datasets.annotations import Correction, DrawnObject, Expression
from backend.datasets.dataset import Category, DatasetImage, Instance, Json, Ref
from backend.datasets.image_store import StoredImage
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.task_data import split_identity
from ris_core.data.splits import split_of
from ris_core.files import sha256

# 48 bits: among a million regions two share an id with a chance of 1 in 500, and any JSON reader is exact.
_ID_DIGITS = 12
_IOU_DIGITS = 4


def stable_id(*parts: object) -> int:
    """A positive 48-bit id that depends on `parts` alone."""
    return int(sha256("/".join(map(str, parts)).encode())[:_ID_DIGITS], 16) or 1


def categories_of(numbers: Mapping[str, int], config: LabelConfig) -> tuple[Category, ...]:
    """The labels with their `numbers`, by number."""
    # The first tag that has the label. Which one had a label that is gone isn't known, and the first stands in.
    tags = {name: [control.name for control in config.controls if control.label(name)] for name in numbers}
    return tuple(
        Category(number, name, [*tags[name], config.controls[0].name][0])
        for name, number in sorted(numbers.items(), key=itemgetter(1))
    )


def dataset_image(
    correction: Correction, image: StoredImage, file_name: str, numbers: Mapping[str, int]
) -> DatasetImage:
    """A picture with what its correction says. Its group, or else the photo, decides the split, for good."""
    return DatasetImage(
        number=correction.task,
        file_name=file_name,
        path=image.path,
        width=image.width,
        height=image.height,
        digest=image.digest,
        split=split_of(split_identity(correction.group, image.original)),
        instances=tuple(_instance(correction, drawn, numbers) for drawn in correction.objects),
        refs=tuple(_ref(correction, expression) for expression in correction.expressions),
    )


def _instance(correction: Correction, drawn: DrawnObject, numbers: Mapping[str, int]) -> Instance:
    said = [expression for expression in correction.expressions if drawn.region in expression.regions]
    versions = [said_of.edit.version for said_of in said if said_of.edit and drawn.origin != "manual"]
    provenance = {
        "task": correction.task,
        "annotation": correction.annotation,
        "region": drawn.region,
        "origin": drawn.origin,
        "parent_prediction": correction.parent_prediction,
        "completed_by": correction.completed_by,
        "ground_truth": correction.ground_truth,
        "prompts": [expression.prompt for expression in said],
        "model_version": next(filter(None, versions), None),
        "score": drawn.score,
        **({"shape": drawn.shape} if drawn.shape else {}),
        **({"consensus": list(drawn.sources)} if drawn.sources else {}),
    }
    return Instance(stable_id(correction.annotation, drawn.region), numbers[drawn.label], drawn.rle, provenance)


def _ref(correction: Correction, expression: Expression) -> Ref:
    return Ref(
        number=stable_id(correction.task, expression.cleaned),
        sentence=expression.cleaned,
        raw=expression.prompt,
        instances=tuple(stable_id(correction.annotation, region) for region in expression.regions),
        told=_told(expression),
    )


def _told(expression: Expression) -> Json:
    """How the answer came about, and how near the prediction was to it, where that is known."""
    edit = expression.edit
    if edit is None:
        return {}
    iou = {} if edit.iou is None else {"iou": round(edit.iou, _IOU_DIGITS)}
    told = bool(expression.regions) or edit.kind in ("rejected", "taught")
    return {"origin": edit.kind if told else "absent", **iou}
