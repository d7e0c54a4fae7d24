"""Where prompts come from, of the editor and of batches.

Knows no HTTP, no files and no model.

In the editor one prompt counts: the sentence that was typed last ("the sky?" asks for a guess, too: the mask of what
the model takes for absent); or, if a smart point or rectangle was drawn, what is there. `mending` says which mask that
is about: then what was asked for that mask counts, its label and its regions. A thing of its own gets the label that
it was drawn with, else the only one, else the one for other things, else none.

In a batch, first to last; what comes earlier replaces what comes later for the same label, different labels add up:
1. the task's data, under the key that the prompt TextArea shows (`value="$caption"`), else under `prompt` and
   `prompts`, else `caption`, else `expression`: a sentence, {label: sentence}, {"label": ..., "prompt": ...,
   "negative": ...}, or a list of these;
2. the attributes of each Label: `prompt`, or `prompts` separated by |;
3. the project's prompt sheet;
4. if nothing of this asks for anything, and the project wants it, each label by its name, except other and the like.

"the dogs; not the puppy" takes what "the puppy" finds away from what "the dogs" finds. In a batch the label's own
negatives (its attribute `negative`, else the sheet's) are taken away as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from backend.labelstudio.json_values import objects_in
from backend.labelstudio.label_config import Label, LabelConfig
from backend.labelstudio.regions import regions_of, typed_prompt
from backend.labelstudio.task_data import look_up
from backend.prompts.geometry import GeometricPrompt, read_geometry
from backend.prompts.label_matching import LabelMatch, SentenceVectors, alternatives, find_label, is_catch_all
from backend.prompts.mending import MaskInEditor, find_mended, masks_of, still_there
from backend.prompts.request import PromptRequest, PromptSource
from backend.prompts.sheet import EMPTY, PromptSheet
from backend.prompts.text import clean
from ris_core.errors import PromptError

_KEYS = (("prompt", "prompts"), ("caption",), ("expression",))
_NOT = re.compile(r"\s*;\s*not\s+", re.IGNORECASE)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class RequestBuilder:
    """Makes requests for one picture. Asking for nothing gives [].

    Every method raises PromptError: a sentence is blank, too long or not text, or there are too many.

    about: names the picture in errors. max_length: of a sentence, in characters. max_prompts: sentences a picture,
    negatives among them. vectors: to find labels by meaning.
    """

    config: LabelConfig
    sheet: PromptSheet = EMPTY
    about: str = "the command"
    max_length: int = 500
    max_prompts: int = 32
    vectors: SentenceVectors | None = None

    def for_editor(
        self, task: Mapping[str, Any], context: Mapping[str, Any], answers: Sequence[MaskInEditor] = ()
    ) -> list[PromptRequest]:
        """What somebody at work on the task asks for. answers: the latest that were given for it, oldest first."""
        geometry, typed = read_geometry(context, self._stored), typed_prompt(context, self.config)
        if typed or _is_submitted_blank(context, self.config):
            sentence = (typed or "").rstrip("? ")
            request = self._request(sentence or typed or "", "typed")
            return self._checked([replace(request, guessed=sentence != typed)])
        if geometry is None:
            # A region of another tag, or one just deleted, asks for nothing.
            return []
        known = still_there(answers, task, self.config)
        if self._says_absent(task):
            # What isn't in the picture isn't what was pointed at.
            known = [answer for answer in known if answer.mask is not None]
        drawn = masks_of(task, self.config, known)
        pointed = (self._pointed_at(thing, task, known, drawn) for thing in geometry.things())
        return self._checked(filter(None, pointed))

    def _pointed_at(
        self,
        geometry: GeometricPrompt,
        task: Mapping[str, Any],
        known: Sequence[MaskInEditor],
        drawn: Sequence[MaskInEditor],
    ) -> PromptRequest | None:
        """What is asked by pointing; None where it says only where something isn't, and there is no mask yet."""
        drawn_with = self.config.label(geometry.label) if geometry.label else None
        mended = find_mended(geometry, drawn_with.value if drawn_with else None, known, drawn)
        if mended is None and not geometry.positive:
            return None
        sentence, source = mended.sentence if mended else "", "typed"
        if mended is None and (drafted := self._unanswered(task, (*known, *drawn))):
            sentence, source = drafted, "draft"
        label = drawn_with or (self.config.label(mended.label) if mended and mended.label else None)
        if sentence:
            request = self._request(sentence, "draft" if source == "draft" else "typed", label)
        else:
            match = LabelMatch(label) if label or mended else self._unnamed()
            request = PromptRequest("", match.label, notes=(match.note,) if match.note else ())
        return replace(request, geometry=geometry, mended=mended)

    def _unanswered(self, task: Mapping[str, Any], masks: Sequence[MaskInEditor]) -> str | None:
        """The sentence typed last, unless there is a mask for it: a click shows where the thing is."""
        typed = next(filter(None, (typed_prompt(row, self.config) for row in _drafts_and_annotations(task))), None)
        answered = {clean(mask.sentence) for mask in masks}
        # Without rows of spaces, over which the pattern would take the square of their number.
        sentence = " ".join((typed or "").rstrip("? ").split())
        if not sentence or self._says_absent(task):
            return None
        return None if clean(_NOT.split(sentence)[0]) in answered else sentence

    def _says_absent(self, task: Mapping[str, Any]) -> bool:
        """Whether people said of the picture that what was asked for isn't in it."""
        newest = next(iter(_drafts_and_annotations(task)), {})
        return self.config.absent is not None and any(
            region.get("from_name") == self.config.absent for region in regions_of(newest.get("result"))
        )

    def _unnamed(self) -> LabelMatch:
        """The label of a thing of which nothing but the place is known."""
        labels = self.config.labels
        known = labels[0] if len(labels) == 1 else next(filter(is_catch_all, labels), None)
        return LabelMatch(known, "" if known else "it has no label yet: choose one")

    @cached_property
    def _stored(self) -> list[str]:
        return [name for label in self.config.labels for name in (label.value, label.stored)]

    def for_batch(self, task: Mapping[str, Any], names: bool = False) -> list[PromptRequest]:
        """What a task is asked for when nobody is at work on it; with `names`, else each label by its name."""
        requests = _merged(self._of_task(task), self._of_labels(), self._of_sheet())
        return self._checked(requests or (list(self._of_names()) if names else []))

    def for_sentences(self, prompts: Iterable[tuple[str, str | None]], source: PromptSource) -> list[PromptRequest]:
        """Sentences for any picture, each with one of its label's names, or None for the label that it names."""
        return self._checked(self._request(sentence, source, label, echo=True) for sentence, label in prompts)

    def _of_task(self, task: Mapping[str, Any]) -> Iterator[PromptRequest]:
        for sentence, label, negatives in _entries(_task_values(task, self.config)):
            request = self._request(sentence, "task", label, echo=True)
            yield self._with_negatives(request, map(self._sentence, negatives))

    def _of_labels(self) -> Iterator[PromptRequest]:
        for label in self.config.labels:
            for name in ("prompt", "prompts"):
                yield from self._about(label, alternatives(label.attributes.get(name, "")), "label")

    def _of_sheet(self) -> Iterator[PromptRequest]:
        for label in self.config.labels:
            yield from self._about(label, self.sheet.entry(label.value, label.alias).prompts, "sheet")

    def _of_names(self) -> Iterator[PromptRequest]:
        for label in self.config.labels:
            if not is_catch_all(label):
                yield from self._about(label, [label.value.replace("_", " ")], "name")

    def _about(self, label: Label, sentences: Iterable[str], source: PromptSource) -> Iterator[PromptRequest]:
        return (self._with_negatives(self._request(sentence, source, label)) for sentence in sentences)

    def _with_negatives(self, request: PromptRequest, more: Iterable[str] = ()) -> PromptRequest:
        label = request.label
        own = alternatives(label.attributes.get("negative", "")) if label else []
        own = own or list(self.sheet.entry(label.value, label.alias).negatives if label else ())
        negatives = dict.fromkeys([*request.negatives, *more, *map(self._sentence, own)])
        return replace(request, negatives=tuple(negative for negative in negatives if negative != request.prompt))

    def _request(
        self,
        value: object,
        source: PromptSource,
        label: Label | str | None = None,
        echo: bool = False,
    ) -> PromptRequest:
        """`label`: itself, one of its names, or None for the one that the prompt names."""
        sentence = self._sentence(value)
        prompt, *negatives = (self._sentence(part) for part in _NOT.split(sentence))
        match = self._match(label or prompt)
        shown = sentence if echo else ""
        notes = (match.note,) if match.note else ()
        return PromptRequest(prompt, match.label, tuple(negatives), source=source, echo=shown, notes=notes)

    def _match(self, label: Label | str) -> LabelMatch:
        known = label if isinstance(label, Label) else self.config.label(label)
        return LabelMatch(known) if known else find_label(str(label), self.config, self._further_names, self.vectors)

    @cached_property
    def _further_names(self) -> dict[str, list[str]]:
        return {label.value: self.sheet.names(label.value, label.alias) for label in self.config.labels}

    def _sentence(self, value: object) -> str:
        name = f"A prompt of {self.about}"
        if not isinstance(value, str):
            raise PromptError(f"{name} isn't text but {type(value).__name__}. Write it as a sentence.")
        sentence = " ".join(value.split())
        if not sentence:
            raise PromptError(f"{name} is empty. Describe the thing to find, such as: the red car on the left.")
        if len(sentence) > self.max_length:
            raise PromptError(
                f"{name} has {len(sentence)} characters, more than {self.max_length}. "
                "Shorten it, or raise RIS_MAX_PROMPT_LENGTH."
            )
        return sentence

    def _checked(self, requests: Iterable[PromptRequest]) -> list[PromptRequest]:
        """Each request once, and not too many."""
        first: dict[tuple[object, ...], PromptRequest] = {}
        for request in requests:
            label = request.label.value if request.label else None
            first.setdefault((clean(request.prompt), label, request.geometry and request.geometry.keys), request)
        kept = list(first.values())
        count = sum(len(request.asked) for request in kept)
        if count > self.max_prompts:
            raise PromptError(
                f"{self.about.capitalize()} has {count} prompts, more than {self.max_prompts}. "
                "Split it, or raise RIS_MAX_PROMPTS."
            )
        return kept


def _merged(*sources: Iterable[PromptRequest]) -> list[PromptRequest]:
    kept: list[PromptRequest] = []
    for source in sources:
        taken = {request.label.value for request in kept if request.label}
        kept += [request for request in source if request.label is None or request.label.value not in taken]
    return kept


def _task_values(task: Mapping[str, Any], config: LabelConfig) -> list[object]:
    """What the task's data says that is to be found, as it is written there."""
    data = task.get("data")
    if not isinstance(data, Mapping):
        return []
    shown = config.prompt.key if config.prompt else None
    is_there = shown and (shown in data or look_up(data, shown) is not None)
    for keys in ((shown,),) if shown and is_there else _KEYS:
        values = [value for value in (look_up(data, key) for key in keys) if value not in (None, "", [], {})]
        if values:
            return [entry for value in values for entry in _as_list(value)]
    return []


def _entries(values: list[object]) -> Iterator[tuple[object, str | None, list[object]]]:
    """(sentence, its label if that is said, its negatives) of each prompt in a task's data."""
    for value in _filled(values):
        if not isinstance(value, Mapping):
            yield value, None, []
        elif "prompt" in value and value.keys() <= {"label", "prompt", "negative"}:
            label = value.get("label")
            yield value["prompt"], str(label) if label else None, _filled(value.get("negative"))
        else:
            yield from ((sentence, str(label), []) for label, own in value.items() for sentence in _filled(own))


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _filled(value: object) -> list[object]:
    return [sentence for sentence in _as_list(value) if sentence not in (None, "")]


def _drafts_and_annotations(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The drafts of whoever is at work on a task, then the annotations, the newest first."""
    rows: list[Mapping[str, Any]] = []
    for name in ("drafts", "annotations"):
        values = task.get(name)
        own = [row for row in values if isinstance(row, Mapping)] if isinstance(values, list) else []
        rows += sorted(own, key=_changed, reverse=True)
    return rows


def _changed(row: Mapping[str, Any]) -> datetime:
    try:
        # As text, "02:23Z" would sort after "02:23.85Z".
        when = datetime.fromisoformat(str(row.get("updated_at") or row.get("created_at")))
    except ValueError:
        return _NEVER
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _is_submitted_blank(context: Mapping[str, Any], config: LabelConfig) -> bool:
    """Whether a sentence was submitted that has no word: a mistake to report."""
    return config.prompt is not None and any(
        region.get("from_name") == config.prompt.name
        and isinstance(region.get("value"), Mapping)
        and bool(region["value"].get("text"))
        for region in objects_in(context.get("result"))
    )
