"""What gunicorn serves: `backend.web.wsgi:app`, made from the environment and ris.env when this module is imported."""

from backend.settings import load
from backend.web import ml_backend
from backend.web.app import create_app

_settings = load()
app = create_app(_settings, ml_backend.build(_settings))
