"""The models in memory: one predictor a version, the embeddings of recent images, one inference at a time.

Knows versions, images and prompts; knows nothing of tasks, HTTP or Label Studio.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from cachetools import LRUCache

from backend import metrics
from backend.errors import Unavailable
from backend.inference.embedding_cache import MEGABYTE, EmbeddingCache
from backend.registry import Version
from ris_core.errors import InputError, OutOfMemory, RisError
from ris_core.images import MAX_PIXELS, read_image
from ris_core.inference.prediction import Prediction
from ris_core.inference.prompt import Prompt

if TYPE_CHECKING:
    from ris_core.inference.frame import Image
    from ris_core.inference.segmenter import PreparedImage, Segmenter

_log = logging.getLogger(__name__)

GPU_AGAIN_SECONDS = 300.0
"""So long a version answers on the CPU before it is looked whether the GPU has room for it."""

ImageResult: TypeAlias = Sequence[Prediction] | InputError | OutOfMemory
"""One prediction a prompt, or why there is none."""


class ImagePrompts(NamedTuple):
    """An image, encoded or HxWx3 uint8 RGB, and what to look for in it. identity: of its file, the SHA-256."""

    image: bytes | Image
    prompts: Sequence[str | Prompt]
    identity: str


class ModelBusy(Unavailable, code="model_busy"):
    """The model didn't get round to it in time."""


class ModelPool:
    """Process-wide. What was used longest ago is dropped first.

    Safe for threads: `_lock` is held for a whole inference, and with it for every access to both caches.
    """

    def __init__(
        self,
        versions: int = 2,
        embeddings: int = 64,
        max_pixels: int = MAX_PIXELS,
        load: Callable[[Path], Segmenter] | None = None,
        size: int = 1024,
    ) -> None:
        """versions, embeddings: that are kept, at most. size: of the embeddings, in MB, at most."""
        self._predictors: LRUCache[str, Segmenter] = LRUCache(versions)
        self._embeddings = EmbeddingCache(embeddings, size * MEGABYTE)
        self._max_pixels = max_pixels
        # Where the GPU has no room: which version, and its predictor; and until when a GPU is taken for full.
        self._beside: tuple[str, Segmenter] | None = None
        self._full_until = 0.0
        self._load = load or _load
        # Two inferences at once would share the same cores and finish later than one after the other.
        self._lock = threading.Lock()
        # OpenMP keeps threads and memory for each thread that infers: several would be in each other's way.
        self._thread = ThreadPoolExecutor(1, "model")

    def warm(self, version: Version) -> threading.Thread:
        """Load a version in the background, so that the first prediction needn't.

        A process that ends meanwhile waits for that, seconds at most: torch's threads would abort it otherwise.
        """
        thread = threading.Thread(target=self._warm, args=(version,), name="warm")
        thread.start()
        return thread

    def segment_all(
        self,
        version: Version,
        images: Sequence[ImagePrompts],
        deadline: float,
        passes: int | None = None,
        guessed: Collection[str] = (),
        apart: Collection[str] = (),
    ) -> list[ImageResult]:
        """One prediction a prompt, in order, for each image; all of them go through the model together.

        What is wrong with an image or a prompt is the answer for that image, and costs the others nothing.
        Encoded images are remembered, decoded ones are not.

        Args:
            deadline: until when to wait for the model, on `time.monotonic`'s clock.
            passes: predictions are `AssessedPrediction`, from so many passes under dropout, perhaps none; of sentences
                alone.
            guessed: prompts whose mask is wanted even where it seems absent; not with `passes`.
            apart: sentences whose things are told apart, see `Prediction.things`.

        Raises:
            ModelBusy: others kept the model until the deadline.
            CheckpointError: the version can't be used.
        """
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise ModelBusy("The model is busy with other images. Try again in a moment.")
        try:
            predictor = self._predictor(version)
            return self._thread.submit(self._segment, version, predictor, images, passes, guessed, apart).result()
        finally:
            self._lock.release()

    def read(self, image: bytes) -> Image:
        """Decode an image, in the caller's time and not the model's. Raises ImageError."""
        return read_image(image, self._max_pixels)

    def _segment(
        self,
        version: Version,
        predictor: Segmenter,
        images: Sequence[ImagePrompts],
        passes: int | None,
        guessed: Collection[str],
        apart: Collection[str],
    ) -> list[ImageResult]:
        try:
            prepared = self._prepare(predictor, images)
            requests = list(zip(prepared, [image.prompts for image in images], strict=True))
            if passes is None:
                with metrics.timed(metrics.PREDICT_SECONDS):
                    answers: list[list[Prediction]] = predictor.segment_all(requests, guessed)
            else:
                from ris_core.inference.uncertainty import assess  # noqa: PLC0415 - see `_load`

                sentences = [
                    (image, [asked for asked in prompts if isinstance(asked, str)]) for image, prompts in requests
                ]
                with metrics.timed(metrics.PREDICT_SECONDS):
                    answers = [list(assessed) for assessed in assess(predictor, sentences, passes)]
            return [_apart(predictor, image, own, apart) for image, own in zip(prepared, answers, strict=True)]
        except (InputError, OutOfMemory) as error:
            failure = error.with_traceback(None)
            # Else it holds the frames of the pass that failed, and with them its tensors.
            failure.__context__ = None
        if isinstance(failure, OutOfMemory):
            # What is only kept makes room for what is asked.
            self._embeddings.forget()
            release_memory()
        if len(images) == 1:
            if not isinstance(failure, OutOfMemory) or predictor.device.type == "cpu":
                return [failure]
            _log.warning("A photo doesn't fit into the GPU's memory: it is answered on the CPU, which takes longer.")
            return self._segment(version, self._on_cpu(version), images, passes, guessed, apart)
        # One of them is to blame: alone, each answers for itself.
        return [
            result for image in images for result in self._segment(version, predictor, [image], passes, guessed, apart)
        ]

    def _prepare(self, predictor: Segmenter, requests: Sequence[ImagePrompts]) -> list[PreparedImage]:
        fingerprint, keys = predictor.fingerprint, [request.identity for request in requests]
        found = {key: self._embeddings.get(fingerprint, key) for key in keys}
        kept = {key: prepared for key, prepared in found.items() if prepared is not None}
        new = {key: request.image for key, request in zip(keys, requests, strict=True) if key not in kept}
        decoded = [self.read(image) if isinstance(image, bytes) else image for image in new.values()]
        _count(len(kept), len(new))
        prepared = kept | dict(zip(new, _embedded(predictor, decoded), strict=True))
        for key, image in new.items():
            if isinstance(image, bytes):
                self._embeddings.put(fingerprint, key, prepared[key])
        return [prepared[key] for key in keys]

    def _warm(self, version: Version) -> None:
        try:
            with self._lock:
                self._predictor(version)
        except RisError as error:
            # The next prediction meets the same error, and tells whoever asked. There is none in a process that ends,
            # where loading fails for want of new threads.
            if threading.main_thread().is_alive():
                _log.error("Version %s can't be loaded. %s", version.name, error)
        else:
            _log.info("Version %s is loaded.", version.name)

    def _predictor(self, version: Version) -> Segmenter:
        if version.name not in self._predictors:
            # Before the next one is loaded: memory may not hold both.
            while len(self._predictors) >= self._predictors.maxsize:
                self._drop()
            if time.monotonic() < self._full_until or not self._fits(version):
                return self._on_cpu(version)
        return self._predictors[version.name]

    def _fits(self, version: Version) -> bool:
        """Load a version; False if the GPU has no room for it, perhaps because something is learnt there."""
        from ris_core.inference.passes import is_out_of_memory  # noqa: PLC0415 - see `_load`
        from ris_core.models.base import best_device  # noqa: PLC0415

        try:
            self._predictors[version.name] = self._load(version.folder)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or best_device().type == "cpu":
                raise
        else:
            return True
        _log.warning("The GPU has no room for %s: it answers on the CPU, which takes longer.", version.name)
        self._full_until = time.monotonic() + GPU_AGAIN_SECONDS
        release_memory()
        return False

    def _on_cpu(self, version: Version) -> Segmenter:
        """The version's predictor on the CPU; that of one version is kept."""
        from ris_core.models.base import without_gpu  # noqa: PLC0415 - see `_load`

        if self._beside is None or self._beside[0] != version.name:
            # Before the next one is loaded: memory may not hold both.
            self._beside = None
            with without_gpu():
                self._beside = version.name, self._load(version.folder)
        return self._beside[1]

    def _drop(self) -> None:
        """Give back what the predictor that was used longest ago holds, and its embeddings."""
        fingerprint = self._predictors.popitem()[1].fingerprint
        # Versions that differ in their operating point alone share embeddings.
        if all(other.fingerprint != fingerprint for other in self._predictors.values()):
            self._embeddings.forget(fingerprint)
        release_memory()


def _count(hits: int, misses: int) -> None:
    for result, count in (("hit", hits), ("miss", misses)):
        if count:
            metrics.EMBEDDINGS.labels(metrics.process(), result).inc(count)


def _embedded(predictor: Segmenter, images: Sequence[Image]) -> list[PreparedImage]:
    if not images:
        return []
    with metrics.timed(metrics.EMBED_SECONDS):
        return list(predictor.embed_all(images))


def _apart(
    predictor: Segmenter, image: PreparedImage, answers: Sequence[Prediction], sentences: Collection[str]
) -> list[Prediction]:
    """The answers, those to `sentences` with their things told apart."""
    if not sentences:
        return list(answers)
    from ris_core.inference.instances import tell_apart  # noqa: PLC0415 - see `_load`

    return [tell_apart(predictor, image, answer) if answer.prompt in sentences else answer for answer in answers]


def release_memory() -> None:
    """Give memory that nothing refers to any more back to the machine, and to the GPU."""
    import torch  # noqa: PLC0415 - see `_load`

    # A predictor is part of circles: counting references doesn't free it.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _load(folder: Path) -> Segmenter:
    """A version's predictor. Torch is imported here: it takes seconds, in which others are answered already."""
    from ris_core import segmenters  # noqa: PLC0415

    return segmenters.load(folder)
