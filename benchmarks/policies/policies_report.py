"""The report on policies in Markdown: rivals, parts taken out, the way to an oracle, starvation."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import markdown
from benchmarks.policies.runs import CLASSES, RecordedDevice, RivalFigures
from benchmarks.policies.starvation import LOAD, WITHIN, Starved
from benchmarks.rivals import RIVALS

_OURS, _STOCK, _ORACLE, _FIRST = "ours", "stock", "oracle", "class 1 alone"
_ABLATIONS = (
    "no preemption",
    "no hold",
    "no split",
    "no batches",
    "mean, not bound",
    "no classes",
    "ours, no prediction",
)


class Table:
    """Rows by rival and load."""

    def __init__(self, rows: Sequence[RivalFigures]) -> None:
        self._rows = {(row.rival, row.load): row for row in rows}
        self.rivals = list(dict.fromkeys(row.rival for row in rows))
        self.loads = sorted({row.load for row in rows})

    def met(self, rival: str, load: float) -> float:
        return self._rows[rival, load].all.met_share

    def cell(self, rival: str, load: float) -> str:
        row = self._rows[rival, load]
        found = (row.classes.get(str(c)) for c in CLASSES)
        by_class = " / ".join("–" if summary is None else f"{100 * summary.met_share:.0f}" for summary in found)
        return f"{100 * row.all.met_share:.1f} ({by_class})"

    def way_to_the_oracle(self) -> dict[float, float]:
        """Per load, how much of the distance from stock to the oracle ours goes; empty where one of them is missing."""
        if not {_STOCK, _OURS, _ORACLE} <= set(self.rivals):
            return {}
        found = {}
        for load in self.loads:
            stock, ours, oracle = (self.met(name, load) for name in (_STOCK, _OURS, _ORACLE))
            if oracle > stock:
                found[load] = (ours - stock) / (oracle - stock)
        return found


def report(
    device: RecordedDevice, rows: Sequence[RivalFigures], starved: Sequence[Starved], seconds: float, seeds: int
) -> str:
    table = Table(rows)
    loads = [f"load {load:g}" for load in table.loads]
    kept = [[f"*{name}*", *(table.cell(name, at) for at in table.loads), RIVALS[name].what] for name in table.rivals]
    worth = [
        [f"*{name}*", *(f"{100 * (table.met(_OURS, at) - table.met(name, at)):+.1f}" for at in table.loads)]
        for name in _ABLATIONS
        if name in table.rivals and _OURS in table.rivals
    ]
    way = ", ".join(f"{share:.0%} at load {load:g}" for load, share in table.way_to_the_oracle().items())
    parts = [
        "# Policies in virtual time",
        "The same Poisson arrivals for each, on one simulated device: the production scheduler, another policy or "
        "predictor in it. `make bench-policies` runs all of it from what `make study` recorded and writes this file; "
        "with `RECORDS=results/bench` from what `make bench` did. The same records give the same figures on any day.",
        f"**Conditions.** {len(device.profiles)} models at equal rates, deadlines of 2, 4 and 8 × p95 alone, two "
        f"classes by turns, `on_miss: reject`, {device.lanes} lanes; interference and its spread learned from "
        f"{len(device.samples):,} batches ({device.name}); {seconds:g} s × {seeds} seeds per load. Load 1 keeps every "
        "lane busy with batches of one at their latency alone. A lane is free at the end of an execution; a "
        "server takes some milliseconds more (*around it* in docs/bench.md), so that the same load weighs more there."
        + ("" if device.whole else " A batch has one core everywhere, also under *one at a time*."),
        "## Deadlines kept, % (class 1 / class 2)",
        markdown.table(["", *loads, "what it is"], kept),
        *([f"Of the way from stock to the oracle, ours goes {way}."] if way else []),
        *(
            [
                f"*{_FIRST}* is what a perfect forecast keeps of class 1 where nobody else asks for the device: with "
                "class 2 there, no policy is to be expected to keep more of it."
            ]
            if _FIRST in table.rivals
            else []
        ),
        *(
            [
                "## What each part is worth",
                "Points of deadlines kept that are lost without it.",
                markdown.table(["without", *loads], worth),
            ]
            if worth
            else []
        ),
        *([_starvation(starved)] if starved else []),
    ]
    return "\n\n".join(parts) + "\n"


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
    header = ["", "class 1 kept, %", "class 2 kept, %", "class 2 rejected, %"]
    header += [f"answered within {WITHIN:g} × solo, %", "median, × solo", "worst, × solo"]
    return (
        f"## Starvation at load {LOAD:g}\n\n"
        "Ten minutes without a pause. The last three columns: class 2's requests that were not rejected. Where nothing "
        "is rejected the queue grows as long as the load lasts, so that nobody can answer all of it in time; the share "
        "of the lanes that late requests get decides who waits.\n\n" + markdown.table(header, rows)
    )
