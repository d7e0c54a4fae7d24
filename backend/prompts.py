"""Where a prompt comes from, and which label its mask gets. Pure: knows no HTTP, no files and no model.

- In the editor, the sentence that was typed last counts; the task's own sentences don't.
- In a batch, the task's data: `prompt` or `prompts`, each a sentence or a list of sentences.
- The label is one whose name or alias occurs in the sentence as whole words (the longest such name); else the
  only label; else a label called other, object or thing; else the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.labelstudio.config import Label, LabelConfig
from backend.labelstudio.regions import typed_prompt
from ris_core.errors import PromptError

MAX_LENGTH = 500
MAX_PROMPTS = 32

_KEYS = ("prompt", "prompts")
_CATCH_ALL = ("other", "object", "thing")


@dataclass(frozen=True)
class PromptRequest:
    """A sentence, and the label that the mask it asks for gets."""

    prompt: str
    label: Label


def prompts_for(
    task: Mapping[str, Any],
    context: Mapping[str, Any] | None,
    config: LabelConfig,
    max_length: int = MAX_LENGTH,
    max_prompts: int = MAX_PROMPTS,
) -> list[PromptRequest]:
    """What to look for in a task's image; `context` is None in a batch. Nothing asked for gives [].

    Raises:
        PromptError: a sentence is blank, longer than `max_length` characters or not text; or too many.
    """
    prompts = _task_prompts(task) if context is None else _typed(context, config)
    if len(prompts) > max_prompts:
        raise PromptError(
            f"Task {task.get('id')} has {len(prompts)} prompts, more than {max_prompts}. "
            "Split it, or raise RIS_MAX_PROMPTS."
        )
    checked = (_checked(prompt, task, max_length) for prompt in prompts)
    return [PromptRequest(prompt, label_for(prompt, config)) for prompt in dict.fromkeys(checked)]


def label_for(prompt: str, config: LabelConfig) -> Label:
    """The label that a mask for `prompt` gets."""
    labels = config.brush.labels
    named = [(len(name), label) for label in labels for name in _names(label) if _occurs(name, prompt)]
    if named:
        return max(named, key=lambda found: found[0])[1]
    return labels[0] if len(labels) == 1 else _catch_all(labels)


def _catch_all(labels: Sequence[Label]) -> Label:
    by_name = {name.casefold(): label for label in reversed(labels) for name in _names(label)}
    return next((by_name[word] for word in _CATCH_ALL if word in by_name), labels[0])


def _names(label: Label) -> Iterable[str]:
    return filter(None, (label.value.strip(), (label.alias or "").strip()))


def _occurs(name: str, prompt: str) -> bool:
    # Not \b: a name may begin or end with a sign, such as "C++".
    pattern = rf"(?<!\w){re.escape(name.casefold())}(?!\w)"
    return re.search(pattern, prompt.casefold()) is not None


def _typed(context: Mapping[str, Any], config: LabelConfig) -> list[object]:
    prompt = typed_prompt(context, config)
    if prompt is not None:
        return [prompt]
    # A region of another tag asks for nothing; a submission without a sentence is a mistake to report.
    return [""] if any(_is_submission(region, config) for region in context.get("result") or ()) else []


def _is_submission(region: object, config: LabelConfig) -> bool:
    if not isinstance(region, Mapping) or config.prompt is None:
        return False
    value = region.get("value")
    return region.get("from_name") == config.prompt.name and isinstance(value, Mapping) and bool(value.get("text"))


def _task_prompts(task: Mapping[str, Any]) -> list[object]:
    data = task.get("data")
    values = [data.get(key) for key in _KEYS] if isinstance(data, Mapping) else []
    lists = (value if isinstance(value, list) else [value] for value in values)
    return [prompt for prompts in lists for prompt in prompts if prompt not in (None, "")]


def _checked(prompt: object, task: Mapping[str, Any], max_length: int) -> str:
    name = f"A prompt of task {task.get('id')}"
    if not isinstance(prompt, str):
        raise PromptError(f"{name} isn't text but {type(prompt).__name__}. Write it as a sentence.")
    sentence = " ".join(prompt.split())
    if not sentence:
        raise PromptError(f"{name} is empty. Describe the thing to find, such as: the red car on the left.")
    if len(sentence) > max_length:
        raise PromptError(
            f"{name} has {len(sentence)} characters, more than {max_length}. "
            "Shorten it, or raise RIS_MAX_PROMPT_LENGTH."
        )
    return sentence
