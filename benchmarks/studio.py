"""A whole studio for a benchmark: Label Studio, Valkey, the backend and workers on free ports; and photos for it."""

from __future__ import annotations

import http.client
import json
import os
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
from start import free_port

from backend.home import logs_folder
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import mask_regions, prompt_region
from backend.local.secrets import prepare, remember
from backend.local.services import BACKEND, LABEL_STUDIO, VALKEY, WORKER
from backend.local.supervisor import Supervisor
from backend.local.up import find_label_studio, local_services
from backend.projects import connect, samples
from backend.settings import Settings, load
from ris_core.images import read_image

_SECONDS = 120
_SIDE = 640


@dataclass(frozen=True)
class Photo:
    """A file below the root of local files, and what to ask of it."""

    name: str
    prompts: tuple[str, ...]

    @property
    def reference(self) -> str:
        return f"/data/local-files/?d={self.name}"

    def task(self) -> dict[str, Any]:
        return {"image": self.reference, "prompt": self.prompts[0]}


@dataclass(frozen=True)
class Studio:
    """Servers that run. Workers come and go."""

    home: Path
    supervisor: Supervisor

    @property
    def settings(self) -> Settings:
        return load()

    def client(self) -> LabelStudio:
        return LabelStudio.from_settings(self.settings)

    @contextmanager
    def workers(self, more: int = 0) -> Iterator[None]:
        """The workers that `ris up` starts, and so many more for batches (worker-1, ...), while this is open."""
        services = [each for each in _services() if each.name not in (VALKEY, LABEL_STUDIO, BACKEND)]
        [worker] = (service for service in services if service.name == WORKER)
        services += [replace(worker, name=f"{WORKER}-{number}") for number in range(1, more + 1)]
        for service in services:
            self.supervisor.start(service)
        names = [service.name for service in services]
        try:
            self.supervisor.wait_ready(names, _quiet)
            yield
        finally:
            self.supervisor.stop(names)

    def backend_memory(self) -> float:
        """Resident memory of the backend, its processes together, in MB."""
        first = self.supervisor.pid(BACKEND)
        processes = [first, *(child for child in _children(first))]
        return sum(_resident(process) for process in processes) / 1024


@contextmanager
def running_studio(folder: Path, **knobs: object) -> Iterator[Studio]:
    """Label Studio, Valkey and the backend below `folder`, with these knobs, for as long as this is open."""
    home = folder / "home"
    os.environ["RIS_HOME"] = str(home)
    prepare(home)
    remember(home, {f"RIS_{name.upper()}": str(value) for name, value in {**_ports(), **knobs}.items()})
    supervisor = Supervisor(logs_folder(home), print)
    try:
        _start(supervisor, VALKEY, LABEL_STUDIO)
        remember(home, {"RIS_LABEL_STUDIO_TOKEN": connect.sign_in(load())})
        _start(supervisor, BACKEND)
        yield Studio(home, supervisor)
    finally:
        supervisor.stop()


def make_photos(folder: Path, count: int) -> list[Photo]:
    """So many different files: crops of the sample photos, some mirrored, 640 pixels at the longer side, as JPEGs."""
    prompts = defaultdict(list)
    for mask in samples.corrections():
        prompts[mask.photo].append(mask.prompts[0])
    originals = [(read_image(data), tuple(prompts[name])) for name, data in samples.photos()]
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    made = []
    for number in range(count):
        pixels, sentences = originals[number % len(originals)]
        name = f"{number:05}.jpg"
        cv2.imwrite(str(folder / name), _varied(pixels, random)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        made.append(Photo(name, sentences))
    return made


def annotate_samples(client: LabelStudio, project: int) -> int:
    """Upload the sample photos, each with the masks that were drawn for it as its annotation -> how many masks."""
    config, drawn = parse(client.project(project)["label_config"]), defaultdict(list)
    for mask in samples.corrections():
        drawn[mask.photo].append(mask)
    for name, data in samples.photos():
        [task] = client.upload(project, name, data)
        regions = []
        for mask in drawn[name]:
            label = config.label(mask.label)
            assert label
            regions += mask_regions(config, label, mask.mask(), 1.0, mask.prompts[0])
        height, width = drawn[name][0].mask().shape
        typed = prompt_region(config, (height, width), *(mask.prompts[0] for mask in drawn[name]))
        client.create_annotation(task, [*regions, typed])
    return sum(map(len, drawn.values()))


class Door:
    """The backend's HTTP interface as Label Studio calls it: a connection of its own for each request."""

    def __init__(self, settings: Settings) -> None:
        self._address = urlsplit(connect.backend_url(settings)).netloc
        login = f"{settings.username}:{settings.secret('password')}"
        self._headers = {
            "Content-Type": "application/json",
            "Authorization": f"Basic {b64encode(login.encode()).decode()}",
            connect.SECRET_HEADER: settings.secret("webhook_secret"),
        }

    def ask(self, path: str, body: object = None) -> float:
        """POST a body, or GET without one -> seconds from the request to the whole answer."""
        content = None if body is None else json.dumps(body)
        started = time.perf_counter()
        connection = http.client.HTTPConnection(self._address, timeout=_SECONDS)
        connection.request("GET" if body is None else "POST", path, content, self._headers)
        answer = connection.getresponse()
        text = answer.read()
        spent = time.perf_counter() - started
        connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise OSError(f"{path} answered {answer.status}: {text.decode(errors='replace')[:300]}")
        return spent


def typed(sentence: str) -> dict[str, Any]:
    """What the editor sends along when somebody types a sentence."""
    region = {"from_name": "prompt", "to_name": "image", "type": "textarea", "value": {"text": [sentence]}}
    return {"result": [region]}


def _varied(pixels: np.ndarray[Any, np.dtype[np.uint8]], random: np.random.Generator) -> np.ndarray[Any, Any]:
    height, width = pixels.shape[:2]
    rows, columns = (int(side * random.uniform(0.75, 1)) for side in (height, width))
    top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
    part = pixels[top : top + rows, left : left + columns]
    if random.random() < 0.5:
        part = part[:, ::-1]
    scale = _SIDE / max(rows, columns)
    return cv2.resize(np.ascontiguousarray(part), (round(columns * scale), round(rows * scale)))


def _ports() -> dict[str, object]:
    backend, label_studio, valkey = free_port(), free_port(), free_port()
    return {
        "port": backend,
        "label_studio_url": f"http://127.0.0.1:{label_studio}",
        "redis_url": f"redis://:benchmark@127.0.0.1:{valkey}/0",
    }


def _start(supervisor: Supervisor, *names: str) -> None:
    for service in _services():
        if service.name in names:
            supervisor.start(service)
    supervisor.wait_ready(names, _quiet)


def _services() -> Sequence[Any]:
    return local_services(load(), find_label_studio())


def _quiet(_name: str, _seconds: float) -> None:
    pass


def _children(process: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process:
            yield int(folder.name)
            yield from _children(int(folder.name))


def _resident(process: int) -> int:
    """In KB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
