"""`make bench-export`: a project's brush masks as a COCO dataset, against label-studio-sdk's own export of brushes.

Tasks have a JPEG photo of 1920x1080 and three brush regions each, all of them different. Ours (`export_project`) runs
in a process of its own, reads tasks and photos over HTTP from a stand-in for Label Studio on this machine, and writes
masks, prompts and copies of the photos: first with nothing kept, then again after one task in a hundred was changed.
The SDK's BRUSH_TO_COCO (label-studio-sdk in the environment that Label Studio is in) gets the same annotations as one
JSON file on disk, and neither fetches nor copies a photo; "masks alone" is ours doing just that. Seconds are those of
the whole process, its start included; memory is the most that the process and its children held together, sampled
(pages that they share count for each).

The masks of every hundredth task are compared with what was drawn. QUICK=1 takes 100 tasks instead of up to 2,000.
Where the SDK would take more than 20 minutes it gets every tenth task, and the figure says that it is scaled.
The result is appended to benchmarks/results/export.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
from codec import PYTHON, ellipses
from pycocotools.coco import COCO
from record import record
from start import free_port

from backend.datasets.snapshots import verify
from backend.projects.samples import photos
from ris_core.images import read_image
from ris_core.masks import Mask

ROOT = Path(__file__).parents[1]
# Builders of what the API answers, and the stand-in's address, as the tests have them.
sys.path.append(str(ROOT / "tests" / "backend"))

from annotated import XML, annotation, drawn, task  # noqa: E402

COUNTS = (100,) if os.environ.get("QUICK") else (500, 1000, 2000)
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
PROJECT, TOKEN = 3, "personal-access-token"
SIZE = (1080, 1920)
LABELS = ("cat", "big dog", "cup")
ONE_IN, SPOT_CHECK = 100, 100
_SAMPLE_SECONDS, _PATIENCE_SECONDS, _PILOT = 0.05, 20 * 60, 20

OURS = """
import json, sys
from pathlib import Path
from backend.datasets.export import export_project
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver

url, token, project, home, out = sys.argv[1:]
with LabelStudio(url, token) as client:
    images = ImageResolver(url, token, cache=Path(home) / "images")
    report = export_project(client, images, int(project), Path(out), home=Path(home))
print(json.dumps(report))
"""

# The SDK's work and no more: the same JSON on disk becomes COCO's documents, and no photo is looked at.
MASKS = """
import json, sys
from pathlib import Path
from backend.datasets.dataset import Dataset
from backend.datasets.formats.coco import write_documents
from backend.datasets.image_store import StoredImage
from backend.datasets.instances import categories_of
from backend.datasets.records import open_records
from backend.datasets.staging import merged
from backend.labelstudio.label_config import Defaults, parse

interface, tasks, out = sys.argv[1], json.loads(Path(sys.argv[2]).read_bytes()), Path(sys.argv[3])
config = parse(interface)
numbers = {label.value: number for number, label in enumerate(config.labels, 1)}

class Disk:
    def annotation_versions(self, project):
        return iter(tasks)

    def annotations_of(self, project, ids):
        return iter(tasks)

def images(records):
    for record in records:
        height, width = record.annotations[0].correction.objects[0].rle["size"]
        photo = StoredImage("0" * 64, Path(), width, height, ".jpg", str(record.task))
        yield merged([annotation.correction for annotation in record.annotations], photo, numbers)

with open_records(out, 1) as records:
    records.update(Disk(), 1, interface, Defaults())
    write_documents(Dataset("", categories_of(numbers, config), lambda: images(records)), out)
"""

SDK = """
import sys
from label_studio_sdk.converter import Converter

interface, tasks, out = sys.argv[1:]
converter = Converter(interface, out, download_resources=False)
converter.convert(tasks, out, "BRUSH_TO_COCO", is_dir=False)
"""


@dataclass(frozen=True)
class Spent:
    """What a process took, and the last line that it printed. memory: MB."""

    seconds: float
    memory: float
    said: str


class Project:
    """Tasks and photos in a folder. A task that is changed has other masks and a later time."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self._seeds = {number: number for number in range(1, count + 1)}
        for part in ("tasks", "photos"):
            (folder / part).mkdir(parents=True)
        base = cv2.resize(read_image(dict(photos())["chelsea.png"]), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        for number in self._seeds:
            self._write(number)
            # Every one another picture, and as large a file as a photo's.
            pixels = np.roll(base, (7 * number, 13 * number), (0, 1))[..., ::-1]
            cv2.imwrite(str(self.photo(number)), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])

    def photo(self, number: int) -> Path:
        return self.folder / "photos" / f"{number:08x}-photo.jpg"

    def content(self, number: int) -> bytes:
        """A task as the API gives it."""
        return (self.folder / "tasks" / f"{number}.json").read_bytes()

    def masks(self, number: int) -> list[Mask]:
        """The three of a task: each some ellipses that overlap."""
        random = np.random.default_rng(self._seeds[number])
        centres = random.uniform((0.15, 0.2), (0.85, 0.8), (len(LABELS), 2))
        sizes = random.uniform(0.08, 0.2, len(LABELS))
        blobs = [
            [
                (x + dx, y + dy, size * part)
                for dx, dy, part in random.uniform((-0.05, -0.07, 0.4), (0.05, 0.07, 1), (4, 3))
            ]
            for (x, y), size in zip(centres, sizes, strict=True)
        ]
        return [ellipses(*SIZE, blob) > 0 for blob in blobs]

    def change(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._seeds[number] += 1_000_000
            self._write(number)

    def index(self) -> list[dict[str, Any]]:
        """The tasks without their masks, by which they are looked for."""
        return [
            task(number, annotation(number, updated_at=self._changed(number)), image=self._address(number))
            for number in self._seeds
        ]

    def _write(self, number: int) -> None:
        regions = [
            drawn(f"{number}-{label}", mask, label, f"the {label}")
            for label, mask in zip(LABELS, self.masks(number), strict=True)
        ]
        annotated = annotation(number, *regions, updated_at=self._changed(number))
        content = json.dumps(task(number, annotated, image=self._address(number)))
        (self.folder / "tasks" / f"{number}.json").write_text(content)

    def _changed(self, number: int) -> str:
        return f"2026-11-2{1 if self._seeds[number] == number else 2}T02:02:23Z"

    def _address(self, number: int) -> str:
        return f"/data/upload/1/{self.photo(number).name}"


@contextmanager
def serving(project: Project, port: int) -> Iterator[str]:
    """The stand-in in a process of its own -> its address."""
    (project.folder / "index.json").write_text(json.dumps(project.index()))
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, ROOT / "benchmarks" / "export_server.py", project.folder, str(port)], env=environment
    ) as process:
        while process.poll() is None:
            with suppress(httpx.HTTPError):
                httpx.get(f"{url}/api/projects/{PROJECT}/").raise_for_status()
                break
            time.sleep(0.1)
        try:
            yield url
        finally:
            process.kill()


def watched(command: Sequence[str | Path]) -> Spent:
    """Run a command to its end."""
    started, most = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        first = psutil.Process(process.pid)
        while process.poll() is None:
            most = max(most, _resident(first))
            time.sleep(_SAMPLE_SECONDS)
        seconds = time.perf_counter() - started
        assert process.stdout
        said = process.stdout.read().strip()
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with {process.returncode}.")
    return Spent(seconds, most / 2**20, said.rpartition("\n")[2])


def _resident(first: psutil.Process) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        for process in (first, *first.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total


def ours(project: Project, url: str, home: Path) -> Spent:
    """Export the project, and see whether the masks are those that were drawn."""
    out = home / "exports" / "mine"
    spent = watched([sys.executable, "-c", OURS, url, TOKEN, str(PROJECT), str(home), str(out)])
    report, count = json.loads(spent.said), len(project.index())
    assert (report["images"], report["annotations"], report["listed"]) == (count, len(LABELS) * count, []), report
    verify(out)
    with redirect_stdout(None):
        dataset = COCO(str(out / "instances.json"))
    for number in range(1, count + 1, SPOT_CHECK):
        masks = project.masks(number)
        entries = {dataset.cats[entry["category_id"]]["name"]: entry for entry in dataset.imgToAnns[number]}
        assert len(entries) == len(LABELS)
        for label, mask in zip(LABELS, masks, strict=True):
            assert (dataset.annToMask(entries[label]) == mask).all(), f"Task {number}'s {label} is another."
    return spent


def sdk(project: Project, numbers: Sequence[int], folder: Path) -> Spent:
    """The SDK's export of some tasks."""
    tasks = folder / "tasks.json"
    tasks.write_bytes(b"[" + b",".join(project.content(number) for number in numbers) + b"]")
    spent = watched([PYTHON, "-c", SDK, XML, tasks, folder / "sdk"])
    result = json.loads((folder / "sdk" / "result_coco.json").read_bytes())
    assert len(result["images"]) == len(numbers)
    return spent


def masks_alone(project: Project, numbers: Sequence[int], folder: Path) -> Spent:
    """What the SDK does, done by ours; every mask is there."""
    tasks, out = folder / "tasks.json", folder / "masks"
    out.mkdir()
    tasks.write_bytes(b"[" + b",".join(project.content(number) for number in numbers) + b"]")
    spent = watched([sys.executable, "-c", MASKS, XML, tasks, out])
    assert len(json.loads((out / "instances.json").read_bytes())["annotations"]) == len(LABELS) * len(numbers)
    return spent


def compare(project: Project, count: int, folder: Path) -> tuple[float, dict[str, float]]:
    """Seconds of the SDK for so many tasks, and its figures."""
    numbers = range(1, count + 1)
    start = sdk(project, numbers[:1], folder).seconds
    pace = (sdk(project, numbers[: _PILOT + 1], folder).seconds - start) / _PILOT
    share = 10 if start + pace * count > _PATIENCE_SECONDS else 1
    spent = sdk(project, numbers[::share], folder)
    seconds = start + (spent.seconds - start) * share
    scaled = f" (scaled from {len(numbers[::share])} tasks)" if share > 1 else ""
    return seconds, {
        f"{count} tasks: SDK{scaled}, s": round(seconds, 1),
        f"{count} tasks: SDK, {len(numbers[::share])} of them, MB": round(spent.memory),
    }


def measure(count: int, folder: Path, with_sdk: bool) -> dict[str, float]:
    """The figures of a project of so many tasks."""
    project, port, home = Project(folder / "project", count), free_port(), folder / "home"
    with serving(project, port) as url:
        first = ours(project, url, home)
    changed = range(1, count + 1, ONE_IN)
    project.change(changed)
    with serving(project, port) as url:
        again = ours(project, url, home)
    figures = {
        f"{count} tasks: ours, s": round(first.seconds, 1),
        f"{count} tasks: ours, MB": round(first.memory),
        f"{count} tasks: ours after {len(changed)} changed, s": round(again.seconds, 1),
        f"{count} tasks: ours after {len(changed)} changed, MB": round(again.memory),
    }
    if not with_sdk:
        return figures
    alone = masks_alone(project, range(1, count + 1), folder)
    seconds, theirs = compare(project, count, folder)
    return {
        **figures,
        f"{count} tasks: ours, masks alone, s": round(alone.seconds, 1),
        f"{count} tasks: ours, masks alone, MB": round(alone.memory),
        **theirs,
        f"{count} tasks: masks alone, times as fast as the SDK": round(seconds / alone.seconds, 1),
        f"{count} tasks: times as fast as the SDK": round(seconds / first.seconds, 1),
        f"{count} tasks: times as fast after {len(changed)} changed": round(seconds / again.seconds, 1),
    }


def main() -> None:
    figures: dict[str, float] = {}
    for count in COUNTS:
        with tempfile.TemporaryDirectory(prefix="bench-export-") as folder:
            figures |= measure(count, Path(folder), with_sdk=count == COUNTS[-1])
    record("export", figures, regions=len(LABELS), size=list(SIZE))


if __name__ == "__main__":
    main()
