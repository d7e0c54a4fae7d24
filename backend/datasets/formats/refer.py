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
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from backend.labelstudio.masks.polygon import outlines
from ris_core.data.folder import meant_annotations, read_json
from ris_core.masks import decode_rle

Document = dict[str, Any]

_SPLITS = {"test": "testA"}
# Python 2's, in which the published files are written: whatever code reads those reads it.
_PROTOCOL = 2


def write_refcoco(snapshot: Path, out: Path) -> Mapping[str, int]:
    """One ref an object. Expressions that mean several objects or none are left out: REFER knows no such ref."""
    instances, refs = read_json(snapshot / "instances.json"), read_json(snapshot / "refs.json")
    objects: dict[int, list[Document]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for ref in refs:
        meant = meant_annotations(ref)
        if len(meant) == 1:
            objects[meant[0]].append(ref)
        else:
            left_out["mean several objects" if meant else "mean nothing in their picture"] += len(ref["sentences"])
    categories = {each["id"]: each["category_id"] for each in instances["annotations"]}
    grouped = [_object_ref(number, categories[number], group) for number, group in objects.items()]
    _write(snapshot, out, "refcoco", instances, "images/mscoco/images/train2014")
    # Texts and numbers made anew: how often a pickle names an object depends on which of them are one in memory.
    (out / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(json.loads(json.dumps(grouped)), _PROTOCOL))
    return left_out


def write_grefcoco(snapshot: Path, out: Path) -> Mapping[str, int]:
    """Every ref of the snapshot; none is left out."""
    instances, refs = read_json(snapshot / "instances.json"), read_json(snapshot / "refs.json")
    _write(snapshot, out, "grefcoco", instances, "images/train2014")
    (out / "grefcoco" / "grefs(unc).json").write_bytes(_json([_general_ref(ref) for ref in refs]))
    return {}


def _object_ref(number: int, category: int, refs: Sequence[Document]) -> Document:
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


def _general_ref(ref: Document) -> Document:
    lists = {key: ref[key] if isinstance(ref[key], list) else [ref[key]] for key in ("ann_id", "category_id")}
    return ref | lists | {"split": _SPLITS.get(ref["split"], ref["split"])}


def _write(snapshot: Path, out: Path, dataset: str, instances: Document, photos: str) -> None:
    """All but the refs."""
    annotations = [each | {"segmentation": _polygons(each)} for each in instances["annotations"]]
    shutil.copytree(snapshot / "images", out / photos)
    (out / dataset).mkdir()
    (out / dataset / "instances.json").write_bytes(_json(instances | {"annotations": annotations}))


def _polygons(annotation: Document) -> list[list[int]]:
    return [ring.astype(int).ravel().tolist() for ring in outlines(decode_rle(annotation["segmentation"]))]


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
