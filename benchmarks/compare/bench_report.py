"""The comparison's report in Markdown: conditions, tables, plots, and how far ours is ahead of whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf, isnan
from operator import attrgetter
from pathlib import Path
from statistics import median

from backend.load.figures import Cell, MeasuredPoint, cell, points
from backend.simulation.contention import Truth
from benchmarks.compare.paired_comparison import Count, PairedComparison, met, met_of, missed
from benchmarks.compare.plan import CLOSE, LOST_MAX, ComparisonPlan
from benchmarks.compare.records import ServerTurn, TurnRecord
from benchmarks.compare.servers import OURS, RECORDING, REFUSED, SERVERS, Ours, Stock
from benchmarks.compare.virtual import kept_in_virtual_time
from benchmarks.harness import markdown
from benchmarks.harness.kept import HIGH, LOW, kept
from benchmarks.harness.loads import SLO_FACTORS
from benchmarks.harness.machine import versions
from benchmarks.harness.records import RunManifest
from benchmarks.models.profiles import p95_ms
from profiler.profile_file import ProfileFile

_DEFAULT_STOCK = "stock, 1 instance"
_NAIVE = "naive"
_NO_RIVALS = (OURS, RECORDING, REFUSED)
_POINTS_MORE = (
    "How many more deadlines ours kept than other schedulers on this backend, in points: mean over the repeats that "
    "both took part in, and its standard error:"
)


class Found:
    """Figures of one kind of arrivals. points, measured: of the repeats that every server took part in; every: of all.

    Each repeat has its own requests, and some are harder than others.
    """

    def __init__(self, plan: ComparisonPlan, arrivals: str, recorded: Mapping[ServerTurn, TurnRecord]) -> None:
        self.arrivals = arrivals
        turns = {turn: r for turn, r in recorded.items() if turn.arrivals == arrivals}
        self.servers = [s for s in plan.servers if any(turn.server == s for turn in turns)]
        taken = [{turn.repeat for turn in turns if turn.server == s} for s in self.servers]
        shared = set.intersection(*taken) if taken else set()
        self.measured = [m for turn, r in turns.items() for m in r.measured if turn.repeat in shared]
        self.looked_into = [
            (m, s) for r in turns.values() for m in r.measured for s in r.breakdowns if s.load == m.load
        ]
        """Loads of `RECORDING`, each with its time breakdown."""
        self.points: list[MeasuredPoint] = points(self.measured)
        self.every: list[MeasuredPoint] = points([m for r in turns.values() for m in r.measured])
        self.loads = [load for load in plan.loads if any(p.load == load for p in self.points)]

    def at(self, server: str, load: float) -> Cell:
        return cell(self.points, server, load)

    def paired_with(self, server: str, load: float) -> PairedComparison:
        """Compares ours with that server."""
        return PairedComparison(self.every, OURS, server, load)

    def stock(self) -> list[str]:
        return [s for s in self.servers if isinstance(SERVERS[s], Stock)]


def report(
    plan: ComparisonPlan,
    manifest: RunManifest,
    profiles: Mapping[str, ProfileFile],
    recorded: Mapping[ServerTurn, TurnRecord],
    truth: Truth | None,
    plots: Mapping[str, Sequence[Path]],
    folder: Path,
) -> str:
    """plots: per kind of arrivals; `folder`: where the report will lie, which links are relative to.

    truth: the device as our server's batches tell of it.
    """
    parts = [_head(), _conditions(plan, manifest, profiles, recorded)]
    for arrivals in plan.arrivals:
        found = Found(plan, arrivals, recorded)
        if found.points:
            parts += [_tables(found), *(markdown.image(path, folder) for path in plots[arrivals]), _goals(found)]
            parts += [_time_breakdown(found)]
            parts += [] if truth is None else [_simulated(found, profiles, manifest.cores, truth)]
    return markdown.document([*parts, _scheduler(plan, recorded)])


def _head() -> str:
    return (
        "# Against what a user would run instead\n\n"
        "The same models, inputs, arrivals, engine (ONNX Runtime, a core per lane and a thread per core) and lanes "
        "under stock Triton in several settings, under schedulers of other kinds, and under this one (one that runs a "
        "batch at a time gives it all cores): each on a real tritonserver through "
        "tritonclient's gRPC, open loop, latencies from the planned instant. A request is kept where its answer came "
        "within its deadline; one that was refused or failed is not. `make bench` runs all of it and writes this file."
    )


def _conditions(
    plan: ComparisonPlan,
    manifest: RunManifest,
    profiles: Mapping[str, ProfileFile],
    recorded: Mapping[ServerTurn, TurnRecord],
) -> str:
    lost = [100 * share for r in recorded.values() for share in r.lost]
    capacities = [r.capacity_per_s for r in recorded.values()]
    solo = ", ".join(f"{model} {p95_ms(file):.1f}" for model, file in profiles.items())
    return (
        f"**Conditions.** {manifest.device}, {manifest.cores} cores shared with the load generator, as many lanes. "
        f"{len(plan.models)} models at equal rates; load 1 is the closed-loop capacity, measured anew for each repeat "
        f"({min(capacities):.0f} to {max(capacities):.0f} requests/s). Deadlines of "
        f"{', '.join(f'{f:g}' for f in SLO_FACTORS)} × p95 alone, by turns over the models; two classes by threes. "
        f"{plan.repeats} repeats of {plan.seconds:g} s per load, {plan.close_repeats} of "
        f"{', '.join(f'*{s}*' for s in CLOSE)}, which are close to each other; tables and plots are of the repeats "
        "that all took part in, two servers are compared by those that both did. The servers take turns, each started "
        "anew with nothing learned, in another order each time. p95 alone in ms: "
        f"{solo}. Each load was taken up to {plan.attempts} times while the machine's host took more than "
        f"{100 * LOST_MAX:.0f} % of the CPU, and the least disturbed kept: the host took {median(lost):.1f} % (median; "
        f"at most {max(lost):.0f} %). tritonserver 2.51.0, {versions('isochrone', 'onnxruntime', 'tritonclient')}; "
        f"seed {plan.seed}."
    )


def _tables(found: Found) -> str:
    kind = "Poisson arrivals" if found.arrivals == "poisson" else "An hour of production arrivals, squeezed"
    met = _table(found, "deadlines kept, % (class 1 / class 2)", kept)
    goodput = _table(found, "goodput, requests/s", lambda c: _spread(c, lambda p: p.all.goodput_per_s))
    late = _table(found, "p99 of the answered, ms", lambda c: f"{c.median(lambda p: p.all.p99_ms):.0f}")
    what = "\n".join(f"- *{s}*: {SERVERS[s].what}" for s in found.servers)
    return f"## {kind}\n\n{met}\n\n{goodput}\n\n{late}\n\n{what}"


def _table(found: Found, title: str, shown: Callable[[Cell], str]) -> str:
    rows = [
        [f"**{s}**" if s == OURS else s, *(shown(c) if (c := found.at(s, load)) else "–" for load in found.loads)]
        for s in found.servers
    ]
    return markdown.table([title, *(f"load {load:g}" for load in found.loads)], rows)


def _spread(c: Cell, of: Callable[[MeasuredPoint], float]) -> str:
    low, high = c.range(of)
    return f"{c.median(of):.0f} ({low:.0f}–{high:.0f})" if round(low) < round(high) else f"{c.median(of):.0f}"


def _goals(found: Found) -> str:
    """Compares ours with each goal, load by load."""
    rows, rivals = [], [s for s in found.servers if s not in _NO_RIVALS]
    for load in found.loads:
        stock = {s: found.paired_with(s, load) for s in found.stock()}
        ours = cell(found.every, OURS, load)
        if not ours or not any(stock.values()):
            continue
        best = min((s for s in stock if stock[s]), key=lambda s: stock[s].ratio(met, inf))
        low = min((pair.ratio(met_of(LOW), inf) for s in rivals if (pair := found.paired_with(s, load))), default=inf)
        refused = cell(found.every, REFUSED, load)
        rows.append(
            [
                f"{load:g}",
                _ratio(stock[best], missed),
                _ratio(found.paired_with(_DEFAULT_STOCK, load), met),
                f"{_ratio(stock[best], met)} ({best})",
                _ratio(found.paired_with(_NAIVE, load), met),
                _high_missed(ours),
                _high_missed(refused) if refused else "–",
                _shown(low),
            ]
        )
    header = (
        "load | misses, × the best stock's | goodput, × default stock's | goodput, × the best stock's | "
        "goodput, × naive's | class 1 missed, % | … were class 2 refused | class 2's goodput, × the best for it"
    )
    goals = (
        "Goals: up to load 0.7 at most half of the best stock setting's misses and nowhere less than 0.98 × its "
        "goodput; from 1.1 on 2.5 × default stock's, 1.3 × the best stock's and 1.1 × naive's goodput; class 1 misses "
        "at most 2 % at 1.1 and 5 % at 1.5; class 2 keeps 0.7 of the most that a rival gives it. Of all requests of "
        "the repeats that both took part in."
    )
    others = [s for s in found.servers if isinstance(SERVERS[s], Ours) and s not in _NO_RIVALS]
    ahead = [f"- *{s}*: {', '.join(_points_more(found, s))}" for s in others]
    text = f"### Where ours stands\n\n{goals}\n\n{markdown.table(header, rows)}"
    return text if not ahead else f"{text}\n\n{_POINTS_MORE}\n\n" + "\n".join(ahead)


def _high_missed(c: Cell) -> str:
    return f"{100 * (1 - c.total(met_of(HIGH)) / c.total(lambda p: p.classes[HIGH].requests)):.1f}"


def _points_more(found: Found, server: str) -> Iterator[str]:
    for load in found.loads:
        if pair := found.paired_with(server, load):
            points_more, error = (100 * figure for figure in pair.kept_more())
            yield f"{points_more:+.1f}{'' if isnan(error) else f' ± {error:.1f}'} at load {load:g}"


def _time_breakdown(found: Found) -> str:
    """Ours: from the planned instant to the answer, piece by piece."""
    rows = []
    for load in found.loads:
        here = [s for _, s in found.looked_into if s.load == load]
        if here:
            parts = ("latency_ms", "queue_ms", "execution_ms", "around_ms", "outside_ms")
            means = [f"{median(map(attrgetter(part), here)):.1f}" for part in parts]
            rows.append([f"{load:g}", *means, f"{100 * median(s.lanes_busy for s in here):.0f}"])
    header = "load | latency, ms | queue | execution | around it | outside | lanes busy, %"
    return (
        "### Where a request's time went\n\n"
        f"Of *{RECORDING}*'s answered requests, means, medians over the repeats. Outside: tritonserver, gRPC and the "
        "client, which share the cores with the lanes. A batch that is suspended for another counts as executed "
        f"meanwhile, so that lanes can be busy for more than 100 %.\n\n{markdown.table(header, rows)}"
    )


def _simulated(found: Found, profiles: Mapping[str, ProfileFile], lanes: int, truth: Truth) -> str:
    """The simulator asked the same."""
    rows = []
    for load in found.loads:
        repeats = [(m, s) for m, s in found.looked_into if m.load == load]
        if repeats:
            real = cell(found.every, RECORDING, load).met()
            virtual, oracle = (
                kept_in_virtual_time(repeats, profiles, lanes, truth, rival) for rival in (OURS, "oracle")
            )
            shown = (f"{100 * real:.1f}", f"{100 * virtual:.1f}", f"{100 * (virtual - real):+.1f}")
            rows.append([f"{load:g}", *shown, f"{100 * oracle:.1f}"])
    return (
        "### The simulator beside the server\n\n"
        f"The requests of *{RECORDING}* in virtual time (`isochrone simulate`'s device and scheduler), interference "
        "and its spread learned from the batches that it recorded, deadlines kept in %. What each repeat spent around "
        "an execution occupies a lane there too; what it spent outside is a queue that takes the same time for each "
        "request. Oracle: the same policy where the slowdowns of that device need not be learned.\n\n"
        + markdown.table("load | server | simulator | difference, points | oracle", rows)
    )


def _ratio(pair: PairedComparison, of: Count) -> str:
    return _shown(pair.ratio(of, inf) if pair else inf)


def _shown(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < inf else "–"


def _scheduler(plan: ComparisonPlan, recorded: Mapping[ServerTurn, TurnRecord]) -> str:
    turns = [r.scheduler_cpu_shares for turn, r in recorded.items() if turn.server == OURS and r.scheduler_cpu_shares]
    if not turns:
        return ""
    found = ", ".join(
        f"{100 * median(shares):.1f} % at load {load:g} (at most {100 * max(shares):.1f})"
        for load, shares in zip(plan.loads, zip(*turns, strict=True), strict=True)
    )
    return f"The scheduler's process used, of one core, in the median: {found}."
