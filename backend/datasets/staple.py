"""STAPLE: what is truly there, and how far each annotator can be trusted, both estimated from their masks alone.

Warfield, Zou and Wells, "Simultaneous Truth and Performance Level Estimation (STAPLE)", IEEE TMI 23(7), 2004. Pure.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CONVERGED = 1e-10
_MOST_ITERATIONS = 10_000


@dataclass(frozen=True, eq=False)
class Truth:
    """probability: HxW in [0, 1], that a pixel is truly part of the thing. Of each annotator, in [0, 1]:

    sensitivity: the share of the thing that they drew; specificity: the share of the rest that they left free.
    """

    probability: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]


def staple(masks: NDArray[np.bool_], background: int = 0, iterations: int = _MOST_ITERATIONS) -> Truth:
    """The estimate of expectation maximisation for one thing. masks: NxHxW, annotator by annotator.

    As in ITK it begins with the share of people who drew a pixel, and the prior is the share of drawn pixels, one for
    the whole picture. So it matters how much around the thing is looked at: see `consensus`.
    background: how many pixels that nobody drew count besides those of `masks`. iterations: at most, 1 or more; it ends
    as soon as nothing moves.
    """
    codes, drew, pixels = _patterns(masks)
    if background:
        drew = np.column_stack([drew, np.zeros(len(masks), np.bool_)])
        pixels = np.append(pixels, background)
    prior, truth = float((drew * pixels).sum() / (len(masks) * pixels.sum())), drew.mean(axis=0)
    sensitivity: NDArray[np.float64] = np.ones(len(masks))
    specificity = sensitivity
    for _ in range(iterations):
        sensitivity = _share(drew, truth * pixels, sensitivity)
        specificity = _share(~drew, (1 - truth) * pixels, specificity)
        before, truth = truth, _expectation(drew, prior, sensitivity, specificity)
        if np.allclose(before, truth, rtol=0, atol=_CONVERGED):
            break
    return Truth(truth[codes].reshape(masks.shape[1:]), sensitivity, specificity)


def _patterns(masks: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.intp]]:
    """Pixels that the same people drew have the same truth: (H*W of pattern, NxP who drew it, P of how many pixels)."""
    codes = np.zeros(masks[0].size, np.intp)
    drew = np.zeros((0, 1), np.bool_)
    for mask in masks:
        codes = 2 * codes + mask.ravel()
        present = np.flatnonzero(np.bincount(codes))
        drew = np.vstack([drew[:, present // 2], present % 2 == 1])
        # Numbered anew for each person, so that the codes of any number of people stay small.
        codes = np.searchsorted(present, codes)
    return codes, drew, np.bincount(codes)


def _expectation(
    drew: NDArray[np.bool_], prior: float, sensitivity: NDArray[np.float64], specificity: NDArray[np.float64]
) -> NDArray[np.float64]:
    """P: the probability that the pixels of each pattern are part of the thing (the E-step)."""
    is_part = prior * np.where(drew, sensitivity[:, None], 1 - sensitivity[:, None]).prod(axis=0)
    is_not = (1 - prior) * np.where(drew, 1 - specificity[:, None], specificity[:, None]).prod(axis=0)
    return np.asarray(is_part / (is_part + is_not))


def _share(
    chosen: NDArray[np.bool_], weights: NDArray[np.float64], otherwise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """N: how much of the weight each person chose (the M-step); as before where there is none to choose."""
    total = weights.sum()
    return (chosen * weights).sum(axis=1) / total if total else otherwise
