"""Which store a home is the cache of. Knows nothing of stores, so that to look costs nothing where there is none."""

import json
from pathlib import Path

from backend.registry import RegistryError
from ris_core.files import atomic_write

_MARKER = "store.json"


def claim(root: Path, address: str) -> None:
    """Make a home the cache of one store. Raises RegistryError if it is another's, or holds versions of its own."""
    marker = root / _MARKER
    if marker.exists():
        known = json.loads(marker.read_bytes())["address"]
        if known != address:
            raise RegistryError(f"{root} is a cache of {known}, not of {address}. Correct RIS_STORE, or delete {root}.")
        return
    if own := sorted(root.glob("project-*/production.json")) + sorted(root.glob("project-*/versions/*")):
        raise RegistryError(
            f"{own[0].parent} holds versions that lie in no store. Begin with an empty home, or without RIS_STORE."
        )
    atomic_write(marker, json.dumps({"address": address}).encode())


def store_of(root: Path) -> str | None:
    """The address of the store that a registry's folder is a cache of; None if it is of none."""
    marker = root / _MARKER
    return str(json.loads(marker.read_bytes())["address"]) if marker.exists() else None
