"""The models in memory: one predictor a version, the embeddings of recent images, one inference at a time.

Knows versions, images and prompts; knows nothing of tasks, HTTP or Label Studio.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from backend.errors import Unavailable
from backend.registry import Version
from ris_core.errors import InputError, OutOfMemory, RisError
from ris_core.files import sha256
from ris_core.images import MAX_PIXELS, read_image
from ris_core.inference.predictor import Image, Prediction, Predictor, PreparedImage
from ris_core.inference.uncertainty import study

_log = logging.getLogger(__name__)

V = TypeVar("V")

Asked: TypeAlias = tuple[bytes | Image, Sequence[str]]
"""An image, encoded or HxWx3 uint8 RGB, and what to look for in it."""
Found: TypeAlias = Sequence[Prediction] | InputError | OutOfMemory
"""One prediction a prompt, or why there is none."""


class ModelBusy(Unavailable):
    """The model didn't get round to it in time."""

    code = "model_busy"


class ModelPool:
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
        # OpenMP keeps threads and memory for each thread that infers: several would be in each other's way.
        self._thread = ThreadPoolExecutor(1, "model")

    def warm(self, version: Version) -> threading.Thread:
        """Load a version in the background, so that the first prediction needn't."""
        thread = threading.Thread(target=self._warm, args=(version,), name="warm", daemon=True)
        thread.start()
        return thread

    def segment(self, version: Version, image: bytes, prompts: Sequence[str], deadline: float) -> Sequence[Prediction]:
        """`segment_all` for one image; what is wrong with it is raised."""
        [found] = self.segment_all(version, [(image, prompts)], deadline)
        if isinstance(found, RisError):
            raise found
        return found

    def segment_all(
        self, version: Version, asked: Sequence[Asked], deadline: float, passes: int | None = None
    ) -> list[Found]:
        """One prediction a prompt, in order, for each image; all of them go through the model together.

        What is wrong with an image or a prompt is the answer for that image, and costs the others nothing.

        Args:
            asked: images and what to look for in them. Encoded images are remembered, decoded ones are not.
            deadline: until when to wait for the model, on `time.monotonic`'s clock.
            passes: predictions are `acquisition.Studied`, from so many passes under dropout, perhaps none.

        Raises:
            ModelBusy: others kept the model until the deadline.
            CheckpointError: the version can't be used.
        """
        with self._turn(deadline):
            predictor = self._predictor(version)
            return self._thread.submit(self._segment, predictor, asked, passes).result()

    def read(self, image: bytes) -> Image:
        """Decode an image, in the caller's time and not the model's. Raises ImageError."""
        return read_image(image, self._max_pixels)

    def _segment(self, predictor: Predictor, asked: Sequence[Asked], passes: int | None) -> list[Found]:
        try:
            prepared = self._prepare(predictor, [image for image, _ in asked])
            requests = list(zip(prepared, [prompts for _, prompts in asked], strict=True))
            if passes is None:
                return list(predictor.segment_all(requests))
            return list(study(predictor, requests, passes))
        except (InputError, OutOfMemory) as error:
            if len(asked) == 1:
                return [error]
        # One of them is to blame: alone, each answers for itself.
        return [found for one in asked for found in self._segment(predictor, [one], passes)]

    def _prepare(self, predictor: Predictor, images: Sequence[bytes | Image]) -> list[PreparedImage]:
        keys = [f"{predictor.fingerprint}:{_name(image)}" for image in images]
        kept = {key: found for key in keys if (found := self._embeddings.find(key)) is not None}
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in kept}
        decoded = [self.read(image) if isinstance(image, bytes) else image for image in new.values()]
        prepared = kept | dict(zip(new, predictor.embed_all(decoded), strict=True))
        for key, image in new.items():
            if isinstance(image, bytes):
                self._embeddings.keep(key, prepared[key])
        return [prepared[key] for key in keys]

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
        predictor = self._predictors.find(version.name)
        if predictor is None:
            predictor = self._load(version.folder)
            self._predictors.keep(version.name, predictor)
        return predictor


def _name(image: bytes | Image) -> str:
    return sha256(image) if isinstance(image, bytes) else str(id(image))


class _Recent(Generic[V]):
    """The `size` values that were used last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, V] = OrderedDict()

    def find(self, key: str) -> V | None:
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def keep(self, key: str, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)
