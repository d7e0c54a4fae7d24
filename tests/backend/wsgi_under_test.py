"""The backend's own WSGI module, over the checkpoint that WEIGHTS names."""

from __future__ import annotations

import os
from pathlib import Path

from ris_core import checkpoint_files

checkpoint_files.shipped = lambda: Path(os.environ["WEIGHTS"])

from backend.web.wsgi import app  # noqa: E402

__all__ = ["app"]
