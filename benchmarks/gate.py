"""`make bench-gate`: how often versions that are truly better, equal or worse pass the gate. No model is run.

A version is simulated by its chance to answer each expression and by the IoU when it does: half of the expressions are
known (a chance of about 0.92), a third are hard (0.4), the others are of absent things (0.8). A photo has two on
average. A successor shares most of its predecessor's luck (correlation 0.9) and changes chances and IoUs as its row
says. "truly" is the change of the expected score, over all expressions and over the known ones.

Columns: the share that passes, with 20, 60 and 200 held-out expressions; "plain": the share if the fall on what worked
before were compared with the margin as it is, not beyond chance.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from record import keep
from rich.console import Console
from rich.table import Table

from backend.learning.gate import MARGIN, ComparedExpression, judge

SIZES, NEEDED = (20, 60, 200), 20
TRIALS = 20 if os.environ.get("QUICK") else 100
KNOWN, HARD, ABSENT = range(3)
_LUCK, _NOISE = 0.9, 0.05

Floats = NDArray[np.float64]


# What is added to the logit of the chance of known, hard and absent expressions, and to the IoU of the same.
CHANGES = {
    "much better": ((1.0, 2.5, 1.0), (0.03, 0.03, 0)),
    "better": ((0.5, 1.2, 0.5), (0.02, 0.02, 0)),
    "better a bit": ((0.2, 0.4, 0.2), (0.01, 0.01, 0)),
    "only learns new things": ((0, 1.5, 0), (0, 0, 0)),
    "equal": ((0, 0, 0), (0, 0, 0)),
    "learns and forgets a bit": ((-0.4, 1.5, -0.4), (-0.03, 0, 0)),
    "learns and forgets": ((-1.0, 2.5, -1.0), (-0.08, 0, 0)),
    "learns to refuse": ((-1.0, -1.0, 4.0), (0, 0, 0)),
    "learns to answer all": ((0.7, 0.7, -4.0), (0, 0, 0)),
    "worse a bit": ((-0.3, -0.3, -0.3), (-0.01, -0.01, 0)),
    "worse": ((-0.8, -0.8, -0.8), (-0.03, -0.03, 0)),
}


@dataclass(frozen=True)
class World:
    """Held-out expressions: photo, kind, chance to be answered rightly and IoU when it is, each of N."""

    photos: NDArray[np.int64]
    kinds: NDArray[np.int64]
    chance: Floats
    iou: Floats

    def expected(self, more: Floats, wider: Floats) -> Floats:
        return self.moved(more) * np.where(self.kinds == ABSENT, 1, np.clip(self.iou + wider, 0, 1))

    def moved(self, more: Floats) -> Floats:
        return 1 / (1 + (1 - self.chance) / self.chance * np.exp(-more))

    def answers(self, luck: Floats, more: Floats, wider: Floats) -> Floats:
        limits = np.array([NormalDist().inv_cdf(each) for each in self.moved(more)])
        scores = np.where(self.kinds == ABSENT, 1, np.clip(self.iou + wider, 0, 1))
        return np.where(luck < limits, scores, 0)


def draw_world(random: np.random.Generator, size: int) -> World:
    kinds = random.choice(3, size, p=[0.5, 0.35, 0.15])
    chances = np.stack([random.beta(12, 1, size), random.beta(2, 3, size), random.beta(4, 1, size)])
    ious = np.stack([random.uniform(0.65, 0.95, size), random.uniform(0.45, 0.85, size), np.ones(size)])
    each = np.arange(size)
    return World(np.sort(random.integers(0, size // 2, size)), kinds, chances[kinds, each], ious[kinds, each])


def trial(seed: int, size: int, change: str) -> tuple[bool, bool, float, float]:
    """passed, passed by the plain mean, true change, true change of what is known."""
    random = np.random.default_rng(seed)
    world = draw_world(random, size)
    more, wider = (np.array(values)[world.kinds] for values in CHANGES[change])
    luck = random.normal(size=size)
    again = _LUCK * luck + np.sqrt(1 - _LUCK**2) * random.normal(size=size)
    none = np.zeros(size)
    before = world.answers(luck, none, none)
    after = world.answers(again, more, wider + random.normal(size=size) * _NOISE)
    compared = [
        ComparedExpression(number, str(number), str(photo), "" if kind == ABSENT else "mask", float(was), float(now))
        for number, (photo, kind, was, now) in enumerate(zip(world.photos, world.kinds, before, after, strict=True))
    ]
    verdict = judge(compared, NEEDED)
    gained = world.expected(more, wider) - world.expected(none, none)
    fell = verdict.numbers.get("worked_difference", 0) < -MARGIN
    return verdict.passed, verdict.passed and not fell, gained.mean(), gained[world.kinds == KNOWN].mean()


def main() -> None:
    names = [f"{name}{size}" for name in ("", "plain ") for size in SIZES]
    table = Table("candidate", "truly", "of what is known", *names, title=f"Share that passes, {TRIALS} trials each")
    figures: dict[str, object] = {}
    for change in CHANGES:
        results = [np.array([trial(seed, size, change) for seed in range(TRIALS)]) for size in SIZES]
        passed = [[float(each[:, column].mean()) for each in results] for column in (0, 1)]
        truly, known = (float(results[-1][:, column].mean()) for column in (2, 3))
        shares = [round(share, 3) for row in passed for share in row]
        table.add_row(change, f"{truly:+.3f}", f"{known:+.3f}", *(f"{share:.2f}" for share in shares))
        figures[change] = {"truly": round(truly, 4), "known": round(known, 4), **dict(zip(names, shares, strict=True))}
    Console(width=120).print(table)
    keep("gate", figures, trials=TRIALS)


if __name__ == "__main__":
    main()
