"""An import: a folder's pictures as tasks of a project, with what is drawn and said in them.

A picture is in memory at a time, and the tasks of a batch. Each task's data has a key (`ris_import`), made of the
picture's content and its name in the folder: what is there already isn't imported again, whatever was done to it since.
`backend.datasets.imports.journal` says what becomes of an import that is killed.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backend.datasets.imports.folders import Finding, FoundFolder, FoundPicture
from backend.datasets.imports.journal import ImportJournal
from backend.datasets.imports.pictures import prepare_picture
from backend.datasets.imports.tasks import ImportKind, PictureResult, build_task, task_data
from backend.errors import LabelStudioRefused
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import LabelConfig
from ris_core.errors import DatasetError, ImageError
from ris_core.images import MAX_PIXELS

Json = dict[str, Any]

# Of one request. Label Studio 1.23.2 stores a batch at once, and takes up to 250 MB.
_BATCH_TASKS, _BATCH_BYTES = 20, 8 << 20
_SHOWN = 3


@dataclass(frozen=True)
class ImportOptions:
    """kind: what masks become. model_version: of predictions. max_bytes, max_pixels: of a picture."""

    kind: ImportKind = "annotations"
    model_version: str = "imported"
    max_bytes: int = 50 << 20
    max_pixels: int = MAX_PIXELS


@dataclass
class ImportReport:
    """tasks: made now. present: pictures that had a task already. counts: of what came with the new tasks."""

    project: int
    kind: str
    pictures: int
    tasks: int = 0
    present: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def as_json(self) -> Json:
        return {
            "project": self.project,
            "kind": self.kind,
            "pictures": self.pictures,
            "tasks": self.tasks,
            "present": self.present,
            "counts": {name: count for name, count in sorted(self.counts.items()) if count},
            "findings": [asdict(finding) for finding in self.findings],
        }


def check_folder(folder: FoundFolder, config: LabelConfig, options: ImportOptions) -> list[Finding]:
    """All that wouldn't be imported as it is, without writing anything."""
    findings: list[Finding] = []
    for picture in folder.rows():
        if isinstance(picture, Finding):
            findings.append(picture)
            continue
        try:
            prepared = prepare_picture(picture, options.max_bytes, options.max_pixels)
            findings += build_task(picture, prepared.size, config, options.kind).findings
        except (ImageError, DatasetError, OSError) as error:
            findings.append(Finding("picture", picture.name, _reason(error)))
    return findings


class FolderImport:
    """The import of a folder into a project. Run again, it goes on where it was interrupted."""

    def __init__(
        self, client: LabelStudio, project: int, config: LabelConfig, home: Path, options: ImportOptions
    ) -> None:
        self._client = client
        self._project = project
        self._config = config
        self._options = options
        self._journal = ImportJournal(home, project)
        self._batch: dict[str, tuple[FoundPicture, PictureResult, bytes]] = {}

    def run(
        self, folder: FoundFolder, on_progress: Callable[[int, str], object] = lambda done, detail: None
    ) -> ImportReport:
        """Import what isn't there yet. What can't be imported is left out, and told.

        on_progress: called with the number of pictures that are done, and what is waited for, if so.

        Raises Unavailable if another import into the project is running, LabelStudioRefused if Label Studio takes none
        of the first tasks, and LabelStudioError.
        """
        report = ImportReport(self._project, self._options.kind, folder.total)
        with self._journal.held():
            waiting = "waiting for tasks that an import sent before it was stopped"
            present = self._journal.settle(self._present, lambda: on_progress(0, waiting))
            for done, picture in enumerate(_pictures(folder, report)):
                on_progress(done, "")
                self._add(picture, present, report)
            self._send(report)
            on_progress(folder.total, "")
        return report

    def _present(self) -> set[str]:
        tasks = self._client.task_data(self._project)
        return {key for task in tasks if isinstance(key := (task.get("data") or {}).get("ris_import"), str)}

    def _add(self, picture: FoundPicture, present: set[str], report: ImportReport) -> None:
        try:
            prepared = prepare_picture(picture, self._options.max_bytes, self._options.max_pixels, present)
            if prepared.key in present:
                report.present += 1
                return
            result = build_task(picture, prepared.size, self._config, self._options.kind)
            address = self._client.upload_file(self._project, prepared.file_name, prepared.content)
        except (ImageError, DatasetError, OSError) as error:
            report.findings.append(Finding("picture", picture.name, _reason(error)))
            return
        except LabelStudioRefused as error:
            report.findings.append(Finding("refused", picture.name, _reason(error)))
            return
        present.add(prepared.key)
        result.counts["pictures saved anew"] += prepared.is_saved_anew
        self._batch[prepared.key] = picture, result, self._task(prepared.key, address, result)
        if len(self._batch) >= _BATCH_TASKS or sum(len(task) for *_, task in self._batch.values()) >= _BATCH_BYTES:
            self._send(report)

    def _task(self, key: str, address: str, result: PictureResult) -> bytes:
        task: Json = {"data": task_data(self._config, address, key)}
        if result.regions is not None and self._options.kind == "annotations":
            task["annotations"] = [{"result": result.regions, "ground_truth": result.is_ground_truth}]
        elif result.regions is not None:
            scored = {} if result.score is None else {"score": result.score}
            version = self._options.model_version
            task["predictions"] = [{"result": result.regions, "model_version": version, **scored}]
        return json.dumps(task).encode()

    def _send(self, report: ImportReport) -> None:
        """Have the batch's tasks made: all at once, or one by one if Label Studio refuses one of them."""
        batch, self._batch = self._batch, {}
        if not batch:
            return
        try:
            self._make(batch, report)
        except LabelStudioRefused as refusal:
            before = report.tasks
            for key, row in batch.items():
                try:
                    self._make({key: row}, report)
                except LabelStudioRefused as error:
                    report.findings.append(Finding("refused", row[0].name, _reason(error)))
            if not report.tasks and report.tasks == before and not report.present:
                raise refusal from None

    def _make(self, batch: dict[str, tuple[FoundPicture, PictureResult, bytes]], report: ImportReport) -> None:
        self._journal.sending(batch)
        try:
            self._client.import_annotated(self._project, [task for *_, task in batch.values()])
        except LabelStudioRefused:
            self._journal.settled()
            raise
        self._journal.settled()
        report.tasks += len(batch)
        for _, result, _ in batch.values():
            report.counts += result.counts
            report.findings += result.findings


def _pictures(folder: FoundFolder, report: ImportReport) -> Iterator[FoundPicture]:
    for row in folder.rows():
        if isinstance(row, Finding):
            report.findings.append(row)
        else:
            yield row


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"can't be read ({error.strerror or error})"
    return str(error)
