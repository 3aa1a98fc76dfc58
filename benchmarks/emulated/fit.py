"""Fits the law's constants to measured co-locations and says how far it is off where it was not fitted.

Errors are means of |predicted − measured| / measured (MAPE).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize_scalar

from backend.engines.emulated.catalogue import scaled, solo_runs
from backend.engines.emulated.published import MODELS
from backend.simulation.gpu_law import SATURATION, KernelDemand, shared_slowdown
from benchmarks.emulated.measured import (
    COPIES,
    YOLOS_SECONDS,
    Copies,
    Pair,
    gavel_pairs,
    parvagpu_copies,
    parvagpu_shares,
)

Vector = NDArray[np.float64]
FOLDS = 5
_PRIOR_LOGIT_U, _PRIOR_WEIGHT = 0.9, 0.02
"""u of a job without evidence is some 0.7, w as all jobs' mean."""


class Fitted(NamedTuple):
    """u and w per job."""

    busy_share: Vector
    work_per_kernel: Vector

    def slowdowns(self, pairs: Sequence[Pair]) -> Vector:
        """As the law has them without saturation, at least 1."""
        own, other = np.array([pair[:2] for pair in pairs]).T
        u, w = self
        slowdowns: Vector = np.maximum(1.0, 1.0 + u[own] / w[own] * u[other] * w[other])
        return slowdowns


class LawAgreement(NamedTuple):
    """Errors of the law where it was not fitted. r2: of the slowdowns' logarithms."""

    cases: int
    mape: float
    r2: float


def fit_pairs(jobs: int, pairs: Sequence[Pair]) -> Fitted:
    """u and w per job by robust least squares on the logarithms of the slowdowns."""
    measured = np.log([pair.slowdown for pair in pairs])

    def fitted(parameters: Vector) -> Fitted:
        return Fitted(1.0 / (1.0 + np.exp(-parameters[:jobs])), np.exp(parameters[jobs:]))

    def residuals(parameters: Vector) -> Vector:
        logit_u, log_w = parameters[:jobs], parameters[jobs:]
        prior = (_PRIOR_WEIGHT * (logit_u - _PRIOR_LOGIT_U), _PRIOR_WEIGHT * (log_w - log_w.mean()), [log_w.mean()])
        return np.concatenate([np.log(fitted(parameters).slowdowns(pairs)) - measured, *prior])

    start = np.concatenate([np.full(jobs, _PRIOR_LOGIT_U), np.zeros(jobs)])
    best: Vector = least_squares(residuals, start, loss="soft_l1", f_scale=0.1).x
    return fitted(best)


def agreement(predicted: Vector, measured: Vector) -> LawAgreement:
    """Compare predicted and measured slowdowns."""
    logs, of = np.log(predicted), np.log(measured)
    r2 = 1.0 - float(((logs - of) ** 2).sum() / ((of - of.mean()) ** 2).sum())
    return LawAgreement(len(measured), float(np.mean(np.abs(predicted - measured) / measured)), r2)


def pairs_out_of_sample(gpu: str, seed: int = 0) -> LawAgreement:
    """Fit quality on Gavel's pairs on one GPU type: each predicted from the other four folds."""
    jobs, pairs = gavel_pairs(gpu)
    order = np.random.default_rng(seed).permutation(len(pairs))
    predicted, measured = list[float](), list[float]()
    for fold in range(FOLDS):
        held_out = set(order[fold::FOLDS].tolist())
        fitted = fit_pairs(len(jobs), [pair for i, pair in enumerate(pairs) if i not in held_out])
        tested = [pairs[i] for i in sorted(held_out)]
        predicted += fitted.slowdowns(tested).tolist()
        measured += [pair.slowdown for pair in tested]
    return agreement(np.array(predicted), np.array(measured))


def copies_slowdown(busy_share: float, number: int, saturation: float = SATURATION) -> float:
    """Beside `number` − 1 copies of itself: w cancels."""
    own = KernelDemand("copy", 1, busy_share, 1.0)
    return shared_slowdown(own, (number - 1) * own.pressure, saturation)


def fit_copies(copies: Copies, numbers: Sequence[int], saturation: float = SATURATION) -> float:
    """u from the slowdowns beside so many copies."""

    def error(busy_share: float) -> float:
        expected = [copies_slowdown(busy_share, number, saturation) for number in numbers]
        return float(np.sum((np.log(expected) - np.log([copies.slowdowns[number] for number in numbers])) ** 2))

    return float(minimize_scalar(error, bounds=(0.01, 1.5), method="bounded").x)


def copies_out_of_sample(saturation: float = SATURATION) -> LawAgreement:
    """Fit quality on ParvaGPU's copies on a whole A100: 3 and 4 from 2 and 5."""
    predicted, measured = list[float](), list[float]()
    for copies in parvagpu_copies():
        busy_share = fit_copies(copies, (2, 5), saturation)
        predicted += [copies_slowdown(busy_share, number, saturation) for number in (3, 4)]
        measured += [copies.slowdowns[number] for number in (3, 4)]
    return agreement(np.array(predicted), np.array(measured))


def shares_of_a_gpu() -> LawAgreement:
    """Fit quality on ParvaGPU's slices: solo latency there, from u fitted to copies on the whole."""
    busy_shares = {
        (copies.model, copies.batch_size): min(1.0, fit_copies(copies, COPIES)) for copies in parvagpu_copies()
    }
    shares = [share for share in parvagpu_shares() if share[:2] in busy_shares]
    demands = [KernelDemand(s.model, s.batch_size, busy_shares[s[:2]], 1.0, s.share) for s in shares]
    predicted = [shared_slowdown(demand, 0.0) for demand in demands]
    return agreement(np.array(predicted), np.array([share.slowdown for share in shares]))


def latencies_of_another_gpu(origin: str, gpu: str) -> LawAgreement:
    """Fit quality of the catalogue's rule: published latencies of a GPU from those of another one."""
    predicted, measured = list[float](), list[float]()
    for name, model in MODELS.items():
        if origin in model.solo_us and gpu in model.solo_us:
            runs = solo_runs(origin, name)
            sizes = [size for size in runs if size in model.solo_us[origin] and size in model.solo_us[gpu]]
            predicted += [scaled(runs[size], origin, gpu).solo_us for size in sizes]
            measured += [model.solo_us[gpu][size] for size in sizes]
    return agreement(np.array(predicted), np.array(measured))


def yolos() -> LawAgreement:
    """Fit quality on YOLOS-small's clients: one u for all, no saturation, as it never leaves the GPU idle enough."""
    slowdowns = {number: seconds / YOLOS_SECONDS[1] for number, seconds in YOLOS_SECONDS.items() if number > 1}
    busy_share = fit_copies(Copies("yolos-small", 1, slowdowns), tuple(slowdowns), saturation=1.0)
    predicted = [copies_slowdown(busy_share, number, saturation=1.0) for number in slowdowns]
    return agreement(np.array(predicted), np.array(list(slowdowns.values())))
