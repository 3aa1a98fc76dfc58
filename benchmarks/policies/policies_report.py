"""The report on policies in Markdown: rivals, parts taken out, the way to an oracle, starvation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan

from backend.load.figures import MeasuredPoint, cell
from benchmarks.harness import markdown
from benchmarks.harness.kept import kept
from benchmarks.policies.runs import RecordedDevice
from benchmarks.policies.starvation import LOAD, WITHIN, Starved
from benchmarks.rivals import RIVALS

_OURS, _STOCK, _ORACLE, _FIRST = "isochrone", "in order", "oracle", "class 1 alone"
_ABLATIONS = (
    "isochrone, no preemption",
    "isochrone, no hold",
    "isochrone, no split",
    "isochrone, no batches",
    "isochrone, mean for bound",
    "isochrone, no classes",
    "isochrone, no prediction",
)


def report(
    device: RecordedDevice, found: Sequence[MeasuredPoint], starved: Sequence[Starved], seconds: float, seeds: int
) -> str:
    """found: every rival at every load."""
    rivals, loads = list(dict.fromkeys(p.target for p in found)), sorted({p.load for p in found})
    named = [f"load {load:g}" for load in loads]
    met = {(p.target, p.load): p.all.met_share for p in found}
    rows = [[f"*{name}*", *(kept(cell(found, name, at), 1) for at in loads), RIVALS[name].what] for name in rivals]
    worth = [
        [f"*{name}*", *(f"{100 * (met[_OURS, at] - met[name, at]):+.1f}" for at in loads)]
        for name in _ABLATIONS
        if name in rivals and _OURS in rivals
    ]
    way = [f"{share:.0%} at load {load:g}" for load in loads if (share := _way_to_the_oracle(met, load)) is not None]
    parts = [
        "# Policies in virtual time",
        "The same Poisson arrivals for each, on one simulated device: the production scheduler, another policy or "
        "predictor in it. `make bench-policies` runs all of it from what `make study` recorded and writes this file; "
        "with `RECORDS=results/bench` from what `make bench` did. The same records give the same figures on any day.",
        f"**Conditions.** {len(device.profiles)} models at equal rates, deadlines of 2, 4 and 8 × p95 alone, two "
        f"classes by turns, `on_miss: reject`, {device.lanes} lanes; interference and its spread learned from "
        f"{len(device.samples):,} batches ({device.name}); {seconds:g} s × {seeds} seeds per load. Load 1 keeps every "
        "lane busy with batches of one at their latency alone. A lane is free at the end of an execution; a "
        "server takes some milliseconds more (*around it* in bench.md), so that the same load weighs more there."
        + ("" if device.whole else " A batch has one core everywhere, also under *one at a time*."),
        "## Deadlines kept, % (class 1 / class 2)",
        markdown.table(["", *named, "what it is"], rows),
        f"Of the way from stock to the oracle, isochrone goes {', '.join(way)}." if way else "",
        f"*{_FIRST}* is what a perfect forecast keeps of class 1 where nobody else asks for the device: with class 2 "
        "there, no policy is to be expected to keep more of it."
        if _FIRST in rivals
        else "",
        "## What each part is worth\n\nPoints of deadlines kept that are lost without it." if worth else "",
        markdown.table(["without", *named], worth) if worth else "",
        _starvation(starved) if starved else "",
    ]
    return markdown.document(parts)


def _way_to_the_oracle(met: Mapping[tuple[str, float], float], load: float) -> float | None:
    """Share of the distance from stock to the oracle that ours goes; None where there is none."""
    stock, ours, oracle = (met.get((name, load), nan) for name in (_STOCK, _OURS, _ORACLE))
    return (ours - stock) / (oracle - stock) if oracle > stock and not isnan(ours) else None


def _starvation(starved: Sequence[Starved]) -> str:
    rows = [
        [
            s.case,
            f"{100 * s.kept[0]:.1f}",
            f"{100 * s.kept[1]:.1f}",
            f"{100 * s.rejected:.1f}",
            f"{100 * s.within:.2f}",
            f"{s.median:.1f}",
            f"{s.worst:,.0f}",
        ]
        for s in starved
    ]
    header = (
        " | class 1 kept, % | class 2 kept, % | class 2 rejected, % | "
        f"answered within {WITHIN:g} × solo, % | median, × solo | worst, × solo"
    )
    return (
        f"## Starvation at load {LOAD:g}\n\n"
        "Ten minutes without a pause. The last three columns: class 2's requests that were not rejected. Where nothing "
        "is rejected the queue grows as long as the load lasts, so that nobody can answer all of it in time; the share "
        "of the lanes that late requests get decides who waits.\n\n" + markdown.table(header, rows)
    )
