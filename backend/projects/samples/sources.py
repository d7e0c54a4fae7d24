"""Where the sample photos lie, whose they are and under which licence. Knows nothing of what is in them.

Authors and licences as scikit-image's `skimage.data` and scikit-learn's `datasets/images/README.txt` state them, but
for flower.jpg: there the latter repeats china.jpg's author, while the pages that it points to are vultilion's.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class SampleSource:
    """A photo that an installed package ships in one of its folders. size: height and width in pixels."""

    package: str
    folder: str
    size: tuple[int, int]
    author: str
    licence: str
    page: str


_SKIMAGE = ("skimage", "data")
_SKLEARN = ("sklearn", "datasets/images")
_API = "https://scikit-image.org/docs/stable/api/skimage.data.html"
_FLICKR = "https://www.flickr.com/photos"

SOURCES = {
    "astronaut.png": SampleSource(*_SKIMAGE, (512, 512), "NASA", "public domain", "https://flic.kr/p/r9qvLn"),
    "chelsea.png": SampleSource(*_SKIMAGE, (300, 451), "Stefan van der Walt", "CC0", _API),
    "coffee.png": SampleSource(*_SKIMAGE, (400, 600), "Rachel Michetti", "CC0", _API),
    "rocket.jpg": SampleSource(
        *_SKIMAGE, (427, 640), "SpaceX", "public domain", f"{_FLICKR}/spacexphotos/16511594820/"
    ),
    "camera.png": SampleSource(*_SKIMAGE, (512, 512), "Lav Varshney", "CC0", _API),
    "china.jpg": SampleSource(
        *_SKLEARN, (427, 640), "danielbuechele", "CC BY 2.0", f"{_FLICKR}/danielbuechele/6061409035/"
    ),
    "flower.jpg": SampleSource(*_SKLEARN, (427, 640), "vultilion", "CC BY 2.0", f"{_FLICKR}/vultilion/6056698931/"),
}
