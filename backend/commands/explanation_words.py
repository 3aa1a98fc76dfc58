"""An explanation in words, for `isochrone explain`: a line per fact, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from backend.scheduler_process.explanation import Batch, Explanation, Launched, Wait

_INDENT = " " * 15
_MS = 1e6


def words(found: Explanation) -> Iterator[str]:
    """Arrival, each reason to wait, launch, end."""
    request, began_ns = found.request, found.request.arrival_ns
    rows = _count(request.rows, "row")
    yield f"request {found.number} of model '{found.model}': class {request.priority}, {rows}"
    due = "no deadline" if request.deadline_ns is None else f"deadline {_ms(request.deadline_ns - began_ns)} later"
    yield f"{clock(began_ns + found.clock_ns)}  arrived, {due}"
    for sentence in found.incomplete:
        yield f"{_INDENT}note: {sentence}"
    waiting = ", ".join(f"{model} {count}" for model, count in found.waiting.items())
    yield f"{_INDENT}before it waited: {waiting or 'nothing'}"
    yield from _running_words("there ran", found.running, began_ns)
    for wait in found.waits:
        yield _at(wait.at_ns - began_ns) + _wait_words(wait)
        if wait.times > 1:
            yield f"{_INDENT}so at {wait.times} decisions, until {_ms(wait.until_ns - began_ns)} after its arrival"
        if wait.at_ns != found.arrived_ns:
            yield from _running_words("there ran", wait.running, wait.at_ns)
    if found.passed:
        passed = ", ".join(f"{model} {_count(count, 'batch', 'es')}" for model, count in found.passed.items())
        yield f"{_INDENT}launched meanwhile: {passed}"
    if found.launched is not None:
        yield from _launch_words(found, found.launched)
    for span in found.suspended:
        until = "" if span.until_ns is None else f" for {_ms(span.until_ns - span.at_ns)}"
        yield _at(span.at_ns - began_ns) + f"suspended{until}: another batch preempted it"
    yield from _end_words(found)


def _wait_words(wait: Wait) -> str:
    """A sentence per `Reason`."""
    ahead = f"; {_count(wait.ahead, 'request')} of its model came first" if wait.ahead else ""
    if wait.reason == "harm":
        harmed = "; ".join(
            f"{h.model} × {h.rows} on lane {h.lane} would have missed its deadline by {_ms(h.late_ns)}"
            for h in wait.harmed
        )
        return f"held: beside it {harmed} at the upper bound{ahead}"
    if wait.reason == "expected":
        idle = "" if wait.running else ", though the device was idle"
        costs = ", ".join(f"{c.lost:.2f} of class {c.priority} (each counts {c.price:.1f})" for c in wait.costs)
        kept = f"and to keep {wait.keeps:.2f}{ahead}"
        return f"held{idle}: of deadlines of requests to come it was expected to cost {costs}, {kept}"
    late = "" if wait.late_ns is None else f" by {_ms(wait.late_ns)}"
    return {
        "lanes": "waited: every lane was taken" + ahead,
        "leased": "waited: the free lane was kept for a lease, which was recalled",
        "can wait": "waited: every lane was taken, and it would make its deadline on the next one",
        "better later": "held: launched then it would have missed its deadline, at the next finish it would make it"
        + ahead,
        "too late": f"passed over: launched then it would have missed its deadline{late}, others could make theirs",
        "late": "late: it could not make its deadline even alone any more; such ones get a share of the lanes' time",
        "not looked at": "passed over: batches of other models were considered first, and held" + ahead,
    }[wait.reason]


def _running_words(what: str, running: Sequence[Batch], at_ns: int) -> Iterator[str]:
    for batch in running:
        end = "suspended" if batch.suspended else f"predicted to end {_in(batch.ends_ns - at_ns)}"
        due = "" if batch.deadline_ns is None else f", due {_in(batch.deadline_ns - at_ns)}"
        since = _ms(at_ns - batch.since_ns)
        yield f"{_INDENT}{what} {batch.model} × {batch.rows} on lane {batch.lane} since {since}, {end}{due}"


def _launch_words(found: Explanation, launch: Launched) -> Iterator[str]:
    split = " (a split: more waited)" if launch.decision == "split" else ""
    batch = f"in batch {launch.batch} of {_count(launch.requests, 'request')}, {_count(launch.rows, 'row')}"
    yield _at(launch.at_ns - found.request.arrival_ns) + f"launched {batch}{split}, on lane {launch.lane}"
    yield f"{_INDENT}size: {_limit_words(launch)}"
    for batch_ in launch.preempts:
        yield f"{_INDENT}it preempted {batch_.model} × {batch_.rows} on lane {batch_.lane}"
    moved = launch.transfer_in_ns + launch.transfer_out_ns
    transfers = f"; inputs {_ms(launch.transfer_in_ns)}, outputs {_ms(launch.transfer_out_ns)}" if moved else ""
    beside = [batch_ for batch_ in launch.beside if not batch_.suspended]
    yield (
        f"{_INDENT}predicted {_ms(launch.predicted_ns)} (solo {_ms(launch.solo_ns)}), upper bound "
        f"{_ms(launch.bound_ns)}{transfers}; beside {_count(len(beside), 'batch', 'es')}"
    )
    yield from _running_words("co-runner", beside, launch.at_ns)


def _limit_words(launch: Launched) -> str:
    """A clause per `Limit`."""
    return {
        "only": "one request on an idle device",
        "all": "all that waited and fits",
        "max_batch_size": f"its max_batch_size of {launch.allowed} rows",
        "knee": f"beyond {launch.allowed} rows a batch gains little, and other models waited",
        "deadline": f"{launch.allowed} could have shared it, but one more would have missed the tightest deadline",
        "harm": f"{launch.allowed} could have shared it, but a larger one would have made a running batch miss",
        "expected": f"{launch.allowed} could have shared it, but a larger one would have cost requests to come more",
        "overdue": "one request that was held too long, from the share of the lanes' time for such",
        "order": "its model is not interference-aware: in order of arrival, as many as fit",
        "late": "of late requests, from the share of the lanes' time for such or because nobody else waited",
        "lease": "launched by its process, which held a lease of the idle device",
        "preempts": "as many as fit before the batch that it preempts",
    }[launch.limit]


def _end_words(found: Explanation) -> Iterator[str]:
    began_ns, end, launch = found.request.arrival_ns, found.finished, found.launched
    if found.rejected is not None:
        r = found.rejected
        yield _at(r.at_ns - began_ns) + (
            f"rejected: it needs {_ms(r.needs_ns)} even alone, and its deadline left {_ms(r.left_ns)}; "
            f"{_ms(r.predicted_ns)} from its arrival instead of {_ms(r.allowed_ns)}"
        )
    elif found.cancelled_ns is not None:
        yield _at(found.cancelled_ns - began_ns) + "cancelled by the client"
    elif found.gone_ns is not None:
        yield _at(found.gone_ns - began_ns) + "its model's process was gone"
    elif end is None:
        yield f"{_INDENT}the log ends before it did"
    elif end.exec_ns is None:
        yield _at(end.at_ns - began_ns) + "failed"
    else:
        assert launch is not None
        off = 100 * (end.exec_ns / launch.predicted_ns - 1.0)
        more = "more" if off > 0 else "less"
        held = "within" if end.exec_ns <= launch.bound_ns else "beyond"
        yield _at(end.at_ns - began_ns) + (
            f"finished: executed in {_ms(end.exec_ns)}, {abs(off):.1f} % {more} than predicted, {held} the bound"
        )
        if end.late_ns is not None:
            kept = end.late_ns <= 0
            yield f"{_INDENT}deadline " + (
                f"kept with {_ms(-end.late_ns)} left" if kept else f"missed by {_ms(end.late_ns)}"
            )


def clock(unix_ns: int) -> str:
    """This machine's time of day, to the millisecond."""
    at = datetime.fromtimestamp(unix_ns / 1e9)
    return at.isoformat(sep=" ", timespec="milliseconds")


def _at(since_ns: int) -> str:
    return f"{since_ns / _MS:+10.2f} ms  "


def _ms(span_ns: float) -> str:
    return f"{span_ns / _MS:.2f} ms"


def _in(span_ns: int) -> str:
    return f"in {_ms(span_ns)}" if span_ns >= 0 else f"{_ms(-span_ns)} ago"


def _count(number: int, what: str, more: str = "s") -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}{more}"
