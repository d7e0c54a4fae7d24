"""The models in memory: one predictor a version, the embeddings of recent images, one inference at a time.

Knows versions, images and prompts; knows nothing of tasks, HTTP or Label Studio.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from backend.errors import Unavailable
from backend.registry import Version
from ris_core.errors import RisError
from ris_core.files import sha256
from ris_core.images import MAX_PIXELS, read_image
from ris_core.predictor import Prediction, Predictor, PreparedImage

_log = logging.getLogger(__name__)

V = TypeVar("V")


class ModelBusy(Unavailable):
    """The model didn't get round to it in time."""

    code = "model_busy"


class Models:
    """Process-wide and safe for threads. What was used longest ago is dropped first."""

    def __init__(
        self,
        versions: int = 2,
        embeddings: int = 64,
        max_pixels: int = MAX_PIXELS,
        load: Callable[[Path], Predictor] = Predictor.load,
    ) -> None:
        self._predictors: _Recent[Predictor] = _Recent(versions)
        self._embeddings: _Recent[PreparedImage] = _Recent(embeddings)
        self._max_pixels = max_pixels
        self._load = load
        # Two inferences at once would share the same cores and finish later than one after the other.
        self._lock = threading.Lock()

    def warm(self, version: Version) -> threading.Thread:
        """Load a version in the background, so that the first prediction needn't."""
        thread = threading.Thread(target=self._warm, args=(version,), name="warm", daemon=True)
        thread.start()
        return thread

    def segment(self, version: Version, image: bytes, prompts: Sequence[str], deadline: float) -> list[Prediction]:
        """One prediction a prompt, in order.

        Args:
            image: an encoded image.
            deadline: until when to wait for the model, on `time.monotonic`'s clock.

        Raises:
            ModelBusy: others kept the model until the deadline.
            ImageError, PromptError, CheckpointError: the image, a prompt or the version can't be used.
        """
        with self._turn(deadline):
            predictor = self._predictor(version)
            return predictor.segment(self._embedding(predictor, image), prompts)

    def _warm(self, version: Version) -> None:
        try:
            with self._lock:
                self._predictor(version)
        except RisError as error:
            # The next prediction meets the same error, and tells whoever asked.
            _log.error("Version %s can't be loaded. %s", version.name, error)
        else:
            _log.info("Version %s is loaded.", version.name)

    @contextmanager
    def _turn(self, deadline: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise ModelBusy("The model is busy with other images. Try again in a moment.")
        try:
            yield
        finally:
            self._lock.release()

    def _predictor(self, version: Version) -> Predictor:
        return self._predictors.get(version.name, lambda: self._load(version.folder))

    def _embedding(self, predictor: Predictor, image: bytes) -> PreparedImage:
        key = f"{predictor.fingerprint}:{sha256(image)}"
        return self._embeddings.get(key, lambda: predictor.embed(read_image(image, self._max_pixels)))


class _Recent(Generic[V]):
    """The `size` values that were used last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, V] = OrderedDict()

    def get(self, key: str, make: Callable[[], V]) -> V:
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)
        return self._values[key]
