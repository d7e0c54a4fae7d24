"""The home folder (`.ris`): where everything in it is. Paths alone: nothing here reads or writes.

ris.env                     secrets and settings of all projects
lock                        held while `ris up` runs
logs/                       a log of each service of `ris up`
models/                     versions of the model, see `backend.registry`, or `backend.store` where there is one
projects/<project>.*        settings, labelling interface, prompt sheet and the like of one project
snapshots/<project>/<id>/   datasets that were trained on, see `backend.datasets.snapshots`
pictures/                   each picture of them, once
exports/<name>/             copies of snapshots
learning/<project>/         state of a training that isn't at its end
taught/<project>/           what a teacher said of tasks without annotation, see `backend.learning.teaching`
spool/                      events that came while Valkey was away
images/ features/ pairs/    caches: downloads, encoded photos, what predictions are ranked by
valkey/ label-studio/       data of the servers that `ris up` starts
backup.lock                 held while a back-up is made
.restored/                  a restored home that isn't in its place yet, see `backend.local.restore`
"""

import os
from pathlib import Path

DEFAULT_HOME = Path(".ris")


def home_folder() -> Path:
    """The home folder: RIS_HOME, else .ris here."""
    return Path(os.environ.get("RIS_HOME") or DEFAULT_HOME)


def env_file(home: Path) -> Path:
    """Secrets and settings of all projects."""
    return home / "ris.env"


def lock_file(home: Path) -> Path:
    """Held while `ris up` runs."""
    return home / "lock"


def logs_folder(home: Path) -> Path:
    """A log of each service of `ris up`."""
    return home / "logs"


def models_folder(home: Path) -> Path:
    """The model registry, see `backend.registry`."""
    return home / "models"


def projects_folder(home: Path) -> Path:
    """What is kept of single projects."""
    return home / "projects"


def project_env_file(home: Path, project: int) -> Path:
    """Where the knobs of one project are, those by which it learns and is pre-labelled; they win over all others."""
    return _of_project(home, project, "env")


def interface_file(home: Path, project: int) -> Path:
    """The labelling interface that Label Studio showed last."""
    return _of_project(home, project, "interface.xml")


def interfaces(home: Path) -> dict[int, Path]:
    """Project -> `interface_file`, of all projects that have shown one."""
    files = projects_folder(home).glob("*.interface.xml")
    return {int(name): file for file in files if (name := file.name.partition(".")[0]).isdecimal()}


def prompt_sheet_file(home: Path, project: int) -> Path:
    """A project's prompt sheet, see `backend.prompts.sheet`."""
    return _of_project(home, project, "prompts.json")


def last_prompt_file(home: Path, project: int) -> Path:
    """What was typed last, where there is no Valkey to keep it."""
    return _of_project(home, project, "typed.json")


def edits_file(home: Path, project: int) -> Path:
    """What annotators did to predictions, as it was measured."""
    return _of_project(home, project, "changes.json")


def categories_file(home: Path, project: int) -> Path:
    """The numbers of a project's categories, see `backend.datasets.categories`."""
    return _of_project(home, project, "categories.json")


def records_file(home: Path, project: int) -> Path:
    """What a project's annotations say, as exports have read them: a cache."""
    return _of_project(home, project, "records.sqlite")


def import_file(home: Path, project: int) -> Path:
    """How far an import into a project is, see `backend.datasets.imports.journal`."""
    return _of_project(home, project, "import.json")


def rollout_lock(home: Path, project: int) -> Path:
    """Held while a project's predictions are made anew."""
    return _of_project(home, project, "refresh.lock")


def taught_folder(home: Path, project: int) -> Path:
    """What a teacher said of a project's tasks: notes, and dataset folders named by their content."""
    return home / "taught" / str(project)


def snapshots_folder(home: Path, project: int) -> Path:
    """A project's snapshots, one a folder, see `backend.datasets.snapshots`."""
    return home / "snapshots" / str(project)


def pictures_folder(home: Path) -> Path:
    """The pictures of all snapshots, each once."""
    return home / "pictures"


def exports_folder(home: Path) -> Path:
    """Copies of snapshots in other formats, where no other folder is given."""
    return home / "exports"


def learning_folder(home: Path, project: int) -> Path:
    """The state of a project's training that isn't at its end."""
    return home / "learning" / str(project)


def spool_file(home: Path) -> Path:
    """Events that came while Valkey was away."""
    return home / "spool" / "events.jsonl"


def images_folder(home: Path) -> Path:
    """Cache of downloaded images."""
    return home / "images"


def features_folder(home: Path) -> Path:
    """Cache of encoded photos."""
    return home / "features"


def pairs_folder(home: Path) -> Path:
    """What a project's tasks are ranked by."""
    return home / "pairs"


def valkey_folder(home: Path) -> Path:
    """Data of the Valkey that `ris up` starts."""
    return home / "valkey"


def label_studio_folder(home: Path) -> Path:
    """Data of the Label Studio that `ris up` starts."""
    return home / "label-studio"


def backup_lock(home: Path) -> Path:
    """Held while a back-up is made."""
    return home / "backup.lock"


def restored_folder(home: Path) -> Path:
    """What a restore has still to put in its place: while it is there, the home folder is neither old nor new."""
    return home / ".restored"


def _of_project(home: Path, project: int, suffix: str) -> Path:
    return projects_folder(home) / f"{int(project)}.{suffix}"
