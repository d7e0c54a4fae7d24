"""Seven photos to try the product on, and masks of what is in them, drawn for this project.

scikit-image and scikit-learn ship the photos: they are read from where those packages lie, without importing
either. The masks are the project's own. Knows nothing of Label Studio.

`masks.json` is a list of masks:

    {"photo": name, "label": value, "prompts": [sentence, ...],
     "polygons": [[x, y, x, y, ...], ...], "holes": [[x, y, ...], ...]}

Coordinates are whole pixels, x to the right and y down; (0, 0) is the centre of the top left pixel. A polygon
covers the pixels on its outline and within it, and so does a hole. A mask is its polygons together, less its holes.

How the masks were drawn:

- By hand over enlarged photos; OpenCV's GrabCut or a colour threshold then moved some outlines by a few pixels.
- A person comes with what they wear, without what they hold; a cup comes with what is in it.
- A table, a lawn or a sky is what can be seen of it, with the shadows that fall on it.
- Narrow gaps in foliage or between struts belong to the tree or the tower. Wide ones don't: through the large
  towers in rocket.jpg the sky is seen.
- Whiskers, stray hairs, the tips of antennas and the rays of a lamp are left out.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec, module_from_spec
from typing import Any

import cv2
import numpy as np

from backend.projects.samples.sources import SOURCES, SampleSource
from ris_core.errors import RisError
from ris_core.masks import Mask

Polygon = tuple[int, ...]


class SamplesMissing(RisError, code="samples_missing"):
    """The packages that ship the photos aren't installed, or ship them no more."""


@dataclass(frozen=True)
class SampleMask:
    """What each of some sentences means in a photo, the plainest sentence first.

    label: a label's value. polygons, holes: x, y, x, y, ... in pixels.
    """

    photo: str
    label: str
    prompts: tuple[str, ...]
    polygons: tuple[Polygon, ...]
    holes: tuple[Polygon, ...]

    def mask(self) -> Mask:
        """HxW bool, at the photo's size."""
        canvas = np.zeros(SOURCES[self.photo].size, np.uint8)
        _fill(canvas, self.polygons, 1)
        _fill(canvas, self.holes, 0)
        return canvas.astype(np.bool_)


def photos() -> Iterator[tuple[str, bytes]]:
    """Each photo's file name and its file's bytes, untouched.

    Raises SamplesMissing where the package that ships a photo isn't installed.
    """
    for name, source in SOURCES.items():
        yield name, _read(name, source)


def corrections() -> list[SampleMask]:
    """Every mask that was drawn, photo by photo."""
    text = resources.files(__name__).joinpath("masks.json").read_text(encoding="utf-8")
    return [_sample(entry) for entry in json.loads(text)]


def _read(name: str, source: SampleSource) -> bytes:
    spec = find_spec(source.package)
    if spec is None:
        raise SamplesMissing(f"{name} comes with a package that isn't installed: pip install ris-studio[samples]")
    # A module that is made but not run: importing scikit-learn takes seconds.
    folder = resources.files(module_from_spec(spec)).joinpath(source.folder)
    try:
        return folder.joinpath(name).read_bytes()
    except FileNotFoundError as error:
        raise SamplesMissing(
            f"{source.package} is installed without {name}: pip install --force-reinstall ris-studio[samples]"
        ) from error


def _sample(entry: dict[str, Any]) -> SampleMask:
    return SampleMask(
        entry["photo"],
        entry["label"],
        tuple(entry["prompts"]),
        tuple(tuple(polygon) for polygon in entry["polygons"]),
        tuple(tuple(hole) for hole in entry["holes"]),
    )


def _fill(canvas: np.ndarray[Any, np.dtype[np.uint8]], outlines: tuple[Polygon, ...], value: int) -> None:
    # One by one: given several at once, fillPoly leaves out what an even number of them covers.
    for outline in outlines:
        cv2.fillPoly(canvas, [np.array(outline, np.int32).reshape(-1, 2)], (value,))
