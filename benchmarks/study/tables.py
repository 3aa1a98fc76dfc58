"""The study's numbers as Markdown tables, whatever device they are of. What they mean is said where they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import markdown
from benchmarks.study.plan import COMPARED, TEST_SETS, TRAINING, label
from predictor.evaluate import Score
from profiler.profile_file import ProfileFile

if TYPE_CHECKING:  # at run time it needs scikit-learn, an extra
    from benchmarks.study.results import OfLanes

GOALS = dict(zip(TEST_SETS, (0.7, 0.5, 0.5), strict=True))
"""MSE of ours / MSE of the paper's RLS, at most."""


def throughput(profiles: Mapping[str, ProfileFile]) -> str:
    """Alone, over the batch size (the paper's figure 2)."""
    rows = []
    for model, file in profiles.items():
        first, last = file.entries[0], file.entries[-1]
        best = max(file.entries, key=lambda e: e.rows_per_s)
        rows.append(
            (
                model,
                f"{first.p50_ns / 1e6:.1f} / {first.p95_ns / 1e6:.1f}",
                f"{first.rows_per_s:.0f}",
                f"{last.rows_per_s:.0f} (at {last.batch_size})",
                f"{best.rows_per_s / first.rows_per_s - 1:+.0%} (at {best.batch_size})",
                " / ".join(f"{share:.2f}" for share in (last.features.compute, last.features.l2, last.features.dram)),
            )
        )
    header = (
        "model | alone, batch 1: p50 / p95 ms | requests/s at 1 | at the largest | best gain | "
        "compute / l2 / dram at the largest"
    )
    return markdown.table(header, rows)


def interference(lanes: Mapping[int, OfLanes]) -> str:
    """Measured execution in percent of the profiled p95 (section 3)."""
    rows = []
    for count, found in lanes.items():
        quantiles = np.percentile(found.interference, (5, 25, 50, 75, 95, 99))
        rows.append((str(count), f"{len(found.interference):,}", *(f"{q:.1%}" for q in quantiles)))
    return markdown.table("lanes | batches | p5 | p25 | p50 | p75 | p95 | p99", rows)


def features(lanes: Mapping[int, OfLanes]) -> str:
    """Relative error of the linear model by what it sees of its co-runners (figure 5)."""
    rows = [
        (str(count), name, *(f"{100 * v:.1f}" for v in spread[:4]), f"{np.mean(spread.errors > 0.6):.1%}")
        for count, found in lanes.items()
        for name, spread in found.features.items()
    ]
    return markdown.table("lanes | co-runners' features | p25 % | p50 % | p75 % | p95 % | beyond 60 %", rows)


def errors(lanes: int, found: OfLanes) -> str:
    """Table 1, under a line that says so."""
    linear, ours = found.training
    rows = [
        (TRAINING, f"{found.batches[TRAINING]:,}", "", "", *[f"{linear:.4f}"] * 3, f"{ours:.4f} (online)", *[""] * 3)
    ]
    for name, tested in found.tested.items():
        mse = {learner: f"{score.mse:.4f}" for learner, score in tested.scores.items()}
        rows.append(
            (
                name,
                f"{tested.samples:,}",
                *(mse[learner] for learner in ("mean", "count", *COMPARED[:-1])),
                f"**{mse['isochrone']}**",
                f"{tested.ceiling:.4f}",
                f"{tested.noise.mse:.4f} ({tested.noise.share:.0%})",
                f"{tested.floor.mse:.4f} ({tested.floor.share:.0%})",
            )
        )
    learners = ("mean", "count", *map(label, COMPARED))
    header = ("set", "batches", *learners, "trees", "noise (share)", "noise of twins (share)")
    return f"MSE of slowdown relative to the profiled p95, {lanes} lanes:\n\n{markdown.table(header, rows)}"


def relative_errors(lanes: int, found: OfLanes) -> str:
    """Shows relative errors of execution time and how the bound held, under a line that says so."""

    def cell(score: Score) -> str:
        return f"{100 * score.relative_error_p50:.1f} / {100 * score.relative_error_p95:.0f}"

    rows = [
        (
            name,
            *(cell(tested.scores[learner]) for learner in ("mean", *COMPARED)),
            f"{100 * tested.floor.relative:.1f}",
            f"{tested.scores['isochrone'].coverage:.1%}",
            f"{tested.scores['isochrone'].inflation:.2f}",
        )
        for name, tested in found.tested.items()
    ]
    header = ("set", "mean", *map(label, COMPARED), "floor p50", "bound held", "bound / predicted")
    what = f"Relative error of execution time, p50 / p95 in %, and what our 95 % bound held, {lanes} lanes"
    return f"{what}:\n\n{markdown.table(header, rows)}"


def errors_of_all(lanes: int, found: OfLanes) -> str:
    """Table 1 over the disturbed batches too, under a line that says so."""
    rows = [(name, *(f"{scores[learner].mse:.3f}" for learner in COMPARED)) for name, scores in found.every.items()]
    what = f"MSE over all batches, those that the host disturbed as well, {lanes} lanes"
    return f"{what}:\n\n{markdown.table(('set', *map(label, COMPARED)), rows)}"


def against_rls(lanes: Mapping[int, OfLanes]) -> str:
    """Ours over the paper's online learner, the goals, and what is in their way."""
    rows = []
    for count, found in lanes.items():
        for name, tested in found.tested.items():
            rls, ours = tested.scores["rls"], tested.scores["isochrone"]
            ratio, trees, counting = (mse / rls.mse for mse in (ours.mse, tested.ceiling, tested.counting))
            of_these, twins = tested.noise.of_these, tested.floor.of_twins
            noise = _over(tested.noise.mse, of_these["rls"])
            same, floor = (_over(mse, twins["rls"]) for mse in (twins["isochrone"], tested.floor.mse))
            rows.append(
                (
                    name,
                    str(count),
                    f"{ratio:.2f}",
                    f"≤ {GOALS[name]}",
                    f"{noise:.2f}",
                    f"{trees:.2f}",
                    f"{counting:.2f}",
                    f"{same:.2f}",
                    f"{floor:.2f}",
                    _verdict(ratio, GOALS[name], noise, trees),
                    f"{ours.relative_error_p50 / rls.relative_error_p50:.2f}",
                )
            )
    header = (
        "set | lanes | MSE isochrone / RLS | goal | noise / RLS | trees / RLS | trees that count / RLS | "
        "of twins: isochrone / RLS | of twins: floor / RLS | reached | median relative error isochrone / RLS"
    )
    return markdown.table(header, rows)


def _verdict(ratio: float, goal: float, noise: float, trees: float) -> str:
    if ratio <= goal:
        return "yes"
    if noise > goal:
        return "no: the noise is above the goal"
    return "no: nor do trees fitted on the set itself" if trees > goal else "no"


def _over(mse: float, rls: float) -> float:
    """0 where there is nothing to compare."""
    return mse / rls if rls else 0.0
