"""The report on routers in Markdown: conditions and goals first, then every router's figures, also of those ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from benchmarks.fleet.figures import (
    by_seed,
    degradation,
    differences,
    goodput,
    kept_percent,
    median_ms,
    ratios,
    shown,
    spread,
)
from benchmarks.fleet.fleet_run import SnapshotTiming
from benchmarks.fleet.layout import GPUS, fleet_layout
from benchmarks.fleet.parts import AGES, BURSTY, LOADS, sees_snapshots
from benchmarks.fleet.plan import ALL_ROUTERS, ORACLE
from benchmarks.fleet.records import FleetRecords
from benchmarks.fleet.routers import LEAST_REQUEST, OURS, ROUND_ROBIN
from benchmarks.fleet.runs import FleetFigures
from benchmarks.harness import markdown

_Figure = Callable[[FleetFigures], float]
_AGE_POINTS = 5.0
"""Points of deadlines that older snapshots may cost."""


class FleetReport:
    """Sections of the report. records: complete."""

    def __init__(self, records: FleetRecords) -> None:
        self.plan = records.plan
        self._loads, self._ages, self._bursts = (records.of(part) for part in (LOADS, AGES, BURSTY))

    def text(self) -> str:
        """The whole."""
        return markdown.document(
            [
                "# Routers of a fleet",
                "**Emulated, in virtual time: no GPU, no server and no network took part.** The production router's "
                "core and the production schedulers, one per emulated GPU, and other routers over the same arrivals "
                "and the same schedulers. `make bench-fleet` runs all of it and writes this file.",
                self._conditions(),
                f"## Goals\n\n{self._goals()}",
                f"## Deadlines kept, percent\n\n{self._by_load(kept_percent)}",
                f"## Median of latency over solo latency on the device's type\n\n{self._by_load(degradation, 2)}",
                f"## Goodput, answers in time per second\n\n{self._by_load(goodput, 0)}",
                f"## Median latency, ms\n\n{self._by_load(median_ms, 0)}",
                f"## {OURS} beside each\n\n{self._differences()}",
                f"## Snapshots of other ages\n\n{self._other_snapshots()}",
                f"## Bursts, load {self.plan.at_load:g}\n\n{self._in_bursts()}",
                f"## What it takes to simulate\n\n{self._cost()}",
            ]
        )

    def _conditions(self) -> str:
        plan = self.plan
        layouts = [fleet_layout(seed, plan.device_count, plan.model_count) for seed in range(plan.seeds)]
        replicas = sorted(len(held) for layout in layouts for held in layout.holders)
        held = fmean(sum(map(len, layout.holders)) / plan.device_count for layout in layouts)
        rate = fmean(layout.full_rate_per_s for layout in layouts)
        solo_ms = [sorted(m.solo_ns(gpu) / 1e6 for layout in layouts for m in layout.models) for gpu in GPUS]
        medians = ", ".join(f"{found[len(found) // 2]:.0f} ({gpu})" for gpu, found in zip(GPUS, solo_ms, strict=True))
        return (
            f"**Conditions.** {plan.seeds} seeds; {plan.device_count} emulated devices, {', '.join(GPUS)} by turns, "
            f"each with {plan.lanes} lanes and a scheduler that has learned nothing yet; {plan.model_count} models, "
            "each 6 to 24 times the layers of one that `isochrone emulate` knows, of which a batch of one alone takes "
            f"{medians} ms in the median. Rates fall as 1 / rank (Zipf); a model is held by {replicas[0]} to "
            f"{replicas[-1]} devices, more where its rate is higher, a device holds {held:.1f} models in the mean. "
            "Deadlines 2, 4 and 8 × solo latency, the mean of the four types, and classes 1 and 2 by turns over the "
            "models; `on_miss: serve`. Load 1 would keep all GPUs' kernels busy all the time with batches of two: "
            f"{rate:.0f} requests/s in the mean of the seeds. Poisson arrivals unless a section says otherwise. Each "
            f"run lasts {plan.warm_s + plan.seconds:g} s of virtual time, of which the first {plan.warm_s:g} s do not "
            f"count: an hour of 100 devices would take too long for {plan.seeds} seeds, see the end. An answer that is "
            f"not there {plan.grace_s:g} s after the last request counts as missed. Snapshots are made every "
            f"{plan.timing.age_ms:g} ms and are half of that on their way, so that a router that goes by them sees "
            f"devices as they were {plan.timing.age_ms:g} ms before in the mean; requests and answers take no time on "
            "theirs. ± is the standard error over seeds."
        )

    def _goals(self) -> str:
        plan, overload = self.plan, max(self.plan.loads)
        lines = []
        for rival in (LEAST_REQUEST, ROUND_ROBIN):
            if rival not in plan.routers:
                continue
            for load in plan.loads:
                found = spread(ratios(self._of(degradation, rival, load), self._of(degradation, OURS, load)))
                lines.append([f"degradation under *{rival}* over ours, load {load:g}", "≥ 2", shown(found, 2)])
            found = spread(ratios(self._of(goodput, OURS, overload), self._of(goodput, rival, overload)))
            lines.append([f"goodput over that of *{rival}*, load {overload:g}", "≥ 1.2", shown(found, 2)])
        rivals = [r for r in plan.routers if sees_snapshots(r) and r != OURS]
        for load in plan.loads if rivals else ():
            of_rivals = [self._of(kept_percent, r, load) for r in rivals]
            best = {seed: max(of[seed] for of in of_rivals) for seed in of_rivals[0]}
            found = spread(differences(self._of(kept_percent, OURS, load), best))
            goal = f"> 0 in {plan.signs} of {plan.seeds}"
            lines.append(
                [f"points above the best that sees the same snapshots, load {load:g}", goal, shown(found, 1, True)]
            )
        for timing in plan.others:
            for load in plan.other_loads:
                found = spread(self._against_plan(timing, load))
                goal = f"≥ −{_AGE_POINTS:g}"
                lines.append([f"points, snapshots {_words(timing)}, load {load:g}", goal, shown(found, 1, True)])
        return markdown.table(["", "goal", "measured"], lines)

    def _by_load(self, of: _Figure, digits: int = 1) -> str:
        rows = [
            [f"*{r}*", *(shown(spread(self._of(of, r, load).values()), digits) for load in self.plan.loads), _what(r)]
            for r in self.plan.routers
        ]
        return markdown.table(["", *(f"load {load:g}" for load in self.plan.loads), "what it goes by"], rows)

    def _differences(self) -> str:
        plan, rows = self.plan, []
        for rival in (r for r in plan.routers if r != OURS):
            cells = []
            for load in plan.loads:
                points = spread(differences(self._of(kept_percent, OURS, load), self._of(kept_percent, rival, load)))
                ratio = spread(ratios(self._of(goodput, OURS, load), self._of(goodput, rival, load)))
                cells.append(f"{shown(points, 1, True)}; × {shown(ratio, 2)}")
            rows.append([f"*{rival}*", *cells])
        return (
            "Points of deadlines kept that ours has more (seeds in which it has), and its goodput as a multiple.\n\n"
            + markdown.table(["", *(f"load {load:g}" for load in plan.loads)], rows)
        )

    def _other_snapshots(self) -> str:
        plan = self.plan
        same_seeds = [run for run in self._loads if run.case.seed < plan.fewer_seeds]
        rows = []
        for timing, found in ((plan.timing, same_seeds), *((t, self._ages) for t in plan.others)):
            kept = (by_seed(found, kept_percent, OURS, load, timing) for load in plan.other_loads)
            rows.append([_words(timing), *(shown(spread(of.values())) for of in kept)])
        return f"Percent of deadlines that {OURS} keeps, over {plan.fewer_seeds} seeds.\n\n" + markdown.table(
            ["snapshots", *(f"load {load:g}" for load in plan.other_loads)], rows
        )

    def _in_bursts(self) -> str:
        at, rows = self.plan.at_load, []
        for r in self.plan.routers:
            ours, theirs = (by_seed(self._bursts, kept_percent, n, at) for n in (OURS, r))
            less = "" if r == OURS else shown(spread(differences(ours, theirs)), 1, True)
            figures = [shown(spread(by_seed(self._bursts, of, r, at).values()), 2) for of in (degradation, goodput)]
            rows.append([f"*{r}*", shown(spread(theirs.values())), less, *figures])
        header = ["", "deadlines kept, %", f"{OURS} less this one", "latency / solo, median", "goodput/s"]
        return (
            "Each model's requests come by turns at a fifth of its rate and at 1.8 times it, each for a second in the "
            f"mean. {self.plan.fewer_seeds} seeds.\n\n" + markdown.table(header, rows)
        )

    def _cost(self) -> str:
        plan = self.plan
        per_s = {
            r: fmean(run.cpu_s for run in self._loads if (run.case.router, run.case.load) == (r, plan.at_load))
            / (plan.warm_s + plan.seconds)
            for r in (OURS, LEAST_REQUEST, ORACLE)
            if r in plan.routers
        }
        words = ", ".join(f"{per_s[r]:.1f} s (*{r}*)" for r in per_s)
        return (
            f"A second of virtual time at load {plan.at_load:g} takes {words} of one core's time here, so an hour of "
            f"this fleet takes {per_s[OURS]:.1f} hours with {OURS}: it is Python, with a scheduler per device."
        )

    def _of(self, of: _Figure, router: str, load: float) -> dict[int, float]:
        return by_seed(self._loads, of, router, load)

    def _against_plan(self, timing: SnapshotTiming, load: float) -> Sequence[float]:
        """Points that ours keeps more with these snapshots than with the plan's."""
        return differences(by_seed(self._ages, kept_percent, OURS, load, timing), self._of(kept_percent, OURS, load))


def _what(router: str) -> str:
    return ALL_ROUTERS[router].what


def _words(timing: SnapshotTiming) -> str:
    """The snapshots in words."""
    lost = f", {100 * timing.lost:g} % lost" if timing.lost else ""
    return f"{timing.age_ms:g} ms old{lost}"
