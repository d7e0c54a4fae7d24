"""The formats that a project can be exported in, one module each. A new one is a module, a line below, and a test.

A format is a module with a function `write(snapshot, out)`. It fills the empty folder `out` from the folder of a
snapshot, which it leaves as it is: `backend.datasets.snapshots` says what that holds, `ris_core.data.read_folder` reads
it. Like a snapshot, `out` gets a manifest of all of its files, by which a later export knows what it may replace. What
becomes of earlier exports and of kills is `backend.datasets.export`'s.

`coco` comes first: it makes the documents of a snapshot too, so its export is a copy.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from backend.datasets.formats import coco

EXPORT_FORMATS: Mapping[str, Callable[[Path, Path], None]] = {"coco": coco.write}
"""What `ris export --format` takes -> its `write`."""
