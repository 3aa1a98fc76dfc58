"""The report of a campaign: a line per kind of fault, and what was not as it must be."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import mean, median, stdev
from typing import Any

from profiler.host import cpu_name
from tests.chaos.account import GOOD
from tests.chaos.campaign import LOAD, Record

_SHOWN = 2_000
_INTRODUCTION = """Written by `make chaos`, here by `{command}`.

Each fault is done to a real tritonserver with five models, two of them in an engine process, a router and an Envoy,
while requests arrive. Then an account is made of every request: answered once and right, refused in words, or lost
by a limit of Triton's or of a cut connection, which the second table names with its test. *Decisions after*: time
until the scheduler had decided anew for every model, from the fault on, or from its end where it stops decisions.
*nothing* is no fault: its row says how much of the others' deadlines is chance. [What survives
what](../explanation/faults.md) has the mechanisms."""
_HEADER = (
    *("fault", "times", "requests", "right", "refused", "by a documented limit", "lost, wrong, hung or other errors"),
    *("decisions after, p50 / most", "deadlines kept before → after", "tritonserver ended"),
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *rows])


def failures(records: Sequence[Record]) -> list[str]:
    """Sentences of what was not as it must be, whatever the times."""
    found = []
    for record in records:
        for words, count in record.sum.not_allowed.items():
            found.append(f"{record.kind}: {count} × {words}")
        if record.resumed_s is None and not record.crashed:
            found.append(f"{record.kind}: decisions for all models did not resume")
        if record.crashed and not record.may_crash:
            found.append(f"{record.kind}: tritonserver ended")
        if record.schedulers != 1 and not record.crashed:
            found.append(f"{record.kind}: {record.schedulers} schedulers run on the device")
        if record.trouble:
            found.append(f"{record.kind}: {record.trouble}")
    return found


def unexpected(logs: Sequence[str]) -> list[str]:
    """Errors that a process of ours did not foresee: no fault may lead there, whatever became of the requests."""
    found = [log[at.start() : at.start() + _SHOWN] for log in logs for at in re.finditer("Traceback", log)]
    return [f"{len(found)} tracebacks in the logs, the first one: {found[0]}"] if found else []


def as_markdown(
    records: Sequence[Record], rates_per_s: Sequence[float], left_out: Sequence[str], window_s: float, command: str
) -> str:
    """Write the page. command: by which the records were made."""
    kinds = list(dict.fromkeys(record.kind for record in records))
    by_kind = {kind: [record for record in records if record.kind == kind] for kind in kinds}
    limits: Counter[str] = Counter()
    for record in records:
        limits.update(record.sum.allowed)
    if not records:
        return "no fault was done\n"
    parts = [
        "# Faults under load",
        _INTRODUCTION.format(command=command),
        _conditions(records, rates_per_s, window_s),
        table(_HEADER, [_row(kind, found) for kind, found in by_kind.items()]),
        "## Limits that were met" if limits else "",
        table(("limit", "requests"), [(limit, str(count)) for limit, count in limits.most_common()]) if limits else "",
        "\n".join(f"- left out: {reason}" for reason in left_out),
        "## Not as it must be" if failures(records) else "",
        "\n".join(f"- {failure}" for failure in failures(records)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _conditions(records: Sequence[Record], rates_per_s: Sequence[float], window_s: float) -> str:
    kinds = len({record.kind for record in records})
    return (
        f"{len(records)} faults of {kinds} kinds. Open-loop load of {100 * LOAD:.0f} % of the capacity measured at "
        f"each start of a server ({min(rates_per_s):.0f} to {max(rates_per_s):.0f}/s); deadlines in windows of "
        f"{window_s:g} s before and after. {cpu_name()}, {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[2]:.0f} at the end."
    )


def _row(kind: str, records: Sequence[Record]) -> list[str]:
    outcomes: Counter[str] = Counter()
    for record in records:
        outcomes.update(record.sum.outcomes)
    allowed = sum(sum(record.sum.allowed.values()) for record in records)
    bad = sum(count for outcome, count in outcomes.items() if outcome not in GOOD) - allowed
    return [
        kind,
        str(len(records)),
        str(outcomes.total()),
        str(outcomes["right"]),
        str(outcomes["refused"]),
        str(allowed),
        str(bad),
        _resumed(records),
        _kept(records),
        str(sum(record.crashed for record in records)),
    ]


def _resumed(records: Sequence[Record]) -> str:
    found = [record.resumed_s for record in records if record.resumed_s is not None]
    return f"{median(found):.2f} / {max(found):.2f} s" if found else "–"


def _kept(records: Sequence[Record]) -> str:
    """Means before and after, and the mean difference with its standard error."""
    pairs = [
        (record.kept_before, record.kept_after)
        for record in records
        if record.kept_before is not None and record.kept_after is not None and not record.crashed
    ]
    if not pairs:
        return "–"
    before, after = mean(b for b, _ in pairs), mean(a for _, a in pairs)
    changes: list[Any] = [a - b for b, a in pairs]
    error = f" ± {stdev(changes) / len(changes) ** 0.5:.1f}" if len(changes) > 1 else ""
    return f"{before:.1f} → {after:.1f} % ({after - before:+.1f}{error})"
