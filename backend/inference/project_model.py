"""How each project is answered: what is asked for, and the version string of the answers.

The string is `<model version>.<digest>`, such as lda-794c684f.3fa2c1. Label Studio takes a task as done once it has a
prediction of the string that /setup names, so the string changes with whatever changes answers of a batch:
- before the dot the registry's name of the model version: its weights, design and operating point;
- the labels: value, alias and the attributes prompt, prompts, negative and predicted_values;
- the tags that answers are shown in: kind, name, tolerance, objects, smallest; the Image tag and the prompt TextArea;
- the prompt sheet;
- the knobs `KNOBS` of the project;
- `_REVISION`, raised when the code makes other answers of the same.
Not covered are prompts in a task's data: who changes those predicts again by `--force`. Colours, hints and hotkeys
don't change it.

Two more strings are never taken for it. Somebody who opens one task gets a plain /predict of that task alone:
    ...#offered   the prompt typed last in this project, tried on a task without one
    ...#opened    nothing yet: to ask for every label by its name is left to batches, where nobody is there to type
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backend.errors import ConfigError
from backend.home import interface_file, interfaces
from backend.labelstudio.label_config import Defaults, Label, LabelConfig, MaskControl, parse
from backend.labelstudio.regions import typed_prompt
from backend.prompts.label_matching import SentenceVectors
from backend.prompts.last_answers import LastAnswers
from backend.prompts.last_prompt import FileLastPrompt, LastPrompt
from backend.prompts.mending import MaskInEditor
from backend.prompts.request import PromptRequest
from backend.prompts.requests import RequestBuilder
from backend.prompts.sheet import PromptSheet, load_sheet
from backend.registry import Registry, Version
from backend.settings import Settings
from ris_core.files import atomic_write, sha256
from ris_core.inference.prompt import Prompt

_log = logging.getLogger(__name__)

OFFERED, OPENED = "#offered", "#opened"

Task: TypeAlias = Mapping[str, Any]
"""As Label Studio's API and its requests give it."""

KNOBS = ("prelabel_labels", "prelabel_min_score")
ATTRIBUTES = ("negative", "predicted_values", "prompt", "prompts")
_REVISION = 2
_DIGITS = 6


def answer_version(version_name: str, config: LabelConfig, sheet: PromptSheet, settings_digest: str) -> str:
    """The string under which a version's answers are known, see above: the same wherever it is made."""
    covered = {
        "revision": _REVISION,
        "labels": [_label(label) for label in config.labels],
        "controls": [_control(control) for control in config.controls],
        "image": _plain(config.image),
        "prompt": _plain(config.prompt),
        "sheet": sheet.as_json(),
        "settings": settings_digest,
    }
    return f"{version_name}.{_digest(covered)[:_DIGITS]}"


def settings_digest(settings: Settings) -> str:
    """Hexadecimal digits that change with the knobs that change answers."""
    return _digest({knob: getattr(settings, knob) for knob in KNOBS})


@dataclass(frozen=True)
class PromptedTask:
    """A task, what is asked of it, and the version string of the answer.

    image: encoded, or decoded as HxWx3 uint8 RGB; None as long as nobody fetched it. identity: its file's SHA-256.
    """

    task: Task
    requests: tuple[PromptRequest, ...]
    version: str
    image: bytes | NDArray[np.uint8] | None = None
    identity: str = ""

    @property
    def asked(self) -> list[str | Prompt]:
        """All that the model is to be asked, negatives included."""
        return [prompt for request in self.requests for prompt in request.asked]


@dataclass(frozen=True)
class ProjectModel:
    """How one project is answered at this moment. `name` is the version string of a batch's answers."""

    project: int
    version: Version
    config: LabelConfig
    sheet: PromptSheet
    settings: Settings
    last_prompt: LastPrompt
    vectors: SentenceVectors | None = None
    last_answers: LastAnswers = field(default_factory=LastAnswers)

    @cached_property
    def name(self) -> str:
        """See above, for instance lda-794c684f.3fa2c1."""
        return answer_version(self.version.name, self.config, self.sheet, settings_digest(self.settings))

    def prompted(self, task: Task, context: Mapping[str, Any] | None = None, opened: bool = False) -> PromptedTask:
        """A task with what it asks for, without its image. Raises PromptError: that can't be asked.

        context: None unless somebody is at work on it. opened: the request is about it alone, so somebody may open it.
        """
        builder, name = self._builder(f"task {task.get('id')}"), self.name
        if context is not None:
            answers = self.last_answers.of(self.project, task.get("id"))
            return self._noted(task, builder.for_editor(task, context, answers), name)
        requests = builder.for_batch(task)
        if opened and (offered := self._offered(requests)):
            return self._noted(task, offered, name + OFFERED)
        if requests or not self.settings.prelabel_labels:
            return self._noted(task, requests, name)
        if opened and self.config.prompt:
            return PromptedTask(task, (), name + OPENED)
        return PromptedTask(task, tuple(builder.for_batch(task, names=True)), name)

    def requests_from_command(self, prompts: Iterable[tuple[str, str | None]]) -> list[PromptRequest]:
        """Prompts that a command gives for all tasks of the project, each with its label or None: the one it names.

        Raises PromptError: one of them can't be asked, or they are too many.
        """
        return self._builder("the command").for_sentences(prompts, "command")

    def remember_prompt(self, context: Mapping[str, Any]) -> None:
        """Keep the sentence that was typed, once it is answered, for the next picture."""
        sentence = (typed_prompt(context, self.config) or "").rstrip("? ")
        if sentence and self.settings.prelabel_remember:
            self.last_prompt.remember(self.project, sentence)

    def remember_answers(self, task: Task, answers: Sequence[MaskInEditor]) -> None:
        """Keep what the editor was answered of a task, for clicks that mend it."""
        self.last_answers.add(self.project, task.get("id"), answers)

    def _offered(self, requests: list[PromptRequest]) -> list[PromptRequest]:
        """What is asked of a task that somebody opens: the prompt typed last, if the task itself says nothing."""
        wanted = self.settings.prelabel_remember and self.config.prompt
        if not wanted or any(request.source == "task" for request in requests):
            return []
        sentence = self.last_prompt.recall(self.project)
        if not sentence:
            return []
        [offered] = self._builder("the prompt typed last").for_sentences([(sentence, None)], "offered")
        taken = offered.label and offered.label.value
        return [offered, *(request for request in requests if not request.label or request.label.value != taken)]

    def _noted(self, task: Task, requests: list[PromptRequest], version: str) -> PromptedTask:
        for note in (note for request in requests for note in request.notes):
            _log.info("Task %s of project %s: %s.", task.get("id"), self.project, note)
        return PromptedTask(task, tuple(requests), version)

    def _builder(self, about: str) -> RequestBuilder:
        limits = self.settings.max_prompt_length, self.settings.max_prompts
        return RequestBuilder(self.config, self.sheet, about, *limits, self.vectors)


class ProjectModels:
    """How all projects are answered, from what their files say at that moment. Safe for threads and processes."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        last_prompt: LastPrompt | None = None,
        vectors: SentenceVectors | None = None,
    ) -> None:
        """`vectors`: to find labels by meaning."""
        self._registry = registry
        self._settings = settings
        self._last_prompt = last_prompt or FileLastPrompt(settings.home)
        self._vectors = vectors
        self._last_answers = LastAnswers()

    def parse_interface(self, project: int, xml: str) -> LabelConfig:
        """A project's labelling interface, with the project's defaults. Raises ConfigError, SettingsError."""
        return parse(xml, Defaults.of(self._settings.of_project(project)))

    def of(self, project: int, config: LabelConfig, version: Version | None = None) -> ProjectModel:
        """How a project is answered by a version of the model, the one in production unless given.

        Raises RegistryError, SettingsError or SheetError: one of the project's files is damaged.
        """
        settings = self._settings.of_project(project)
        sheet = load_sheet(settings.home, project)
        version = version or self._registry.current(project)
        kept = self._last_prompt, self._vectors, self._last_answers
        return ProjectModel(project, version, config, sheet, settings, *kept)

    def of_interface(self, project: int, xml: str, version: Version | None = None) -> ProjectModel:
        """`of`, by the labelling interface as Label Studio has it; raises as `parse_interface` does, too."""
        return self.of(project, self.parse_interface(project, xml), version)

    def note_interface(self, project: int, xml: str) -> None:
        """Keep a project's labelling interface for `versions`; Label Studio sends it with /setup alone."""
        file = interface_file(self._settings.home, project)
        try:
            if not file.exists() or file.read_text(encoding="utf-8") != xml:
                atomic_write(file, xml.encode(), mode=0o600)
        except OSError as error:
            # A full disk shouldn't cost people their predictions.
            _log.warning("The labelling interface of project %s isn't kept: %s", project, error)

    def versions(self, project: int | None = None) -> list[str]:
        """The version strings of a project, or of all, oldest model first; the bare names before any /setup."""
        home, registry = self._settings.home, self._registry
        projects = sorted({*interfaces(home), *registry.projects()}) if project is None else [project]
        names = [name for number in projects for name in self._versions(number)]
        return list(dict.fromkeys(names)) or [self._registry.base.name]

    def _versions(self, project: int) -> list[str]:
        names = [version.name for version in self._registry.versions(project)]
        try:
            xml = interface_file(self._settings.home, project).read_text(encoding="utf-8")
            project_model = self.of_interface(project, xml)
        except (FileNotFoundError, ConfigError):
            return names
        config, sheet, digest = project_model.config, project_model.sheet, settings_digest(project_model.settings)
        return [answer_version(name, config, sheet, digest) for name in names]


def _label(label: Label) -> dict[str, Any]:
    attributes = {name: label.attributes[name] for name in ATTRIBUTES if name in label.attributes}
    return {"value": label.value, "alias": label.alias, **attributes}


def _control(control: MaskControl) -> dict[str, Any]:
    return {**_plain(control), "labels": [label.value for label in control.labels]}


def _plain(part: Any) -> dict[str, Any]:
    """The fields of a dataclass that are plain values."""
    if part is None:
        return {}
    values = ((each.name, getattr(part, each.name)) for each in fields(part))
    return {name: value for name, value in values if isinstance(value, str | int | float | None)}


def _digest(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode())
