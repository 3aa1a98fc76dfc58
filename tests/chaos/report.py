"""The report of a campaign: a line per kind of fault, and what was not as it must be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import mean, median, stdev
from typing import Any

import msgspec

from tests.chaos.account import GOOD
from tests.chaos.campaign import Record

RESUMED_MAX_S = 2.0
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
        if record.schedulers != 1 and not record.crashed:
            found.append(f"{record.kind}: {record.schedulers} schedulers run on the device")
        if record.trouble:
            found.append(f"{record.kind}: {record.trouble}")
    return found


def as_json(records: Sequence[Record], rates_per_s: Sequence[float], left_out: Sequence[str]) -> bytes:
    """All that was recorded."""
    return msgspec.json.encode({"records": records, "rates_per_s": rates_per_s, "left_out": left_out})


def as_markdown(
    records: Sequence[Record], rates_per_s: Sequence[float], left_out: Sequence[str], window_s: float
) -> str:
    """Tables."""
    kinds = list(dict.fromkeys(record.kind for record in records))
    by_kind = {kind: [record for record in records if record.kind == kind] for kind in kinds}
    limits: Counter[str] = Counter()
    for record in records:
        limits.update(record.sum.allowed)
    parts = [
        f"{len(records)} faults of {len(kinds)} kinds under open-loop load of 0.8 of the capacity "
        f"({', '.join(f'{rate:.0f}/s' for rate in rates_per_s)}); deadlines in windows of {window_s:g} s.",
        table(_HEADER, [_row(kind, found) for kind, found in by_kind.items()]),
        table(("limit", "requests"), [(limit, str(count)) for limit, count in limits.most_common()]) if limits else "",
        "\n".join(f"- left out: {reason}" for reason in left_out),
        "\n".join(f"- {failure}" for failure in failures(records)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


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
