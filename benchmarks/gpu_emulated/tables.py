"""Tables of the report on the emulated GPU: the largest rates, closed loops, the way to the clairvoyant reference."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from benchmarks.gpu_emulated.clairvoyant.reference import ReferenceFigures
from benchmarks.gpu_emulated.closed_loop import HIGH_SLO, ClosedFigures
from benchmarks.gpu_emulated.figures import difference, shown_difference, values
from benchmarks.gpu_emulated.plan import OURS, STOCK, GpuPlan
from benchmarks.gpu_emulated.rate_search import RateFigures
from benchmarks.harness import markdown


def largest_rates(plan: GpuPlan, found_rates: Sequence[RateFigures]) -> str:
    """Largest rates with so many deadlines kept."""
    rows = []
    ours = {f.draw: f.rate_per_s for f in found_rates if f.rival == OURS}
    for r in plan.rivals:
        found = {f.draw: f for f in found_rates if f.rival == r}
        rates = {draw: f.rate_per_s for draw, f in found.items()}
        less = difference(ours, rates) if r != OURS else None
        lanes = next(f.lanes for f in found.values())
        load = fmean(f.load for f in found.values())
        cells = [f"{fmean(rates.values()):.0f}", f"{load:.2f}", str(lanes), shown_difference(less, plan.signs)]
        rows.append([f"*{r}*", *cells])
    return (
        f"By bisection in {plan.halvings} steps, on the lanes that are best at load {min(plan.loads):g}; "
        "0 where not even the least load tried does.\n\n"
        + markdown.table(["", "requests/s", "load", "lanes", f"{OURS} less this one"], rows)
    )


def closed_loops(plan: GpuPlan, closed: Sequence[ClosedFigures]) -> str:
    """The high class next to each closed loop."""
    loop = plan.closed
    parts = [
        f"One high request per {1e3 * loop.gap_s:g} ms, its deadline {HIGH_SLO:g} × solo, and so many requests of "
        f"another model outstanding at any time, of a lower class and without a deadline; {loop.seconds:g} s, "
        "nothing rejected, nothing preempted. p99 of the high one over its p99 alone, median over draws (least to "
        f"most), and answers of the low one per second; last, {OURS} less this one on the most lanes."
    ]
    for outstanding in loop.outstanding:
        rows = []
        for r in plan.rivals:
            cells = []
            for lanes in loop.lanes:
                found = _closed_at(closed, r, outstanding, lanes)
                low_per_s = fmean(f.low_per_s for f in found.values())
                cells.append(f"{markdown.spread([f.ratio for f in found.values()])}, {low_per_s:.0f}/s")
            most = [_closed_at(closed, name, outstanding, max(loop.lanes)) for name in (OURS, r)]
            less = difference(*(values(found, lambda f: f.ratio) for found in most)) if r != OURS else None
            rows.append([f"*{r}*", *cells, shown_difference(less, plan.signs)])
        header = [f"{outstanding} outstanding", *(f"{lanes} lanes" for lanes in loop.lanes), f"{OURS} less this one"]
        parts.append(markdown.table(header, rows))
    return "\n\n".join(parts)


def _closed_at(closed: Sequence[ClosedFigures], rival: str, outstanding: int, lanes: int) -> dict[int, ClosedFigures]:
    """Figures by draw."""
    return {f.draw: f for f in closed if (f.rival, f.outstanding, f.lanes) == (rival, outstanding, lanes)}


def ways(plan: GpuPlan, found: Sequence[ReferenceFigures]) -> str:
    """Share of the way from stock to the best schedules found."""
    effort = plan.search
    stock, best = (fmean(r.kept(n) for r in found) for n in (STOCK, None))
    rows = []
    for r in (*plan.rivals, None):
        kept = fmean(f.kept(r) for f in found)
        shares = [
            fmean((f.found if r is None else f.rivals[r]).get(c, 0) / f.requests[c] for f in found)
            for c in found[0].requests
        ]
        way = f"{(kept - stock) / (best - stock):.0%}" if best > stock else "–"
        name = "best schedule found" if r is None else f"*{r}*"
        rows.append([name, f"{100 * kept:.1f} ({' / '.join(f'{100 * s:.0f}' for s in shares)})", way])
    starts = {f.start for f in found}
    return (
        f"Two classes, {effort.seconds:g} s counted, each rival on its best number of lanes, without noise, tails and "
        "launch gaps. The clairvoyant "
        "reference knows every arrival and the law. It starts from the schedule of the rival that kept most "
        f"({', '.join(sorted(starts))}) and improves it by local search over order, launch times, batches and drops "
        f"on {max(plan.lanes)} lanes, to keep most deadlines of whatever class: "
        f"{fmean(f.tried for f in found):,.0f} schedules tried per draw, {fmean(f.cpu_s for f in found):.0f} s of one "
        "core. It is the best found, not the best there is: more effort finds better ones.\n\n"
        + markdown.table(["", "deadlines kept, % (class 1 / class 2)", "of the way from stock"], rows)
    )
