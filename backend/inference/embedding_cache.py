"""The embeddings of recent images: so many at most, and so many bytes of them. Knows no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetools import LRUCache

if TYPE_CHECKING:
    from ris_core.inference.segmenter import PreparedImage

MEGABYTE = 1_000_000


class EmbeddingCache:
    """By model and image; what was used longest ago is dropped first. Not for several threads at once."""

    def __init__(self, count: int, size: int) -> None:
        """count: of embeddings, at most. size: in bytes, at most; what is larger by itself isn't kept."""
        self._count, self._size = count, size
        self._kept: LRUCache[tuple[str, str], PreparedImage] = LRUCache(size, lambda prepared: prepared.nbytes)

    def get(self, fingerprint: str, identity: str) -> PreparedImage | None:
        """What a model of that fingerprint made of an image, if it is kept."""
        return self._kept.get((fingerprint, identity))

    def put(self, fingerprint: str, identity: str, prepared: PreparedImage) -> None:
        """Keep what a model made of an image."""
        if prepared.nbytes > self._size:
            return
        self._kept[fingerprint, identity] = prepared
        while len(self._kept) > self._count:
            self._kept.popitem()

    def forget(self, fingerprint: str | None = None) -> None:
        """Drop all that a model made, or that any did."""
        for key in [key for key in self._kept if fingerprint in (None, key[0])]:
            del self._kept[key]

    @property
    def nbytes(self) -> int:
        """Of all that is kept."""
        return int(self._kept.currsize)

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)
