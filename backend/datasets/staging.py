"""Pictures on their way into an export: chosen, fetched and kept on disk, so that formats may go through them again.

One chunk of corrections is in memory at a time, and as many pictures as are being fetched.
"""

import json
import re
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from backend.datasets.annotations import Correction, Corrections
from backend.datasets.dataset import DatasetImage
from backend.datasets.edits import EditLedger, FetchPredictions, measure_edits
from backend.datasets.image_store import ImageStore, StoredImage
from backend.datasets.instances import dataset_image
from backend.datasets.problems import Problem
from backend.datasets.records import correction_of
from backend.datasets.snapshots import file_name
from backend.errors import FetchError
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.task_data import path_of
from ris_core.errors import InputError

_CHUNK, _FETCHERS = 500, 4
_ORIGIN = re.compile(r"\bhttps?://[^/\s]+")

Chosen = tuple[int, Sequence[Correction]]
"""A task and what counts of it: one correction, of several people one each."""


@dataclass(frozen=True)
class Staging:
    """The pictures that are on disk. labels: of what is in them. counts: of images, annotations and refs."""

    database: sqlite3.Connection
    problems: list[Problem]
    labels: set[str]
    counts: Counter[str]

    def __len__(self) -> int:
        return int(self.database.execute("SELECT count(*) FROM pictures").fetchone()[0])

    def add(self, corrections: Sequence[Correction], image: StoredImage) -> None:
        """Keep a picture with what is said of it."""
        self.labels.update(drawn.label for correction in corrections for drawn in correction.objects)
        self.counts["images"] += 1
        self.counts["annotations"] += sum(len(correction.objects) for correction in corrections)
        self.counts["refs"] += sum(len(correction.expressions) for correction in corrections)
        document = [[asdict(correction) for correction in corrections], {**asdict(image), "path": str(image.path)}]
        row = corrections[0].task, json.dumps(document, default=sorted)
        self.database.execute("INSERT INTO pictures VALUES (?, ?)", row)

    def images(self, numbers: Mapping[str, int]) -> Iterator[DatasetImage]:
        """The pictures by task. numbers: of the labels."""
        for (document,) in self.database.execute("SELECT document FROM pictures ORDER BY task"):
            rows, stored = json.loads(document)
            yield merged(
                [correction_of(row) for row in rows], StoredImage(**{**stored, "path": Path(stored["path"])}), numbers
            )


@contextmanager
def staging(folder: Path) -> Iterator[Staging]:
    """An empty staging in a folder that is there."""
    with closing(sqlite3.connect(folder / "pictures.sqlite", isolation_level=None)) as database:
        # What is lost in a power cut is made again.
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE pictures (task INTEGER PRIMARY KEY, document TEXT)")
        yield Staging(database, [], set(), Counter(images=0, annotations=0, refs=0))


def stage(
    chosen: Iterable[Chosen],
    count: int,
    staged: Staging,
    fetch: Callable[[Correction], bytes],
    store: ImageStore,
    on_progress: Callable[[float], object],
) -> None:
    """Fetch the picture of each task and keep both. A task without one that fits is a problem, and left out."""
    source, waiting, done = iter(chosen), deque[tuple[Chosen, Future[StoredImage]]](), 0
    with ThreadPoolExecutor(_FETCHERS, "fetch") as pool:
        while waiting or source:
            for task, corrections in islice(source, 2 * _FETCHERS - len(waiting)):
                waiting.append(((task, corrections), pool.submit(_stored, corrections, fetch, store)))
            if not waiting:
                return
            (task, corrections), image = waiting.popleft()
            try:
                _keep(corrections, image.result(), staged)
            except (InputError, FetchError) as error:
                # Exports are handed on: the host is nobody's business.
                staged.problems.append(Problem("image", task, _ORIGIN.sub("", str(error))))
            done += 1
            on_progress(done / count)


def measured(
    chosen: Iterable[Chosen], ledger: EditLedger, fetch: FetchPredictions, config: LabelConfig
) -> Iterator[Chosen]:
    """The same with what was done to the predictions."""
    source = iter(chosen)
    while chunk := list(islice(source, _CHUNK)):
        kept = [(task, list(corrections)) for task, corrections in chunk]
        # Of several people one after the other: what is measured is looked up by task.
        for number in range(max(len(corrections) for _, corrections in kept)):
            rows = [(task, corrections) for task, corrections in kept if len(corrections) > number]
            # What a consensus says was predicted for nobody.
            items = [own[number] for _, own in rows if not any(drawn.sources for drawn in own[number].objects)]
            edited = measure_edits(Corrections(tuple(items), ()), ledger, fetch, config).items
            by_task = {item.task: item for item in edited}
            for task, corrections in rows:
                corrections[number] = by_task.get(task, corrections[number])
        yield from kept


def merged(corrections: Sequence[Correction], image: StoredImage, numbers: Mapping[str, int]) -> DatasetImage:
    """A picture with what one or several annotations say. A sentence of several people is as many refs."""
    name = file_name(corrections[0], image)
    first, *others = (dataset_image(correction, image, name, numbers) for correction in corrections)
    source = path_of(corrections[0].image)
    if not others:
        return replace(first, source=source)
    images = (first, *others)
    seen = Counter[int]()
    refs = []
    for own in images:
        for ref in own.refs:
            seen[ref.number] += 1
            refs.append(replace(ref, number=ref.number + seen[ref.number] - 1))
    return replace(
        first, instances=tuple(row for own in images for row in own.instances), refs=tuple(refs), source=source
    )


def _stored(corrections: Sequence[Correction], fetch: Callable[[Correction], bytes], store: ImageStore) -> StoredImage:
    sizes = [drawn.rle["size"] for correction in corrections for drawn in correction.objects]
    image = store.add(fetch(corrections[0]), (sizes[0][0], sizes[0][1]) if sizes else None)
    # Kept with the picture: here, where several are worked on at a time.
    store.perceptual_hash(image.digest)
    return image


def _keep(corrections: Sequence[Correction], image: StoredImage, staged: Staging) -> None:
    """Keep a picture with the masks of its size; nothing of it where there are only others."""
    size, fitting = [image.height, image.width], []
    for correction in corrections:
        objects = [drawn for drawn in correction.objects if list(drawn.rle["size"]) == size]
        for drawn in correction.objects:
            if drawn not in objects:
                height, width = drawn.rle["size"]
                what = (
                    f"Region {drawn.region} was drawn on {width} x {height} pixels, but the picture has "
                    f"{image.width} x {image.height}: it is left out. Annotate it again."
                )
                staged.problems.append(Problem("region", correction.task, what, correction.annotation, drawn.region))
        if objects or not correction.objects:
            fitting.append(_without(correction, objects))
    if fitting:
        staged.add(fitting, image)


def _without(correction: Correction, objects: Sequence[Any]) -> Correction:
    """The correction with these objects alone, and no sentence that means another."""
    if len(objects) == len(correction.objects):
        return correction
    regions = {drawn.region for drawn in objects}
    said = (expression for expression in correction.expressions if regions.issuperset(expression.regions))
    return replace(correction, objects=tuple(objects), expressions=tuple(said))
