"""RefCOCO, RefCOCO+, RefCOCOg and ReferIt as the REFER API keeps them (lichengunc/refer), and gRefCOCO likewise.

REFER's refs are a pickle of Python 2, gRefCOCO's mostly JSON, where a ref may mean several annotations, or -1: none.
A ref's own `file_name` ends in a number of no meaning, so `instances.json` says which photo is meant. Splits match
exactly; REFER takes as `testA` every split with an A in its name.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from ris_core.data.folder import Sample, read_json, samples_of
from ris_core.data.readers.layout import Layout, find_parts
from ris_core.data.readers.pickles import read_plain_pickle

# Where REFER looks, then where gRefCOCO does.
_COCO = ("images/mscoco/images/train2014/", "images/train2014/")

GREFCOCO: Layout = (("grefcoco/grefs(unc).json", "grefcoco/grefs(unc).p"), ("grefcoco/instances.json",), _COCO[::-1])


def refer_layout(dataset: str, partition: str) -> Layout:
    """The refs, the instances and the photos of, say, `refcoco` and `unc`, below REFER's data folder."""
    photos = ("images/saiapr_tc-12/",) if dataset == "refclef" else _COCO
    return ((f"{dataset}/refs({partition}).p",), (f"{dataset}/instances.json",), photos)


def read_refer(folder: Path, splits: Collection[str] | None, layout: Layout) -> Iterator[Sample]:
    """The expressions of some splits, or of all.

    Raises DatasetError if a file is missing, damaged, or at odds with another.
    """
    refs, instances, photos = find_parts(folder, layout)
    read = read_json if refs.suffix == ".json" else read_plain_pickle
    return samples_of(read(refs), read_json(instances), photos, splits, refs)
