"""What the console does: each of them a command's own service, told from a form. Knows no page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from backend.batches.service import submit_project
from backend.datasets.export import ExportSpec, check_name, usual_name
from backend.errors import BadRequest
from backend.learning import versions

if TYPE_CHECKING:
    from backend.web.console.parts import ConsoleParts

Form = Mapping[str, str]
_NEVER_MORE_THAN = 10_000


def promote(parts: ConsoleParts, project: int, name: str, form: Form) -> None:
    """Put a version into production in place of the one that the person saw there. Raises PromotionConflict."""
    versions.promote(parts.registry, project, name, parts.queue, _expected(form))


def roll_back(parts: ConsoleParts, project: int, form: Form) -> None:
    """Take back the version that the person saw in production. Raises PromotionConflict, NothingEarlier."""
    versions.rollback(parts.registry, project, parts.queue, _expected(form))


def fine_tune(parts: ConsoleParts, project: int) -> str:
    """Learn from all corrections, however few are new. Returns the job."""
    return parts.queue.learn(project, min_new=0).job


def prelabel(parts: ConsoleParts, project: int, form: Form) -> str:
    """Predict all tasks in the background. Returns the batch. Raises PromptError, LabelStudioError, BadRequest."""
    prompts, label = _lines(form.get("prompts", "")), form.get("label", "").strip() or None
    labelled = [(prompt, label) for prompt in prompts]
    force = form.get("force") == "yes"
    return submit_project(parts.batches, parts.client, parts.models, project, labelled, force=force).id


def export(parts: ConsoleParts, project: int, form: Form) -> str:
    """Export a project in the background. Returns the job. Raises BadRequest."""
    spec = ExportSpec.of(
        {
            "format": form.get("format", ""),
            "annotations": form.get("annotations", ""),
            "images": form.get("images", ""),
            "tolerance": _number(form.get("tolerance", "")),
            "strict": form.get("strict") == "yes",
            "report": form.get("report") == "yes",
        }
    )
    name = form.get("name", "").strip() or usual_name(project, spec.format)
    check_name(name)
    return parts.queue.export(project, name, asdict(spec)).job


def _expected(form: Form) -> str:
    seen = form.get("instead_of", "")
    if not seen:
        raise BadRequest("The form doesn't say which version it is about. Go back, reload the page, and try again.")
    return seen


def _lines(text: str) -> Sequence[str]:
    return [line.strip() for line in text[:_NEVER_MORE_THAN].splitlines() if line.strip()]


def _number(text: str) -> float:
    try:
        return float(text or 0)
    except ValueError:
        raise BadRequest(f"{text[:40]!r} isn't a number of pixels.") from None
