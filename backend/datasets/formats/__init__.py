"""The formats that a project can be exported in, one module each. A new one is a module, a line below, and a test.

A format is a function `write(snapshot, out)`: from the folder of a snapshot, which it leaves as it is, it fills the
empty folder `out` (see `backend.datasets.snapshots`; `ris_core.data.read_folder` reads it). It returns what it can't
say: how many expressions are left out, by what they do, such as "mean several objects".
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from backend.datasets.formats import coco, refer

EXPORT_FORMATS: Mapping[str, Callable[[Path, Path], Mapping[str, int]]] = {
    "coco": coco.write,
    "refcoco": refer.write_refcoco,
    "grefcoco": refer.write_grefcoco,
}
"""What `ris export --format` takes -> its `write`."""
