"""What people have in a folder: a COCO dataset, with our refs or without, or pictures alone. Knows no Label Studio.

    FOLDER/instances.json, refs.json, images/     our own export
    FOLDER/annotations/*.json, images/            COCO as it is published; of several, those called instances*
    FOLDER/*.json, pictures beside or in images/  COCO as tools write it
    FOLDER/**                                     pictures alone

Source: COCO's data format page. What is wrong with a row costs that row, and is told. A file's name in COCO leads to no
file outside the folder.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backend.labelstudio.json_values import is_number
from ris_core.data.folder import meant_annotations, read_json
from ris_core.errors import DatasetError, InputError

Json = dict[str, Any]
FindingKind = Literal["file", "picture", "annotation", "category", "sentence", "refused"]

# Of the formats that `ris_core.images` reads.
_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
_OURS, _REFS, _MANIFEST = "instances.json", "refs.json", "manifest.json"


@dataclass(frozen=True)
class Finding:
    """What isn't imported, or not as it is. kind: what it is about. place: the picture or file. reason: for people."""

    kind: FindingKind
    place: str
    reason: str


@dataclass(frozen=True)
class FoundObject:
    """An object of a picture. segmentation: in any of COCO's forms; None: only its box is known.

    box: `[x, y, width, height]` in pixels, None if the dataset doesn't say it. score: 0..1, where a model found it.
    provenance: `ls` of an export of ours.
    """

    number: int
    category: str
    segmentation: Any
    box: Sequence[float] | None = None
    is_crowd: bool = False
    score: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundSentence:
    """A sentence and the numbers of the objects that it means together; none: it isn't in the picture.

    origin: what became of a model's answer, "" if the dataset doesn't say.
    """

    text: str
    objects: tuple[int, ...]
    origin: str = ""


@dataclass(frozen=True)
class FoundPicture:
    """A picture's file and what is in it.

    name: unique in the folder. size: (height, width) of its masks, None if unknown. is_annotated: whether somebody
    looked, so that nothing drawn means nothing there.
    """

    name: str
    path: Path
    size: tuple[int, int] | None = None
    objects: tuple[FoundObject, ...] = ()
    sentences: tuple[FoundSentence, ...] = ()
    is_annotated: bool = False


@dataclass(frozen=True)
class FoundFolder:
    """What a folder holds. categories: label -> its number. total: pictures, those that can't be had among them.

    rows: gives pictures and findings anew each time that it is called, a picture at a time.
    """

    kind: Literal["export", "coco", "pictures"]
    categories: Mapping[str, int]
    total: int
    rows: Callable[[], Iterator[FoundPicture | Finding]]


def read_import_folder(folder: Path) -> FoundFolder:
    """Find out what a folder holds. Raises InputError if it is none or without a picture, DatasetError for bad JSON."""
    if not folder.is_dir():
        raise InputError(f"{folder} isn't a folder. Name the one with the pictures, or with COCO's JSON.")
    files, strays = _documents(folder)
    if files:
        return _coco_folder(folder, files)
    pictures = list(_walk(folder))
    total = sum(isinstance(row, FoundPicture) for row in pictures)
    if not total:
        raise InputError(f"{folder} holds neither a COCO dataset nor a picture ({', '.join(sorted(_SUFFIXES))}).")
    told = [Finding("file", stray.name, "isn't COCO: left alone, and the pictures come alone") for stray in strays]
    return FoundFolder("pictures", {}, total, lambda: iter([*told, *pictures]))


def _documents(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files of a COCO dataset, and other JSON beside the pictures."""
    if (folder / _OURS).is_file():
        return [folder / _OURS], []
    strays: list[Path] = []
    for place in (folder / "annotations", folder):
        named = sorted(path for path in place.glob("*.json") if path.name not in (_REFS, _MANIFEST) and path.is_file())
        named = [path for path in named if path.name.startswith("instances")] or named
        coco = [path for path in named if _is_coco(path)]
        if coco:
            return coco, []
        strays += named
    return [], strays


def _is_coco(path: Path) -> bool:
    document = read_json(path)
    return isinstance(document, dict) and all(isinstance(document.get(key), list) for key in ("images", "annotations"))


def _walk(folder: Path) -> Iterator[FoundPicture | Finding]:
    """All pictures below a folder by name. Hidden ones are none, and links to folders aren't followed."""
    root = folder.resolve()
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in _SUFFIXES:
                continue
            shown = path.relative_to(folder).as_posix()
            if not path.resolve().is_relative_to(root):
                yield Finding("file", shown, "leads outside the folder. Copy the picture into it")
            elif path.is_file():
                yield FoundPicture(shown, path)


def _coco_folder(folder: Path, files: Sequence[Path]) -> FoundFolder:
    documents = [(file, _Coco.read(folder, file)) for file in files]
    categories: dict[str, int] = {}
    for _, document in documents:
        categories |= {name: number for number, name in document.categories.items()}
    total = sum(len(document.images) for _, document in documents)
    kind: Literal["export", "coco"] = (
        "export" if any(document.refs is not None for _, document in documents) else "coco"
    )

    def rows() -> Iterator[FoundPicture | Finding]:
        # Tools write a picture once for each of its annotators; each is a task of its own.
        times: Counter[str] = Counter()
        for _, document in documents:
            yield from document.rows(times)

    return FoundFolder(kind, categories, total, rows)


@dataclass(frozen=True)
class _Coco:
    """One JSON file of COCO's, and our refs beside it; None if there are none."""

    folder: Path
    file: Path
    images: Sequence[Json]
    annotations: Mapping[Any, Sequence[Json]]
    categories: Mapping[int, str]
    refs: Mapping[Any, Sequence[Json]] | None
    findings: Sequence[Finding]

    @classmethod
    def read(cls, folder: Path, file: Path) -> "_Coco":
        document, findings = read_json(file), list[Finding]()
        if not isinstance(document, dict) or not isinstance(document.get("images"), list):
            raise DatasetError(f'{file} isn\'t COCO: it has no list of "images". Name a folder with a COCO dataset.')
        refs_file = file.with_name(_REFS)
        refs = read_json(refs_file) if file.name == _OURS and refs_file.is_file() else None
        images = [row for row in document["images"] if isinstance(row, dict)]
        known = {_key(row.get("id")) for row in images}
        return cls(
            folder,
            file,
            images,
            _grouped(document.get("annotations"), known, "annotation", file, findings),
            _category_names(document.get("categories")),
            None if refs is None else _grouped(refs, known, "sentence", refs_file, findings),
            findings,
        )

    def rows(self, times: Counter[str]) -> Iterator[FoundPicture | Finding]:
        """times: how often a picture's name came before."""
        yield from self.findings
        for row in self.images:
            named, number = str(row.get("file_name") or ""), _key(row.get("id"))
            place = named or f"image {number} of {self.file.name}"
            name = self._name(row, place)
            times[name] += 1
            try:
                path, size = self._path(named), _size(row)
            except DatasetError as error:
                yield Finding("picture", place, str(error))
                continue
            findings: list[Finding] = []
            objects = list(self._objects(place, number, findings))
            sentences = list(self._sentences(place, number, objects, findings))
            yield from findings
            yield FoundPicture(
                f"{name}#{times[name]}" if times[name] > 1 else name,
                path,
                size,
                tuple(objects),
                tuple(sentences),
                is_annotated=bool(objects) or self.refs is not None,
            )

    def _name(self, row: Json, name: str) -> str:
        """A picture's name without what an export put before it: the task's number, and an upload's eight digits."""
        if self.refs is None or not name.startswith(f"{row.get('id')}_"):
            return name
        bare = name.removeprefix(f"{row['id']}_")
        is_upload = bare[8:9] == "-" and all(digit in "0123456789abcdef" for digit in bare[:8])
        return bare[9:] if is_upload and bare[9:] else bare

    def _path(self, name: str) -> Path:
        """Where a picture's file is. Raises DatasetError if it is nowhere, or outside the folder."""
        if not name or "\0" in name:
            raise DatasetError("has no file_name")
        root, split = self.folder.resolve(), self.file.stem.rpartition("_")[2]
        places = ("images", f"images/{split}", split, ".", self.file.parent.relative_to(self.folder).as_posix())
        try:
            candidates = [(self.folder / place / name).resolve() for place in places]
            within = [path for path in candidates if path.is_relative_to(root)]
            if path := next((path for path in within if path.is_file()), None):
                return path
        except (OSError, RuntimeError) as error:
            raise DatasetError(f"can't be looked for ({error})") from None
        if Path(name).is_absolute() or len(within) < len(candidates):
            raise DatasetError("leads outside the folder. Copy the picture into it, and correct its file_name")
        raise DatasetError(f"is missing. It was looked for in {', '.join(dict.fromkeys(places))}")

    def _objects(self, place: str, image: Any, findings: list[Finding]) -> Iterator[FoundObject]:
        for row in self.annotations.get(image, ()):
            number, category = row.get("id"), self.categories.get(_key(row.get("category_id")))
            if category is None:
                reason = f"annotation {number} is of category {row.get('category_id')}, which the dataset doesn't name"
                findings.append(Finding("category", place, reason))
                continue
            provenance, score, box = row.get("ls"), row.get("score"), row.get("bbox")
            yield FoundObject(
                number=_key(number),
                category=category,
                segmentation=row.get("segmentation") or None,
                box=box if _is_box(box) else None,
                is_crowd=bool(row.get("iscrowd")),
                score=float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None,
                provenance=provenance if isinstance(provenance, dict) else {},
            )

    def _sentences(
        self, place: str, image: Any, objects: Collection[FoundObject], findings: list[Finding]
    ) -> Iterator[FoundSentence]:
        known = {found.number for found in objects}
        for ref in (self.refs or {}).get(image, ()):
            try:
                meant = [_key(number) for number in meant_annotations(ref)]
                texts = [str(sentence.get("raw") or sentence["sent"]) for sentence in ref["sentences"]]
            except (KeyError, TypeError, AttributeError) as error:
                findings.append(Finding("sentence", place, f"ref {ref.get('ref_id')} can't be read ({error!r})"))
                continue
            for text in texts:
                if set(meant) <= known:
                    yield FoundSentence(" ".join(text.split()), tuple(meant), str(ref.get("origin") or ""))
                else:
                    reason = f'"{text}" means an annotation that the picture hasn\'t'
                    findings.append(Finding("sentence", place, reason))


def _grouped(
    rows: Any, known: Collection[Any], kind: Literal["annotation", "sentence"], file: Path, findings: list[Finding]
) -> Mapping[Any, Sequence[Json]]:
    """Rows by the picture that they are about; the others are findings."""
    groups: dict[Any, list[Json]] = defaultdict(list)
    strays: Counter[str] = Counter()
    for row in rows if isinstance(rows, Iterable) else ():
        if isinstance(row, dict) and _key(row.get("image_id")) in known:
            groups[_key(row["image_id"])].append(row)
        else:
            strays[str(row.get("image_id") if isinstance(row, dict) else row)] += 1
    what = {"annotation": "annotations", "sentence": "refs"}[kind]
    findings += [
        Finding(kind, file.name, f"{count} {what} are about image {image}, which the dataset doesn't name")
        for image, count in strays.items()
    ]
    return groups


def _key(number: Any) -> Any:
    """A number by which rows refer to each other; some tools write texts."""
    if isinstance(number, str) and number.isdecimal():
        return int(number)
    return number if isinstance(number, int | float | str) else repr(number)


def _category_names(rows: Any) -> dict[int, str]:
    named = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {_key(row.get("id")): str(row["name"]) for row in named if row.get("name")}


def _size(row: Json) -> tuple[int, int] | None:
    height, width = row.get("height"), row.get("width")
    if not height or not width:
        return None
    try:
        return int(height), int(width)
    except (TypeError, ValueError, OverflowError):
        raise DatasetError(f"has the size {height} x {width}, which isn't in pixels") from None


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(is_number, box))
