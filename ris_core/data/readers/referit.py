"""ReferIt as papers on segmentation use it (ronghanghu/text_objseg): queries by region, and a mask file for each.

`referit_query_<name>.json` is `{"<photo>_<region>": ["expression", ...]}`, in older copies `"<photo>_<region>.png"`.
`mask/<photo>_<region>.mat` holds `segimg_t`, in which the region is 0. Papers train on `trainval` and report `test`.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ris_core.data.folder import LazyMask, Sample, read_json
from ris_core.data.readers.layout import find_parts
from ris_core.data.readers.mat import read_mat
from ris_core.errors import DatasetError
from ris_core.images import FORMATS
from ris_core.masks import Mask

# Split -> the name in its file's.
WHOLE = {"train": "trainval", "test": "test"}
PARTED = {"train": "train", "val": "val", "test": "test"}

# Beside the queries, or where the two best known repositories put them.
_PLACES = ("", "referit/", "referit-dataset/")


@dataclass(frozen=True)
class MatMask(LazyMask):
    """A region whose mask is a MATLAB file, read when it is asked for: all masks together are gigabytes."""

    path: Path

    def mask(self, height: int, width: int) -> Mask:
        """height x width bool. Raises DatasetError if the file is missing, damaged, or of another size."""
        labels = read_mat(self.path, "segimg_t")
        if labels.shape != (height, width):
            raise DatasetError(f"{self.path} is {' x '.join(map(str, labels.shape))}, its photo {height} x {width}.")
        return np.asarray(labels == 0)


def read_referit(folder: Path, splits: Collection[str] | None, files: Mapping[str, str]) -> Iterator[Sample]:
    """The expressions of some splits, or of all that `files` names.

    Raises DatasetError if a file is missing or damaged.
    """
    names = [split for split in files if splits is None or split in splits]
    queries = [f"referit_query_{files[split]}.json" for split in names]
    folders = [tuple(f"{place}{name}/" for place in _PLACES) for name in ("images", "mask")]
    photos, masks, *paths = find_parts(folder, (*folders, *((file, f"data/{file}") for file in queries)))
    size = cache(_size)
    for split, path in zip(names, paths, strict=True):
        try:
            for number, (region, sentences) in enumerate(read_json(path).items(), 1):
                name = region.removesuffix(".png")
                photo = photos / f"{name.partition('_')[0]}.jpg"
                width, height = size(photo)
                mask = MatMask(masks / f"{name}.mat")
                for sentence in sentences:
                    yield Sample(photo, int(photo.stem), number, split, sentence, height, width, (mask,))
        except (AttributeError, TypeError, ValueError) as error:
            raise DatasetError(f"{path} isn't a file of ReferIt's queries: {error!r}. Download it again.") from None


def _size(photo: Path) -> tuple[int, int]:
    # Only the header is read.
    try:
        with Image.open(photo, formats=FORMATS) as image:
            return image.size
    except OSError as error:
        raise DatasetError(f"{photo} can't be read ({error}). Unpack the dataset's photos again.") from None
