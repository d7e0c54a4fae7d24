"""The formats that a project can be exported in, one module each. A new one is a module, a line below, and a test.

A format is a module with a function `write(snapshot, out)`: from the folder of a snapshot, which it leaves as it is, it
fills the empty folder `out` (see `backend.datasets.snapshots`; `ris_core.data.read_folder` reads it). `out` gets a
manifest of all of its files too, by which a later export knows what it may replace.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from backend.datasets.formats import coco

EXPORT_FORMATS: Mapping[str, Callable[[Path, Path], None]] = {"coco": coco.write}
"""What `ris export --format` takes -> its `write`."""
