"""One log of the study: its loads one after the other, whatever they are sent to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from backend.load.arrivals import Arrival, poisson
from backend.load.outcomes import Outcome
from benchmarks.harness.cpu_steal import CpuStealWatch
from benchmarks.harness.loads import expect_answers
from benchmarks.study.plan import StudyLog
from benchmarks.study.records import LogRun


def run_log(
    log: StudyLog,
    solo_s: Mapping[str, float],
    cores: int,
    send: Callable[[str, Sequence[Arrival], float], list[Outcome]],
    requests_max: float = float("inf"),
) -> LogRun:
    """Runs all loads of a log. cores: what a load of 1 keeps busy. requests_max: of each load.

    send: of what is said of a load, its arrivals and seconds, what becomes of them.
    """
    rates, requests, failed = [], 0, 0
    with CpuStealWatch() as watch:
        for i, load in enumerate(log.loads):
            traffic = log.traffic(load, solo_s, cores)
            rates.append({t.model: round(t.rate_per_s, 2) for t in traffic})
            seconds = min(log.seconds, requests_max / sum(t.rate_per_s for t in traffic))
            arrivals = poisson(traffic, seconds, log.seed + i)
            outcomes = expect_answers(send(f"load {load:.1f}", arrivals, seconds))
            requests += len(outcomes)
            failed += sum(o.status == "failed" for o in outcomes)
    return LogRun(rates, requests, failed, watch.found)
