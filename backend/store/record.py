"""What a store knows of a project: its versions, and which of them serves. One object, changed as a whole.

    records/7.json                             this: which versions there are, and the pointer
    versions/7/lda-1a2b3c4d/<upload>/<file>    what it names, each upload under an address of its own, never changed

So a version exists from the moment at which a record names it, when all its files are there, until one doesn't.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from backend.registry import Pointer
from backend.store.bucket import StoreDamaged

RECORDS = "records"
_FORMAT = "ris-studio record 1"


@dataclass(frozen=True)
class Entry:
    """A version's files. upload: where they lie, see above. files: names -> SHA-256."""

    upload: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """revision: counts the changes. pointer: None as long as nothing was promoted. versions: by name, oldest first.

    change: tells the change that made it from all others.
    """

    revision: int = 0
    pointer: Pointer | None = None
    versions: Mapping[str, Entry] = field(default_factory=dict)
    change: str = field(default="", compare=False)

    def next(self) -> Record:
        """The same, as the next revision."""
        return replace(self, revision=self.revision + 1, change=secrets.token_hex(8))

    def with_version(self, name: str, entry: Entry) -> Record:
        """With a version more; the same if it has that."""
        return self if name in self.versions else replace(self, versions={**self.versions, name: entry})

    def as_bytes(self) -> bytes:
        """As it is kept."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1).encode()


def record_name(project: int) -> str:
    """The object that is a project's record."""
    return f"{RECORDS}/{int(project)}.json"


def project_of(name: str) -> int | None:
    """The project that an object is the record of; None if it isn't one."""
    number = name.removeprefix(f"{RECORDS}/").removesuffix(".json")
    return int(number) if number.isascii() and number.isdecimal() and record_name(int(number)) == name else None


def upload_prefix(project: int, name: str, entry: Entry) -> str:
    """Where the files of a version lie."""
    return f"{versions_prefix(project)}/{name}/{entry.upload}"


def versions_prefix(project: int) -> str:
    """Where the files of all versions of a project lie."""
    return f"versions/{int(project)}"


def parse_record(data: bytes, address: str) -> Record:
    """Raises StoreDamaged if it isn't a record. address: where it was read, for the message."""
    try:
        content = json.loads(data)
        if content["format"] != _FORMAT:
            raise ValueError(content["format"])
        versions = {_plain(name): _entry(entry) for name, entry in content["versions"].items()}
        return Record(int(content["revision"]), _pointer(content["pointer"]), versions, str(content["change"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreDamaged(
            f"{address} isn't what this version of the studio writes ({type(error).__name__}: {error}). Bring it back "
            "from an earlier version of the object or a copy, or update all hosts to the same release."
        ) from None


def _entry(entry: Mapping[str, Any]) -> Entry:
    return Entry(_plain(entry["upload"]), {_plain(name): str(digest) for name, digest in entry["files"].items()})


def _pointer(content: Mapping[str, Any] | None) -> Pointer | None:
    if content is None:
        return None
    return Pointer(
        str(content["version"]),
        None if content["promoted"] is None else str(content["promoted"]),
        tuple(map(str, content["earlier"])),
        tuple(map(str, content["served"])),
    )


def _plain(name: str) -> str:
    """A name that stays within its folder: what others wrote becomes a path here."""
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise ValueError(f"{name!r} isn't a name")
    return name
