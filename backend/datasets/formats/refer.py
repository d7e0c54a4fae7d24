"""A project's expressions as RefCOCO's and gRefCOCO's readers take them, in the folders where these look.

    refcoco/refs(unc).p               a pickle of RefCOCO's refs: an object each, with all sentences that mean it
    refcoco/instances.json
    images/mscoco/images/train2014/

    grefcoco/grefs(unc).json          gRefCOCO's refs: a sentence each; `ann_id` is a list, [-1] for nothing
    grefcoco/instances.json
    images/train2014/

Masks are polygons: of COCO's forms a list of polygons alone is read by all of them. They lose nothing, see
`outlines`. What the sets call testA is our `test`; they have none of that name.

Sources: refer.py in lichengunc/refer; grefer.py, refcoco.py and grefcoco.py in henghuiding/ReLA.
"""

import json
import pickle
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from backend.datasets.dataset import Dataset, DatasetImage, Instance, Json, compact_json
from backend.datasets.formats.coco import instance_row, ref_row, write_documents
from backend.datasets.formats.options import ExportOptions
from backend.labelstudio.masks.polygon import outlines

_SPLITS = {"test": "testA"}
# Python 2's, in which the published files are written: whatever code reads those reads it.
_PROTOCOL = 2


def write_refcoco(dataset: Dataset, out: Path, options: ExportOptions) -> Mapping[str, int]:
    """One ref an object. Expressions that mean several objects or none are left out: REFER knows no such ref."""
    refs, left_out = [], Counter[str]()
    for image in dataset.images():
        objects: dict[int, list[Json]] = defaultdict(list)
        for ref in image.refs:
            if len(ref.instances) == 1:
                objects[ref.instances[0]].append(ref_row(image, ref))
            else:
                what = "mean several objects" if ref.instances else "mean nothing in their picture"
                left_out[f"expressions that {what}"] += 1
        refs += [_object_ref(number, image.categories[number], group) for number, group in objects.items()]
    _write(dataset, out / "refcoco", out / "images/mscoco/images/train2014", options)
    # Texts and numbers made anew: how often a pickle names an object depends on which of them are one in memory.
    (out / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(json.loads(json.dumps(refs)), _PROTOCOL))
    return left_out


def write_grefcoco(dataset: Dataset, out: Path, options: ExportOptions) -> Mapping[str, int]:
    """Every ref of the dataset; none is left out."""
    refs = [_general_ref(ref_row(image, ref)) for image in dataset.images() for ref in image.refs]
    _write(dataset, out / "grefcoco", out / "images/train2014", options)
    (out / "grefcoco" / "grefs(unc).json").write_bytes(compact_json(refs))
    return {}


def _object_ref(number: int, category: int, refs: Sequence[Json]) -> Json:
    """All that is said of one object. Its ref has its number, as `annToRef` of REFER knows one ref an object."""
    first = refs[0]
    name = PurePosixPath(first["file_name"])
    sentences = [sentence for ref in refs for sentence in ref["sentences"]]
    return {
        "ref_id": number,
        "ann_id": number,
        "category_id": category,
        "image_id": first["image_id"],
        # Readers cut off what follows the last underscore, which is RefCOCO's way to number the objects of a picture.
        "file_name": f"{name.stem}_{number}{name.suffix}",
        "split": _SPLITS.get(first["split"], first["split"]),
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
    }


def _general_ref(ref: Json) -> Json:
    return ref | {"split": _SPLITS.get(ref["split"], ref["split"])}


def _write(dataset: Dataset, folder: Path, photos: Path, options: ExportOptions) -> None:
    """All but the refs."""
    folder.mkdir(parents=True)
    write_documents(dataset, folder, _row, lambda image: options.place(image, photos / image.file_name))
    (folder / "refs.json").unlink()


def _row(image: DatasetImage, instance: Instance) -> Json:
    polygons = [ring.astype(int).ravel().tolist() for ring in outlines(instance.mask())]
    return {**instance_row(image, instance), "segmentation": polygons}
