"""Findings: what stands out in a report's figures, and what would help, in sentences with their numbers.

Each sentence follows from the figures by a rule that is stated here; nothing is said where no rule applies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from backend.reporting.attribution import BY_OTHERS, CAUSES, Attribution, Cause
from backend.reporting.culprit import Culprit, find_culprit, sufferings
from backend.reporting.figures import Figures, Lateness, PairCost
from backend.reporting.recording import Recording
from backend.reporting.words import CAUSE_WORDS, counted, milliseconds, percent

LATE_MIN, BATCHES_MIN = 20, 100
"""So many late requests, or batches, of a model: fewer tell nothing."""
MOST, MUCH, SOME = 0.5, 0.2, 0.1
"""Shares of the late requests' time. queueing, held: from MOST on; suspended, transfers, overhead, not explained: from
MUCH on; interference: from SOME on."""
BUSY_MIN = 0.8
"""The lanes busy for this share of the time in which requests came: the device is overloaded."""
TIGHT = 0.8
"""Execution alone that takes this share of the objective: it is too tight."""
TIMES_AS_MUCH = 2.0
"""A model that costs another so many times what that costs it."""
HELD_MIN, ERROR_MAX = 0.9, 0.25
"""Predictions are off where a model's bound holds for less than this, or its median error is more."""


def findings(log: Recording, found: Attribution, figures: Figures) -> list[str]:
    """The most important one first."""
    culprit = find_culprit(sufferings(found))
    said = [*_overview(log, figures)]
    if figures.late:
        said += [_most_time(figures.all_late), *_culprit(log, figures, culprit)]
        said += [*_waiting(log, found, figures.all_late), *_other_causes(figures.all_late)]
        said += [sentence for late in figures.late for sentence in _of_model(log, late, figures)]
    elif log.kind == "samples":
        said += [*_culprit(log, figures, culprit), *_interference_of_batches(figures)]
    return [*said, *_predictions(figures)]


def _overview(log: Recording, figures: Figures) -> Iterator[str]:
    if log.kind == "samples":
        cost_ns, exec_ns = sum(pair.cost_ns for pair in figures.pairs), sum(b.running_ns for b in log.batches)
        share = percent(cost_ns / max(1, exec_ns))
        yield f"Batches slowed each other down by {share} of their execution, {cost_ns / 1e9:.2f} s of it."
        return
    due = sum(d.met + d.missed + d.rejected for d in figures.deadlines)
    missed, rejected = sum(d.missed for d in figures.deadlines), sum(d.rejected for d in figures.deadlines)
    if not due:
        yield "No request had a deadline that it met, missed or was rejected for, so none was late."
        return
    late = f"{counted(missed, 'was', 'were')} answered late ({percent(missed / due)})" if missed else "none was late"
    refused = f", {counted(rejected, 'was', 'were')} rejected ({percent(rejected / due)})" if rejected else ""
    yield f"Of {counted(due, 'request', 'requests')} with a deadline {late}{refused}."


def _most_time(late: Lateness) -> str:
    shares = sorted(((late.share(cause), cause) for cause in CAUSES), reverse=True)
    named = ", ".join(f"{percent(share)} {CAUSE_WORDS[cause]}" for share, cause in shares if share >= 0.01)
    mean = milliseconds(late.total_ns / late.requests)
    return f"The late requests took {mean} from arrival to answer in the mean: {named}."


# The model that costs the others most


def _culprit(log: Recording, figures: Figures, culprit: Culprit | None) -> Iterator[str]:
    if culprit is None:
        what = "batches" if log.kind == "samples" else "late requests"
        yield f"No model stands out as the one that costs the others' {what} most."
        return
    second = ""
    if culprit.second is not None and culprit.second_ns > 0:
        second = f"; next comes {culprit.second} with {percent(culprit.second_ns / culprit.total_ns)}"
    if log.kind == "samples":
        yield (
            f"{culprit.model} slows the others down most: it causes {percent(culprit.share)} of the execution of their "
            f"{culprit.sufferers:,} batches{second}. {_advice(log, culprit.model, None)}"
        )
        return
    others = [late for late in figures.late if late.model != culprit.model]
    by_cause = {cause: sum(late.by_model(cause)[culprit.model] for late in others) for cause in BY_OTHERS}
    how = ", ".join(
        f"{percent(span_ns / culprit.total_ns)} {CAUSE_WORDS[cause]}"
        for cause, span_ns in sorted(by_cause.items(), key=lambda item: -item[1])
        if span_ns >= 0.01 * culprit.total_ns
    )
    worst = max(others, key=lambda late: late.requests).model
    yield (
        f"{culprit.model} causes most lateness: {percent(culprit.share)} of the time of the others' "
        f"{culprit.sufferers:,} late requests ({how}){second}. {_advice(log, culprit.model, worst)}"
    )


def _advice(log: Recording, model: str, sufferer: str | None) -> str:
    """Say what would help. sufferer: whom it slows down; None where the log has no classes."""
    mine, theirs = _class_of(log, model), None if sufferer is None else _class_of(log, sufferer)
    if mine is None or theirs is None:
        return "Give it a lower class or another device."
    if mine <= theirs:
        return f"Give it a lower class (it has {mine}, {sufferer} {theirs}) or another device."
    return (
        f"It has a lower class already ({mine}, {sufferer} {theirs}): give it another device, or a smaller "
        "max_batch_size or fewer lanes."
    )


def _class_of(log: Recording, model: str) -> int | None:
    """The class of most of its requests."""
    counts = Counter({priority: c.total() for (name, priority), c in log.outcomes.items() if name == model})
    return counts.most_common(1)[0][0] if counts else None


# Causes


def _waiting(log: Recording, found: Attribution, late: Lateness) -> Iterator[str]:
    if late.requests < LATE_MIN or found.lane_time is None:
        return
    if (share := late.share("queueing")) >= MOST:
        arrivals = [answer.arrival_ns for batch in log.batches for answer in batch.answers]
        busy = found.lane_time.busy_share(min(arrivals), max(arrivals))
        queueing = f"{percent(share)} of the late requests' time is queueing"
        if busy >= BUSY_MIN:
            yield (
                f"{queueing}, and the lanes were busy for {percent(busy)} of the time: the device is overloaded. Send "
                "less, reject what is late, or add a device."
            )
        else:
            yield (
                f"{queueing}, though the lanes were busy for {percent(busy)} of the time only: requests come in "
                "bursts, or behind long batches. Spread them, shorten batches (max_batch_size), or give a higher class "
                "to what matters."
            )
    if (share := late.share("held")) >= MOST:
        yield (
            f"{percent(share)} of the late requests' time they were held though a lane was free, so that others make "
            "their deadlines: raise their class or their objective."
        )


_ADVICE: dict[Cause, str] = {
    "suspended": "their batches stood still for batches with less time: raise their class, or take a lane less",
    "transfers": "their tensors move to the device and back: send smaller ones, or use shared memory",
    "overhead": "it is spent around executions: other processes use the server's cores",
    "not explained": "their batches were slow without co-runners that would explain it: look for another process on "
    "the device, or throttled clocks",
}


def _other_causes(late: Lateness) -> Iterator[str]:
    for cause, advice in _ADVICE.items():
        if late.requests >= LATE_MIN and (share := late.share(cause)) >= MUCH:
            yield f"{percent(share)} of the late requests' time is {CAUSE_WORDS[cause]}: {advice}."


def _of_model(log: Recording, late: Lateness, figures: Figures) -> Iterator[str]:
    assert late.model is not None
    if late.requests < LATE_MIN:
        return
    solo_ns, slo_ns = late.of("execution") / late.requests, late.slo_ns / late.requests
    if solo_ns >= TIGHT * slo_ns:
        yield (
            f"{late.model}'s late requests had {milliseconds(slo_ns)} in the mean, and their batches take "
            f"{milliseconds(solo_ns)} alone: raise slo_ms, or lower its max_batch_size."
        )
    whole_ns = late.of("interference")
    by, span_ns = max(late.by_model("interference").items(), key=lambda item: item[1], default=("", 0))
    if whole_ns >= SOME * late.total_ns and span_ns >= MOST * whole_ns and _one_sided(late.model, by, figures.pairs):
        yield (
            f"{by} causes {percent(span_ns / whole_ns)} of the interference that {late.model}'s late requests "
            f"suffered, which is {percent(late.share('interference'))} of their time. {_advice(log, by, late.model)}"
        )


def _one_sided(model: str, by: str, pairs: list[PairCost]) -> bool:
    """True if `by` costs `model` far more device time than the other way round."""
    cost_ns = {(pair.model, pair.by): pair.cost_ns for pair in pairs}
    return by != model and cost_ns.get((model, by), 0) >= TIMES_AS_MUCH * cost_ns.get((by, model), 0)


def _interference_of_batches(figures: Figures) -> Iterator[str]:
    suffered_ns: Counter[str] = Counter()
    for pair in figures.pairs:
        suffered_ns[pair.model] += pair.cost_ns
    for pair in figures.pairs:
        whole_ns = suffered_ns[pair.model]
        if (
            pair.batches >= BATCHES_MIN
            and whole_ns >= SOME * pair.exec_ns
            and pair.cost_ns >= MOST * whole_ns
            and _one_sided(pair.model, pair.by, figures.pairs)
        ):
            yield (
                f"{pair.by} causes {percent(pair.cost_ns / whole_ns)} of the interference that {pair.model}'s batches "
                f"suffered, {percent(pair.share)} of their execution."
            )


def _predictions(figures: Figures) -> Iterator[str]:
    for p in figures.predicted:
        if p.batches < BATCHES_MIN:
            continue
        if p.held is not None and p.held < HELD_MIN:
            yield f"The upper bound of {p.model}'s batches held for {percent(p.held)} of them only: profile it."
        elif p.error_p50 > ERROR_MAX:
            yield f"Predictions for {p.model} are off by {percent(p.error_p50)} in the median: profile it."
