"""What comes from outside, mutated, and given to what reads it: one kind of input, one reader.

What is refused is refused by an error of ours, or by an HTTP status below 500. All else is a failure: another
exception, a traceback in the log, an answer that takes more than ten seconds, memory that grows.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import socket
import struct
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import psutil
from annotated import CONFIG, XML, absent, annotation, drawn, task, typed
from mutations import mutated_bytes, mutated_document, mutated_json, mutated_xml
from PIL import Image
from recorded import BASIC, NAMES, recorded, with_images
from served import Served

from backend.datasets.annotations import read_corrections
from backend.datasets.edits import compare, find_parent
from backend.datasets.imports.folders import read_import_folder
from backend.datasets.imports.importer import ImportOptions, check_folder
from backend.datasets.records import read_record
from backend.labelstudio.label_config import parse
from backend.labelstudio.masks import brush
from backend.projects.connect import LABEL_CONFIG
from ris_core import checkpoint, checkpoint_files
from ris_core.errors import RisError
from ris_core.zero_shot.pointer import parts_of

MOST_SECONDS = 10.0
MOST_GROWTH = 128 << 20
"""Bytes by which a process may grow once a tenth of the cases has filled what it keeps."""

Attempt = Callable[[Random], bool]
"""Makes a case of a generator's numbers and gives it to the reader; whether it was accepted.

Raises Refusal, or an error of ours, where it was refused.
"""


class Refusal(Exception):
    """An answer that refuses, with its status."""


class Failure(Exception):
    """An answer that shouldn't be: a status from 500 on, or none."""


@dataclass(frozen=True)
class Kind:
    """A kind of input. share: of all cases. process: that which reads it. log: what it writes, if it is another one."""

    name: str
    share: float
    attempt: Attempt
    process: psutil.Process
    log: Path | None = None


@dataclass
class Tally:
    """What came of a kind's cases. slowest: seconds. before, after: bytes of memory. findings: sentences for people."""

    cases: int = 0
    accepted: int = 0
    refused: int = 0
    failures: int = 0
    tracebacks: int = 0
    hangs: int = 0
    slowest: float = 0.0
    before: int = 0
    after: int = 0
    findings: list[str] = field(default_factory=list)


def tally(kind: Kind, count: int, seed: int = 0, first: int = 0) -> Tally:
    """Attempt `count` cases, beginning with number `first`; the same numbers make the same cases."""
    found, read = Tally(), kind.log.stat().st_size if kind.log else 0
    for number in range(first, first + count):
        if number - first == count // 10:
            found.before = kind.process.memory_info().rss
        started = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                # Pycocotools 2.0.11 with NumPy 2.
                warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
                found.accepted += kind.attempt(Random(f"{seed} {kind.name} {number}"))
        except (RisError, Refusal):
            found.refused += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            found.failures += 1
            found.findings.append(f"{kind.name} {number}: {type(error).__name__}: {error!s:.300}")
        seconds = time.monotonic() - started
        found.cases += 1
        found.slowest = max(found.slowest, seconds)
        if seconds > MOST_SECONDS:
            found.hangs += 1
            found.findings.append(f"{kind.name} {number}: took {seconds:.1f} s")
    found.after = kind.process.memory_info().rss
    if found.after - found.before > MOST_GROWTH:
        found.findings.append(f"{kind.name}: memory grew by {(found.after - found.before) >> 20} MiB")
    if kind.log:
        for traceback in _tracebacks(kind.log, read):
            found.tracebacks += 1
            found.findings.append(f"{kind.name}: {traceback}")
    return found


def _tracebacks(log: Path, start: int) -> Iterator[str]:
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    for match in re.finditer(r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(.*)", text):
        yield match[0][-600:]


# Over HTTP


@contextmanager
def kinds_over_http(served: Served) -> Iterator[list[Kind]]:
    """Input that reaches the backend as it is served."""
    with httpx.Client(base_url=served.url, headers=BASIC, timeout=6 * MOST_SECONDS) as http:
        # The model is loaded once.
        http.post("/predict", json=with_images("predict-interactive-text"), timeout=120).raise_for_status()
        yield _over_http(served, http)


def _over_http(served: Served, http: httpx.Client) -> list[Kind]:
    worker = max(psutil.Process(served.process.pid).children(), key=lambda child: child.memory_info().rss)
    ways: tuple[tuple[str, float, Attempt], ...] = (
        ("webhooks", 0.25, lambda rng: _post(http, rng, "/webhook", _webhook(rng))),
        ("HTTP framing", 0.05, lambda rng: _send(served.port, _framed(rng))),
        ("predictions", 0.1, lambda rng: _post(http, rng, "/predict", mutated_document(rng, _predict(rng)))),
        ("labelling interfaces", 0.15, lambda rng: _interface(http, rng)),
        ("pictures", 0.15, lambda rng: _ask_about(http, mutated_picture(rng))),
    )
    return [Kind(*way, worker, served.log) for way in ways]


def _answer(answer: httpx.Response) -> bool:
    if answer.status_code >= 500:
        raise Failure(f"{answer.status_code}: {answer.text[:300]}")
    if answer.status_code >= 300:
        if answer.headers["Content-Type"] == "application/json":
            assert answer.json().keys() == {"code", "message", "request_id"}
        raise Refusal(answer.status_code)
    return True


def _post(http: httpx.Client, rng: Random, path: str, content: bytes) -> bool:
    kinds = ("application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "\xff", "")
    headers = {"Content-Type": rng.choice(kinds).encode("latin-1")}
    if rng.random() < 0.1:
        headers["Content-Encoding"] = rng.choice((b"gzip", b"br", b"zstd"))
    if rng.random() < 0.1:
        path = rng.choice(("/projects/1", "/projects/2147483647")) + path
    return _answer(http.post(path, content=content, headers=headers))


def _webhook(rng: Random) -> bytes:
    body = recorded(rng.choice([name for name in NAMES if name.startswith("webhook")]))["body"]
    if rng.random() < 0.3:
        annotation = {"id": 1, "task": 1, "updated_at": "2026-11-21T02:02:23.852858Z", "was_cancelled": False}
        body |= rng.choice(
            (
                {"action": "ANNOTATIONS_CREATED", "annotation": [annotation, annotation]},
                {"action": "TASKS_DELETED", "tasks": [{"id": 1}, {"id": 1}]},
                {"action": "TASKS_CREATED", "tasks": [{"id": 1, "data": {"image": "a.png"}}]},
            )
        )
    return mutated_document(rng, body)


def _predict(rng: Random) -> dict[str, Any]:
    return with_images(rng.choice([name for name in NAMES if name.startswith("predict")]))


def _interface(http: httpx.Client, rng: Random) -> bool:
    xml = mutated_xml(rng, rng.choice((LABEL_CONFIG, XML, recorded("setup")["body"]["schema"])))
    body = recorded("setup")["body"] | {"schema": xml}
    return _answer(http.post("/setup", content=json.dumps(body).encode()))


def _ask_about(http: httpx.Client, picture: bytes) -> bool:
    body = with_images("predict-interactive-text")
    body["tasks"][0]["data"]["image"] = "data:image/png;base64," + base64.b64encode(picture).decode()
    return _answer(http.post("/predict", json=body))


def _framed(rng: Random) -> bytes:
    """A whole request, whose head or whose lengths are wrong."""
    body = json.dumps(recorded("webhook-annotation-created")["body"]).encode()
    length = rng.choice(
        (len(body), len(body), 0, 1, len(body) - 1, -1, "a", 10**12, 10**30, f"{len(body)}, 5", "+1", "0x10")
    )
    lines = ["POST /webhook HTTP/1.1", "Host: localhost", f"Authorization: {BASIC['Authorization']}"]
    way = rng.randrange(4)
    if way:
        lines.append(f"Content-Length: {length}")
    if way != 1:
        lines.append(f"Transfer-Encoding: {rng.choice(('chunked', 'gzip', 'chunked, chunked', 'identity', ''))}")
        if rng.random() < 0.7:
            size = rng.choice((f"{len(body):x}", "0", "fffffffffffffff", "-1", "zz", f"{len(body):x};a=b", "1"))
            body = (
                size.encode() + b"\r\n" + body + b"\r\n0\r\n" + rng.choice((b"\r\n", b"A: b\r\n\r\n", b"", b"A" * 9000))
            )
    head = "\r\n".join([*lines, "Connection: close", "", ""]).encode()
    if rng.random() < 0.5:
        head = mutated_bytes(rng, head)
    return head + body


def _send(port: int, data: bytes) -> bool:
    """Send it, say that nothing follows, and read the answer; that there is none is one."""
    with socket.create_connection(("127.0.0.1", port), timeout=MOST_SECONDS) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            raise Refusal("reset") from None
    status = re.match(rb"HTTP/1\.[01] (\d{3}) ", received)
    if not status:
        raise Refusal("no answer") if not received else Failure(repr(received[:200]))
    # A coding that isn't known is answered by 501.
    if status[1] == b"501" or b"300" <= status[1] < b"500":
        raise Refusal(status[1])
    if status[1] >= b"500":
        raise Failure(repr(received[:300]))
    return True


# Pictures

FORMATS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {"transparency": 0}),
    ("PNG", "I;16", {}),
    ("PNG", "1", {}),
    ("JPEG", "RGB", {}),
    ("JPEG", "CMYK", {}),
    ("JPEG", "L", {"progressive": True}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "F", {}),
    ("TIFF", "I;16", {"compression": "tiff_deflate"}),
    ("GIF", "P", {}),
    ("GIF", "P", {"save_all": True, "append_images": [Image.new("P", (24, 16), 5)]}),
    ("BMP", "RGB", {}),
)
_ORIENTATION = 0x0112
_COLOURS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def picture(kind: str, mode: str, options: dict[str, Any], orientation: object = None) -> bytes:
    """A small picture, perhaps with an orientation tag."""
    buffer = io.BytesIO()
    image = Image.fromarray(_COLOURS)
    image = image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
    # Libtiff writes none that there isn't.
    if orientation is not None and (kind in ("PNG", "JPEG", "WEBP") or (kind == "TIFF" and orientation in range(1, 9))):
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        options = options | {"exif": exif.tobytes()}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def mutated_picture(rng: Random) -> bytes:
    """A damaged picture, one that claims to be huge, or one that is turned as none can be."""
    data = picture(*rng.choice(FORMATS), orientation=rng.choice((None, None, 1, 3, 6, 8, 0, 9, 65535)))
    way = rng.randrange(10)
    if way == 0:
        return claiming(rng.choice((1, 24, 60_000, 65_536, 2**31 - 1)), rng.choice((1, 16, 60_000, 2**31 - 1)))
    if way == 1:
        return data
    if way == 2:
        return data + data
    return mutated_bytes(rng, data)


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""
    pixels = zlib.compress(b"\0" * 1000)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


# Within this process


def kinds_in_process(folder: Path, checkpoint_folder: Path) -> list[Kind]:
    """Input that is read from Label Studio, from a folder and from a checkpoint. `folder` is theirs to write in."""
    ways: tuple[tuple[str, float, Attempt], ...] = (
        ("brush masks", 0.1, _brush),
        ("annotations", 0.1, _annotation),
        ("import folders", 0.06, _Importing(folder / "import").attempt),
        ("checkpoints", 0.04, _Checkpoint(folder / "checkpoint", checkpoint_folder).attempt),
    )
    return [Kind(*way, psutil.Process()) for way in ways]


def _mask(rng: Random) -> np.ndarray:
    height, width = rng.randrange(1, 60), rng.randrange(1, 60)
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[rng.randrange(height) :, rng.randrange(width) :] = True
    return mask


def mutated_rle(rng: Random, mask: np.ndarray) -> Any:
    """A brush mask of other bytes, of another length, or of no bytes at all."""
    rle: list[Any] = brush.encode(mask)
    way = rng.randrange(6)
    if way == 0:
        # The declared number of bytes.
        rle[:4] = list(struct.pack(">I", rng.choice((0, 1, 4, mask.size * 4 + 4, 2**31, 2**32 - 1))))
    elif way == 1:
        rle[rng.randrange(len(rle))] = rng.choice((-1, 256, 2**40, 1.5, math.nan, None, "1", [1], True))
    elif way == 2:
        rle = [255] * rng.choice((1, 900, 100_000))
    elif way == 3:
        mutated = mutated_json(rng, {"rle": rle})
        return mutated.get("rle") if isinstance(mutated, dict) else mutated
    else:
        rle = list(mutated_bytes(rng, bytes(rle)))
    return rle


def _brush(rng: Random) -> bool:
    mask = _mask(rng)
    height, width = rng.choice((mask.shape, (mask.shape[1], mask.shape[0]), (1, 1), (4000, 4000)))
    decoded = brush.decode(mutated_rle(rng, mask), height, width)
    assert decoded.shape == (height, width)
    return True


def _result(rng: Random) -> list[Any]:
    """Regions of every kind that people draw with, one of them of a mutated mask."""
    mask = _mask(rng)
    place = {"to_name": "img", "original_width": mask.shape[1], "original_height": mask.shape[0], "origin": "manual"}
    shapes = [
        ("polygonlabels", {"points": [[1, 1], [90, 5], [50, 99]], "closed": True}),
        ("rectanglelabels", {"x": 1, "y": 2, "width": 30, "height": 40, "rotation": 10}),
        ("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 0}),
        ("keypointlabels", {"x": 5, "y": 5, "width": 1}),
        ("brushlabels", {"format": "rle", "rle": mutated_rle(rng, mask)}),
    ]
    kind, value = rng.choice(shapes)
    other = {**place, "id": "b", "from_name": "brush", "type": kind, "value": {**value, kind: ["cat"]}}
    return [drawn("a", mask, "cat", "the cat"), typed("the cat", "a dog"), absent(), other]


def _annotation(rng: Random) -> bool:
    """What annotators can write: results, and what stands in a task's data."""
    config = rng.choice((CONFIG, _SHAPES))
    made = {"id": 3, "model_version": "v", "score": 0.5, "result": mutated_json(rng, _result(rng))}
    first = annotation(1, parent_prediction=3) | {"result": mutated_json(rng, _result(rng))}
    second = annotation(2, completed_by=2) | {"result": mutated_json(rng, _result(rng))}
    read = task(1, first, second)
    read["data"] = mutated_json(rng, read["data"])
    read_record(read, config)
    corrections = read_corrections([read], config)
    for correction in corrections.items:
        compare(correction, find_parent(correction, [made], config))
    return bool(corrections.items)


_SHAPES = parse(
    '<View><Image name="img" value="$image"/><TextArea name="prompt" toName="img"/>'
    '<PolygonLabels name="brush" toName="img"><Label value="cat"/></PolygonLabels>'
    '<RectangleLabels name="box" toName="img"><Label value="cat"/></RectangleLabels></View>'
)


class _Importing:
    """A folder with COCO's JSON and two pictures, its JSON mutated."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def attempt(self, rng: Random) -> bool:
        shutil.rmtree(self._folder, ignore_errors=True)
        (self._folder / "images").mkdir(parents=True)
        for name in ("a.png", "b.png"):
            data = picture("PNG", "RGB", {})
            (self._folder / "images" / name).write_bytes(mutated_bytes(rng, data) if rng.random() < 0.1 else data)
        refs = [{"image_id": 1, "ann_id": 1, "ref_id": 1, "sentences": [{"raw": "the cat", "sent_id": 1}]}]
        is_ours = rng.random() < 0.5
        if is_ours:
            self._write("refs.json", mutated_document(rng, refs))
        name = "instances.json" if is_ours else rng.choice(("some.json", "_annotations.coco.json"))
        self._write(name, mutated_document(rng, self._coco(rng)))
        found = read_import_folder(self._folder)
        findings = check_folder(found, CONFIG, ImportOptions(kind=rng.choice(("annotations", "predictions"))))
        return not findings

    def _write(self, name: str, content: bytes) -> None:
        (self._folder / name).write_bytes(content)

    @staticmethod
    def _coco(rng: Random) -> dict[str, Any]:
        images = [
            {"id": n, "file_name": name, "width": 24, "height": 16} for n, name in enumerate(("a.png", "b.png"), 1)
        ]
        segmentations = (
            [[1, 1, 20, 2, 10, 14]],
            {"size": [16, 24], "counts": [100, 50, 234]},
            {"size": [16, 24], "counts": "X37000b0"},
            [],
        )
        row = {"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 1, 10, 10], "area": 100, "iscrowd": 0}
        rows = [row | {"segmentation": rng.choice(segmentations)}, row | {"id": 2, "image_id": 2, "score": 0.5}]
        return {"images": images, "annotations": rows, "categories": [{"id": 5, "name": "cat"}]}


class _Checkpoint:
    """A checkpoint whose config.json is mutated."""

    def __init__(self, folder: Path, source: Path) -> None:
        self._folder = folder
        self._config = json.loads((source / checkpoint_files.CONFIG).read_bytes())
        shutil.copytree(source, folder)

    def attempt(self, rng: Random) -> bool:
        content = mutated_document(rng, self._config)
        (self._folder / checkpoint_files.CONFIG).write_bytes(content)
        readers: tuple[Callable[[Path], object], ...] = (
            checkpoint_files.version,
            checkpoint_files.answers_clicks,
            checkpoint_files.operating_point,
            checkpoint_files.check_weights,
            checkpoint.tuning,
            parts_of,
            checkpoint.load,
        )
        refusals = 0
        for read in readers:
            try:
                read(self._folder)
            except RisError:
                refusals += 1
        if refusals > 1:
            raise Refusal
        return True
