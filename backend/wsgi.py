"""What gunicorn serves: `backend.wsgi:app`, made from the environment and ris.env when this module is imported."""

from __future__ import annotations

from backend import assembly
from backend.app import create_app
from backend.settings import load

_settings = load()
app = create_app(_settings, assembly.contract(_settings))
