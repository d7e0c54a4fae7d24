"""The formats that a project can be exported in, one module each. A new one is a module, a line below, and a test.

A format is a function `write(dataset, out, options)`: it goes through the dataset's pictures, keeps none, and fills the
empty folder `out`. It returns what it can't say: how many things are left out, by what they are, such as "expressions
that mean several objects". The same dataset gives the same bytes: no time, no chance, no path.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.datasets.dataset import Dataset
from backend.datasets.formats import coco, masks, panoptic, parquet, refer, voc, yolo
from backend.datasets.formats.options import ExportOptions

Write = Callable[[Dataset, Path, ExportOptions], Mapping[str, int]]


@dataclass(frozen=True)
class ExportFormat:
    """says: one line for people who choose. is_exact: whether every mask comes back pixel for pixel."""

    write: Write
    says: str
    is_exact: bool = True


EXPORT_FORMATS: Mapping[str, ExportFormat] = {
    "coco": ExportFormat(coco.write, "exact run lengths, with refs.json for the prompts"),
    "coco-polygons": ExportFormat(coco.write_polygons, "the same with polygons, and what they cost", is_exact=False),
    "refcoco": ExportFormat(refer.write_refcoco, "what the REFER API reads, one object a prompt"),
    "grefcoco": ExportFormat(refer.write_grefcoco, "what gRefCOCO's readers take, several objects or none too"),
    "parquet": ExportFormat(parquet.write, "Hugging Face datasets: a row a picture, prompts and exact masks in it"),
    "panoptic": ExportFormat(panoptic.write, "COCO panoptic: a PNG of segment ids a picture"),
    "yolo": ExportFormat(yolo.write, "YOLO segmentation, which ultralytics trains on", is_exact=False),
    "masks": ExportFormat(masks.write, "semantic masks: a PNG of class indices a picture"),
    "voc": ExportFormat(voc.write, "Pascal VOC: masks of classes and of objects, and boxes"),
}
"""What `ris export --format` takes."""
