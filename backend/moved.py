"""Modules that have moved, found under the names that people may have in compose files, units and modules of their own.

`backend/__init__.py` puts the finder last, so that it costs nothing until a module isn't found.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType

MOVED = {
    "backend.connect": "backend.local.connect",
    "backend.gunicorn_conf": "backend.web.gunicorn_conf",
    "backend.label_studio_ml": "backend.web.label_studio_ml",
    "backend.studio.readiness": "backend.local.readiness",
    "backend.studio.valkey": "backend.local.valkey",
    "backend.wsgi": "backend.web.wsgi",
}
# What is left of it is a package of nothing but the modules above.
_PACKAGE = "backend.studio"


class MovedFinder:
    """Finds a moved module; whoever imports or runs it is told its new name by a FutureWarning."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module by its old name; None for all others."""
        if fullname == _PACKAGE:
            return ModuleSpec(fullname, None, is_package=True)
        moved = find_spec(MOVED[fullname]) if fullname in MOVED else None
        if moved is None or moved.origin is None:
            return None
        return ModuleSpec(fullname, _MovedLoader(fullname, moved.origin), origin=moved.origin)


class _MovedLoader(SourceFileLoader):
    """The new module's own loader, under the old name."""

    def exec_module(self, module: ModuleType) -> None:
        _warn(module.__name__)
        sys.modules[module.__name__] = import_module(MOVED[module.__name__])

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m`."""
        _warn(fullname)
        return super().get_code(fullname)


def _warn(name: str) -> None:
    # A DeprecationWarning would be seen by nobody: most of these are named on command lines.
    warnings.warn(f"{name} has moved to {MOVED[name]}. Name that instead.", FutureWarning, stacklevel=3)
