"""Names by content: those that are kept stay as they have ever been, and news is told by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annotated import CONFIG
from hypothesis import given
from hypothesis import strategies as st
from squares import SENTENCE, annotated_studio, correction, pictures

from backend.datasets import fingerprints
from backend.datasets.annotations import Correction, DrawnObject, Expression, SkippedTask, read_corrections
from backend.prompts.text import clean, spelled
from ris_core.data import Sample
from ris_core.files import sha256

RUNS = st.lists(st.text("0123456789:;<=>?@ABCabc`", min_size=1), max_size=4)
SENTENCES = st.text(max_size=30)


def drawn(runs: list[str], regions: range) -> tuple[DrawnObject, ...]:
    rles = zip(regions, runs, strict=True)
    return tuple(DrawnObject(str(region), "cat", {"size": [3, 4], "counts": run}, "manual") for region, run in rles)


@given(RUNS, RUNS, SENTENCES, st.integers(1, 10**9))
def test_what_is_kept_of_an_edit_is_found_again(runs: list[str], others: list[str], sentence: str, number: int) -> None:
    """As the first release wrote it: annotation, sentence and sorted run lengths."""
    split = len(runs)
    objects = (*drawn(runs, range(split)), *drawn(others, range(split, split + len(others))))
    expression = Expression(sentence, tuple(str(region) for region in range(split)))
    annotated, cleaned = Correction(1, number, "image.png", objects, (expression,)), clean(sentence)
    digests = (sha256("/".join([said, *sorted(runs)]).encode())[:16] for said in (cleaned, spelled(sentence)))
    assert fingerprints.edit_keys(annotated, expression) == tuple(f"{number}:{digest}" for digest in digests)
    assert fingerprints.of_corrections([annotated]) == {(1, cleaned, tuple(sorted(runs)))}


@given(RUNS, SENTENCES)
def test_the_masks_of_a_card_are_found_again(runs: list[str], sentence: str) -> None:
    sample = Sample(Path("7_a.png"), 7, 1, "val", sentence, 3, 4, tuple({"counts": run} for run in runs))
    joined = "/".join(sorted(runs))
    assert fingerprints.target(sample) == (sha256(joined.encode())[:16] if joined else "")
    assert fingerprints.of_samples([sample]) == {(7, clean(sentence) or sentence, tuple(sorted(runs)))}


@given(st.lists(st.text("0123456789abcdef", max_size=16), max_size=4), st.text("0123456789abcdef"), SENTENCES)
def test_the_reference_scores_of_a_card_are_found_again(targets: list[str], digest: str, sentence: str) -> None:
    meant = "/".join(sorted(set(targets)))
    expected = sha256(f"{digest[:16]}/{meant}/{sentence}".encode())[:16]
    assert fingerprints.held_out(fingerprints.picture(digest), targets, sentence) == expected


def test_an_expression_corrected_again_or_taken_back_is_news() -> None:
    studio = annotated_studio()

    def news(tasks: list[dict[str, Any]], *skipped: int) -> set[tuple[int, str]]:
        now = fingerprints.of_corrections(read_corrections(tasks, CONFIG).items)
        return fingerprints.changed(now, before, [SkippedTask(number, "") for number in skipped])

    before: frozenset[fingerprints.Fingerprint] = frozenset()
    assert len(news(studio.tasks)) == 12
    before = fingerprints.of_corrections(read_corrections(studio.tasks, CONFIG).items)
    assert news(studio.tasks) == set()
    studio.tasks[0] = correction(1, ~pictures()[0][1])
    studio.tasks[1]["annotations"][0]["updated_at"] = "2027-01-01T00:00:00Z"
    assert news(studio.tasks) == {(1, SENTENCE)}
    studio.tasks[2]["annotations"] = []
    del studio.tasks[3]
    assert news(studio.tasks) == {(number, SENTENCE) for number in (1, 3, 4)}
    # Its picture can't be had just now: that says nothing about what it shows.
    assert news(studio.tasks, 4) == {(number, SENTENCE) for number in (1, 3)}
