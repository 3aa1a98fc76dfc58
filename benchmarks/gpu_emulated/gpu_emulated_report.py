"""The report on the emulated GPU in Markdown: conditions first, then every rival's figures, also of those ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.gpu_emulated.clairvoyant.reference import ReferenceFigures
from benchmarks.gpu_emulated.closed_loop import ClosedFigures
from benchmarks.gpu_emulated.drawn_gpu import OVERHEAD_NS, drawn_gpu
from benchmarks.gpu_emulated.figures import difference, mean_kept, runs_of, shown_difference, values
from benchmarks.gpu_emulated.parts import CLOSED, LANES, LOADS, OTHERS, RATES, REFERENCE, TWINS
from benchmarks.gpu_emulated.plan import OURS, PLAIN, TWO_CLASSES
from benchmarks.gpu_emulated.rate_search import RateFigures
from benchmarks.gpu_emulated.records import GpuRecords
from benchmarks.gpu_emulated.runs import RunFigures, rival_on
from benchmarks.gpu_emulated.served.section import section
from benchmarks.gpu_emulated.tables import closed_loops, largest_rates, ways
from benchmarks.harness import markdown


class GpuReport:
    """Sections of the report. records: complete."""

    def __init__(self, records: GpuRecords) -> None:
        self.plan, self._best = records.plan, records.best_lanes
        self.runs: list[RunFigures] = [*records.of(LANES), *records.of(LOADS)]
        self._others: list[RunFigures] = records.of(OTHERS)
        self._rates: list[RateFigures] = records.of(RATES)
        self._closed: list[ClosedFigures] = records.of(CLOSED)
        self._turns, self._twins = records.turns(), records.of(TWINS)
        self.references: list[ReferenceFigures] = records.of(REFERENCE)
        self.best = {(r, load): self._best(r, load) for r in self.plan.everyone for load in self.plan.loads}

    def text(self, plots: Mapping[str, Path], folder: Path) -> str:
        """The whole. folder: of the report, from which it links its plots."""
        images = {name: markdown.image(path, folder) for name, path in plots.items()}
        return markdown.document(
            [
                "# Rivals on an emulated A100",
                "**Emulated: no GPU took part.** The production scheduler in virtual time, with other policies and "
                "predictors in it, on a law of how batches slow each other down; see docs/explanation/emulated-gpu.md "
                "for what of it was measured. `make bench-gpu` runs all of it and writes this file.",
                self._conditions(),
                f"## Deadlines kept, two classes\n\n{self._at_best(mean_kept)}",
                images["loads"],
                "A rival's number of lanes, in brackets after the figure, is the best of those tried. *oracle* is our "
                "policy told the law: what it keeps more is all that a better predictor could bring to this policy.",
                f"### {OURS} less each rival, points of deadlines\n\n{self._differences()}",
                f"### All on {self.plan.same_lanes} lanes\n\n{self._same_lanes()}",
                f"## By number of lanes\n\n{self._by_lanes()}",
                images["lanes"],
                f"## Goodput, answers in time per second\n\n{self._at_best(_mean_goodput)}",
                f"## Other requests, load {self.plan.at_load:g}\n\n{self._other_scenarios()}",
                f"## Largest rate with {100 * self.plan.kept:g} % kept\n\n{largest_rates(self.plan, self._rates)}",
                f"## A high class next to a closed loop of a low one\n\n{closed_loops(self.plan, self._closed)}",
                f"## From stock to clairvoyant, load {self.plan.at_load:g}\n\n{ways(self.plan, self.references)}",
                images.get("reference", ""),
                f"## On a real server\n\n{section(self.plan.served, self._turns, self._twins)}",
            ]
        )

    def _conditions(self) -> str:
        plan = self.plan
        return (
            f"**Conditions.** {plan.draws} draws of {TWO_CLASSES.models} models and of the law's constants: solo "
            "latency of a batch of one 2 to 12 ms, a further row 10 to 50 % of that, batches up to 16, u and w spread "
            "as over Gavel's jobs, a hidden factor per ordered pair, noise, tails next to long kernels and launch gaps "
            "as `isochrone emulate` has them. In the mean two batches of one slow each other down by "
            f"{_pair_slowdowns(plan.draws, 1)} (p5 / p50 / p95), two of four by {_pair_slowdowns(plan.draws, 4)}. "
            "Deadlines 2, 4 and 8 × solo by turns, classes by turns, equal Poisson rates unless a section says "
            "otherwise, `on_miss: reject` but for stock, copies over PCIe gen 4, "
            f"{OVERHEAD_NS / 1e6:g} ms of a lane around each batch, no preemption. Load 1 would keep the GPU's kernels "
            f"busy all the time with batches of four. Each run lasts {plan.warm_s + plan.seconds:g} s of virtual time, "
            f"of which the first {plan.warm_s:g} s do not count; learners start with nothing learned. Lanes "
            f"{', '.join(map(str, plan.lanes))}; each rival's best number by the mean of the first {plan.lane_draws} "
            f"draws. Figures are means over draws. A difference counts where it keeps its sign in {plan.signs} of "
            f"{plan.draws} draws. Largest rates, closed loops, the clairvoyant reference and other requests than "
            f"'{plan.others[0].name}' are of the first {plan.few_draws} draws."
        )

    def _at_best(self, shown: Callable[[Mapping[int, RunFigures]], str]) -> str:
        """Every rival at every load on its best number of lanes."""
        plan = self.plan
        rows = []
        for r in plan.everyone:
            cells = [
                f"{shown(runs_of(self.runs, r, load, self.best[r, load]))} [{self.best[r, load]}]"
                for load in plan.loads
            ]
            rows.append([f"*{r}*", *cells, _what(r)])
        return markdown.table(["", *(f"load {load:g}" for load in plan.loads), "what it is"], rows)

    def _differences(self) -> str:
        plan, rows = self.plan, []
        for r in (r for r in plan.everyone if r != OURS):
            cells = []
            for load in plan.loads:
                ours, theirs = (values(runs_of(self.runs, n, load, self.best[n, load]), _percent) for n in (OURS, r))
                cells.append(shown_difference(difference(ours, theirs), plan.signs))
            rows.append([f"*{r}*", *cells])
        return markdown.table(["less", *(f"load {load:g}" for load in plan.loads)], rows)

    def _same_lanes(self) -> str:
        plan, lanes = self.plan, self.plan.same_lanes
        rivals = [r for r in PLAIN if r in plan.rivals]
        rows = []
        for r in rivals:
            cells = []
            by_rival = [
                *({n: runs_of(self.runs, n, load, lanes) for n in (r, OURS)} for load in plan.loads),
                {n: runs_of(self._others, n, plan.at_load, lanes, plan.others[0].name) for n in (r, OURS)},
            ]
            for runs in by_rival:
                found, ours = runs[r], runs[OURS]
                less = "" if r == OURS else f"; {shown_difference(difference(_kept(ours), _kept(found)), plan.signs)}"
                cells.append(f"{mean_kept(found)}{less}")
            rows.append([f"*{r}*", *cells])
        return f"After the semicolon: {OURS} less this one.\n\n" + markdown.table(
            ["", *(f"load {load:g}" for load in plan.loads), f"{plan.others[0].name}, load {plan.at_load:g}"], rows
        )

    def _by_lanes(self) -> str:
        plan = self.plan
        parts = [f"The first {plan.lane_draws} draws, and {OURS} in all."]
        for load in plan.loads:
            runs = {(r, n): runs_of(self.runs, r, load, n) for r in plan.everyone for n in plan.lanes}
            rows = [
                [f"*{r}*", *(mean_kept(_first(runs[r, n], plan.lane_draws)) for n in plan.lanes)] for r in plan.everyone
            ]
            rows.append([f"*{OURS}*, all draws", *(mean_kept(runs[OURS, n]) for n in plan.lanes)])
            parts.append(markdown.table([f"load {load:g}", *(f"{n} lanes" for n in plan.lanes)], rows))
        return "\n\n".join(parts)

    def _other_scenarios(self) -> str:
        plan, at = self.plan, self.plan.at_load
        rows = []
        for r in plan.rivals:
            cells = []
            for s in plan.others:
                found, ours = (runs_of(self._others, n, at, self.best[n, at], s.name) for n in (r, OURS))
                less = difference(_kept(ours), _kept(found)) if r != OURS else None
                cells.append(mean_kept(found) + (f"; {shown_difference(less, plan.signs)}" if less else ""))
            rows.append([f"*{r}*", *cells])
        return f"Lanes as above at that load. After the semicolon: {OURS} less this one, points.\n\n" + markdown.table(
            ["", *(s.name for s in plan.others)], rows
        )


def _pair_slowdowns(draws: int, rows: int) -> str:
    """Slowdowns of a batch of so many rows next to another model's, over all ordered pairs."""
    gpus = [drawn_gpu(draw, TWO_CLASSES.models) for draw in range(draws)]
    found = [
        gpu.mean_law.slowdown(own.demand(rows), [other.demand(rows)])
        for gpu in gpus
        for own in gpu.models
        for other in gpu.models
        if own is not other
    ]
    return " / ".join(f"{value:.2f}" for value in np.percentile(found, (5, 50, 95)))


def _what(rival: str) -> str:
    return rival_on(drawn_gpu(0, TWO_CLASSES.models), rival).what


def _percent(run: RunFigures) -> float:
    return 100 * run.kept()


def _kept(found: Mapping[int, RunFigures]) -> dict[int, float]:
    return values(found, _percent)


def _first(found: Mapping[int, RunFigures], draws: int) -> dict[int, RunFigures]:
    return {draw: run for draw, run in found.items() if draw < draws}


def _mean_goodput(found: Mapping[int, RunFigures]) -> str:
    return f"{fmean(r.goodput_per_s for r in found.values()):.0f}" if found else "–"
