"""`make bench-loop DATA="ccp coco_mini"`: what corrections are worth, which to ask for, and what the gate keeps out.

The first dataset of DATA brings the labels that are new to the model, see annotators.py; a base model is trained on all
of them without any expression about those labels: LDA over EfficientNet-Lite2 and MiniLM, width 64, photos at 288
pixels, 4 passes (the shipped model's first steps, without its adapters and its 480 pixels). PASSES=10 makes a base that
finds most of the new labels by what their names mean. PASSES=0 takes the shipped model at 288 pixels, which was taught
them, in a project without older corrections: there is much that spoiled ones can spoil. Results are kept for each base.

curves: people are asked for pairs of a photo and a new label, chosen by a strategy from all pairs of 150 training
photos, 25, 50, 100 and 200 in all. Each time the base is fine-tuned on all corrections so far (photos of one fold in
five are held out of it, as in a project) by 60 steps of 4 photos, and measured on the dataset's test photos: mIoU over
those that show the label, and the share of all answers that people would leave as they are (IoU of at least 0.8, or
rightly refused). The area under mIoU against corrections is compared with random's, seed by seed.

gate: a project with some 160 corrections of known labels, and 40 more held out, gets 100 of the new labels, clean or
spoiled (masks of other photos, empty ones, wrong labels), those held out spoiled alike in every other spoiled loop.
What the gate says is compared with the scores of both versions on 48 test photos, for new and known labels together: a
version is worse if its mean score, or that of what is there, is lower by more than the gate's margin of 0.02, and
better if the former is higher by more and the latter not lower. With PASSES=0 clean loops are a third as many.

Results are appended to benchmarks/results/loop.json: call it again until nothing says "not run". MINUTES ends it after
the run in progress; PART ("curves" or "gate"), SEEDS ("0 1 2") and ONLY (strategies) choose. RUNS (default runs/loop)
holds the base.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from annotators import ACCEPTED, is_held_out, spoil
from plot import plot
from record import append, machine, results
from rich.console import Console
from rich.table import Table
from worlds import BASE_PASSES, RUNS, ShippedWorld, World, note

from backend.active_learning.strategies import STRATEGIES, Pair, rank
from backend.learning.candidate import PLAN, CandidateSpec, Plan, train_candidate
from backend.learning.gate import MARGIN, ComparedExpression, judge
from ris_core.data import Sample, by_photo
from ris_core.evaluation.evaluate import Report, evaluate
from ris_core.files import atomic_write
from ris_core.inference.prediction import PASSES, AssessedPrediction
from ris_core.inference.predictor import Predictor
from ris_core.inference.uncertainty import assess
from ris_core.training.batches import count_batches

CORRECTIONS, STEPS, BATCH = (25, 50, 100, 200), 60, 4
ASKED = 100
NEEDED = 20
SEEDS, LOOPS = 5, 100
HOW = ("shuffled", "empty", "mislabelled")
PICTURE = Path(__file__).parent / "results" / f"loop-{BASE_PASSES}.png"


def main() -> None:
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    deadline = time.monotonic() + 60 * float(os.environ.get("MINUTES", "inf"))
    world = (World if BASE_PASSES else ShippedWorld)([Path(name) for name in os.environ["DATA"].split()])
    for key, run in missing():
        if time.monotonic() > deadline:
            break
        started = time.monotonic()
        outcome = key | {"passes": BASE_PASSES} | run(world)
        append("loop", outcome | {"seconds": round(time.monotonic() - started), "machine": machine()})
    show()


def missing() -> Iterator[tuple[dict[str, Any], Callable[[World], dict[str, Any]]]]:
    """Runs without a result: what they are known by, and what does them."""
    wanted = os.environ.get("PART", "curves gate").split()
    seeds = [int(seed) for seed in os.environ.get("SEEDS", " ".join(map(str, range(LOOPS)))).split()]
    for seed in seeds:
        for key, run in [*_curves(seed), *_gates(seed)]:
            # Asked each time: another process may have done it meanwhile.
            if key["part"] in wanted and _key(key) not in map(_key, kept()):
                yield key, run


def kept(part: str | None = None) -> list[dict[str, Any]]:
    """Results that are there for this base."""
    return [result for result in results("loop") if result["passes"] == BASE_PASSES and part in (None, result["part"])]


def _key(run: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(run.get(name) for name in ("part", "seed", "strategy", "how", "validation"))


def _curves(seed: int) -> Iterator[tuple[dict[str, Any], Callable[[World], dict[str, Any]]]]:
    wanted = os.environ.get("ONLY", " ".join(STRATEGIES)).split()
    for strategy in wanted if seed < SEEDS else ():
        key = {"part": "curves", "seed": seed, "strategy": strategy}
        yield key, partial(curve, seed=seed, strategy=strategy)


def _gates(seed: int) -> Iterator[tuple[dict[str, Any], Callable[[World], dict[str, Any]]]]:
    if seed < LOOPS:
        how, validation = HOW[seed % len(HOW)], ("clean", "spoiled")[seed // len(HOW) % 2]
        if BASE_PASSES or seed % len(HOW) == 0:
            clean = partial(one_loop, seed=seed, how=None, spoils_validation=False)
            yield {"part": "gate", "seed": seed, "how": "clean"}, clean
        key = {"part": "gate", "seed": seed, "how": how, "validation": validation}
        yield key, partial(one_loop, seed=seed, how=how, spoils_validation=validation == "spoiled")


def curve(world: World, seed: int, strategy: str) -> dict[str, Any]:
    """Ask, fine-tune and measure, again and again."""
    left, corrected = world.pool(seed), list[Sample]()
    model, points = world.base, [measure(world.base, world.held_out, 0)]
    with tempfile.TemporaryDirectory() as scratch:
        for number, total in enumerate(CORRECTIONS):
            chosen = choose(model, left, corrected, strategy, seed, total - len(corrected))
            corrected += chosen
            left = [pair for pair in left if not any(pair is other for other in chosen)]
            model = fine_tune(world.base, corrected, Path(scratch) / str(number))
            points.append(measure(model, world.held_out, total))
            there = sum(pair.has_target for pair in corrected)
            note(f"{strategy}, seed {seed}: {points[-1]}, {there} of them there")
    return {"points": points}


def choose(
    model: Path, left: Sequence[Sample], corrected: Sequence[Sample], strategy: str, seed: int, count: int
) -> list[Sample]:
    """The pairs that a strategy asks for next."""
    answers = studied(Predictor.load(model), [*left, *corrected], PASSES if strategy == "disagreement" else 0)
    candidates = [
        Pair(pair.image_id, pair.sentence, answer.score, answer.disagreement or 0.0, answer.embedding)
        for pair, answer in zip(left, answers, strict=False)
    ]
    counts = Counter(pair.sentence for pair in corrected)
    labelled = [answer.embedding for answer in answers[len(left) :]]
    order = np.argsort(
        -rank(candidates, strategy, counts, seed, np.stack(labelled) if labelled else None), kind="stable"
    )
    return [left[number] for number in order[:count]]


def studied(predictor: Predictor, pairs: Sequence[Sample], passes: int) -> list[AssessedPrediction]:
    """What the model says to each pair, in their order."""
    answers: dict[int, AssessedPrediction] = {}
    for photo in by_photo(pairs):
        request = predictor.embed(photo[0].photo()), [pair.sentence for pair in photo]
        answers |= {
            id(pair): answer for pair, answer in zip(photo, assess(predictor, [request], passes)[0], strict=True)
        }
    return [answers[id(pair)] for pair in pairs]


def fine_tune(base: Path, corrected: Sequence[Sample], run: Path, past: Sequence[Sample] = ()) -> Path:
    """The base, trained further on those corrections that aren't held out, by about as many steps whatever they are."""
    fresh = [pair for pair in corrected if not is_held_out(pair)]
    taught = [*past, *fresh]
    photos = tuple(dict.fromkeys(pair.image.name for pair in taught))
    passes = max(1, round(STEPS / count_batches(taught, BATCH)))
    run.mkdir(parents=True)
    # A plan by steps instead of seconds: the same on every machine.
    atomic_write(run / PLAN, json.dumps(asdict(Plan(passes, photos, BATCH))).encode())
    new = {pair.image_id for pair in fresh}
    return train_candidate(
        CandidateSpec(base, taught, 3600, new, features=RUNS / "fine-tuning"), run, lambda share: None
    )


def measure(model: Path, samples: Sequence[Sample], corrections: int) -> dict[str, float]:
    report = evaluate(Predictor.load(model), samples)
    figures = {name: round(report.figures[name], 4) for name in ("mIoU", "T-acc", "N-acc", "ECE")}
    accepted = statistics.mean(score.correct >= ACCEPTED for score in report.scores)
    return {"corrections": corrections, **figures, "accepted": round(accepted, 4)}


def one_loop(world: World, seed: int, how: str | None, spoils_validation: bool) -> dict[str, Any]:
    """One round of corrections, one candidate, the gate's word and the truth."""
    corrections = random.Random(LOOPS + seed).sample(world.pool(LOOPS + seed), ASKED)
    given = spoil(corrections, how, seed) if how else corrections
    validation = world.history + [pair for pair in (given if spoils_validation else corrections) if is_held_out(pair)]
    with tempfile.TemporaryDirectory() as scratch:
        candidate = Predictor.load(fine_tune(world.base, given, Path(scratch) / "run", world.past))
    before, after = evaluate(Predictor.load(world.base), validation), evaluate(candidate, validation)
    verdict = judge(compared(before, after), NEEDED)
    truth = compared(world.before, evaluate(candidate, world.before.samples))
    new = [comparison for comparison in truth if comparison.prompt in world.new_prompts]
    known = [comparison for comparison in truth if comparison.prompt not in world.new_prompts]
    there = [comparison for comparison in truth if comparison.has_target]
    figures = {"truly": truth, "truly_new": new, "truly_known": known, "truly_there": there}
    change = {
        name: round(statistics.mean(comparison.after - comparison.before for comparison in part), 4)
        for name, part in figures.items()
    }
    note(f"{how or 'clean'}, seed {seed}: {verdict.decision}, {change}. {verdict.reason}")
    return {"decision": verdict.decision, "reason": verdict.reason, "held_out": len(validation), **change}


def compared(before: Report, after: Report) -> list[ComparedExpression]:
    """As `comparison.compare_versions` does, without its digests."""
    return [
        ComparedExpression(
            sample.image_id,
            sample.sentence,
            sample.image.name,
            "mask" if sample.has_target else "",
            was.correct,
            now.correct,
        )
        for sample, was, now in zip(before.samples, before.scores, after.scores, strict=True)
    ]


def show() -> None:
    show_curves(kept("curves"))
    show_gate(kept("gate"))


def show_curves(runs: Sequence[dict[str, Any]]) -> None:
    for figure in ("mIoU", "accepted"):
        areas = {(run["strategy"], run["seed"]): area(run["points"], figure) for run in runs}
        columns = ["strategy", "seeds", *(str(total) for total in (0, *CORRECTIONS))]
        table = Table(*columns, "area", "over random, 95 %", title=f"{figure} after so many corrections")
        for strategy in STRATEGIES:
            of_strategy = [run for run in runs if run["strategy"] == strategy]
            lines = [[point[figure] for point in run["points"]] for run in of_strategy]
            cells = [f"{statistics.mean(column):.3f}" for column in zip(*lines, strict=True)] or ["not run"] * 5
            mine = {seed: value for (name, seed), value in areas.items() if name == strategy}
            mean = f"{statistics.mean(mine.values()):.3f}" if mine else "not run"
            both = [mine[seed] - areas["random", seed] for seed in mine if ("random", seed) in areas]
            table.add_row(strategy, str(len(of_strategy)), *cells, mean, "" if strategy == "random" else spread(both))
        Console(width=140).print(table)
    if runs:
        draw(runs)


def show_gate(runs: Sequence[dict[str, Any]]) -> None:
    table = Table(
        *("corrections", "held out", "loops", "promoted", "of these worse", "held back", "of these better", "truly"),
        "where it is there",
        title="the gate",
    )
    for how in ("clean", *HOW):
        for validation in (None,) if how == "clean" else ("clean", "spoiled"):
            loops = [run for run in runs if run["how"] == how and run.get("validation") == validation]
            passed = [run for run in loops if run["decision"] == "passed"]
            kept_out = [run for run in loops if run["decision"] != "passed"]
            worse, better = sum(map(is_worse, passed)), sum(map(is_better, kept_out))
            cells = [str(len(passed)), str(worse), str(len(kept_out)), str(better)]
            cells += [mean_and_range([run[name] for run in loops if name in run]) for name in ("truly", "truly_there")]
            table.add_row(how, validation or "clean", str(len(loops)), *(cells if loops else ["not run"]))
    Console(width=140).print(table)


def is_worse(run: dict[str, Any]) -> bool:
    return min(run["truly"], run.get("truly_there", 0.0)) < -MARGIN


def is_better(run: dict[str, Any]) -> bool:
    return bool(run["truly"] > MARGIN) and not is_worse(run)


def mean_and_range(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):+.3f}, {min(values):+.3f} to {max(values):+.3f}" if values else ""


def draw(runs: Sequence[dict[str, Any]]) -> None:
    """The mean curve of each strategy as a picture, beside the results."""
    lines = {}
    for strategy in STRATEGIES:
        curves = [run["points"] for run in runs if run["strategy"] == strategy]
        if curves:
            heights = [statistics.mean(point["mIoU"] for point in points) for points in zip(*curves, strict=True)]
            lines[strategy] = list(zip((0, *CORRECTIONS), heights, strict=True))
    plot(PICTURE, f"mIoU on labels that are new to a model of {BASE_PASSES} passes", "corrections", lines)


def area(points: Sequence[dict[str, float]], figure: str) -> float:
    """Under a figure against corrections, as a mean height."""
    steps, heights = [point["corrections"] for point in points], [point[figure] for point in points]
    return float(np.trapezoid(heights, steps) / steps[-1])


def spread(differences: Sequence[float]) -> str:
    """Mean and 95 % interval of paired differences, by Student's t."""
    if len(differences) < 2:
        return "not run"
    quantile = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}[len(differences)]
    half = quantile * statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.mean(differences)
    return f"{mean:+.3f}, {mean - half:+.3f} to {mean + half:+.3f}"


if __name__ == "__main__":
    main()
