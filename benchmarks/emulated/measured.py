"""Measured co-locations of open data: slowdowns of pairs of jobs (Gavel) and of identical copies (ParvaGPU)."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).resolve().parents[2] / "data"
COPIES = (2, 3, 4, 5)
WHOLE_A100 = 7
"""Slices of a whole A100."""
_P95_NORMAL = 1.645

YOLOS_SECONDS = {1: 0.088, 3: 0.164, 5: 0.241, 7: 0.320}
"""Seconds per inference of YOLOS-small by number of clients under MPS, A100 80 GB (nebuly-ai/nos, Apache-2.0)."""


class Pair(NamedTuple):
    """The slowdown of a job beside another one, by their indices."""

    own: int
    other: int
    slowdown: float


class Copies(NamedTuple):
    """Slowdowns of a model at a batch size beside identical copies of itself: number of copies -> slowdown."""

    model: str
    batch_size: int
    slowdowns: Mapping[int, float]


def gavel_pairs(gpu: str) -> tuple[list[str], list[Pair]]:
    """The jobs and the ordered pairs of one GPU type (`v100`, `p100`, `k80`); pairs that did not fit are left out."""
    throughputs = json.loads((DATA / "gavel" / "oracle_throughputs.json").read_text())[gpu]
    jobs = list(throughputs)
    pairs = [
        Pair(i, jobs.index(other), throughputs[job]["null"] / both[0])
        for i, job in enumerate(jobs)
        for other, both in throughputs[job].items()
        if other in throughputs and both[0] > 0
    ]
    return jobs, pairs


class Share(NamedTuple):
    """Solo latency on a MIG slice of an A100 over that on the whole, with u from copies on the whole."""

    model: str
    batch_size: int
    share: float
    slowdown: float


def parvagpu_shares() -> list[Share]:
    """Each model and batch size that fits on a slice of one to four sevenths."""
    alone: dict[tuple[str, int, int], float] = {}
    for path in sorted((DATA / "parvagpu").glob("*.csv")):
        with path.open() as lines:
            for row in csv.DictReader(lines):
                if row["Workload Number"] == "1" and (throughput := float(row["Throughput"])) > 0:
                    alone[path.stem, int(row["Batch size"]), int(row["Mig instance"])] = throughput
    return [
        Share(model, size, slices / WHOLE_A100, alone[model, size, WHOLE_A100] / throughput)
        for (model, size, slices), throughput in alone.items()
        if slices < WHOLE_A100 and (model, size, WHOLE_A100) in alone
    ]


def nvidia_spreads() -> list[float]:
    """Published spreads of a solo latency, by its p50 and p95: the logarithm's standard deviation, were it normal."""
    with (DATA / "nvidia_deeplearningexamples" / "solo_latency.csv").open() as lines:
        rows = [(row["p50_ms"], row["p95_ms"]) for row in csv.DictReader(lines)]
    return [log(float(p95) / float(p50)) / _P95_NORMAL for p50, p95 in rows if p50 and p95]


def parvagpu_copies(slices: int = WHOLE_A100) -> list[Copies]:
    """Each model and batch size with a throughput for one to five processes on that MIG slice of an A100."""
    found: list[Copies] = []
    for path in sorted((DATA / "parvagpu").glob("*.csv")):
        throughputs: defaultdict[int, dict[int, float]] = defaultdict(dict)
        with path.open() as lines:
            for row in csv.DictReader(lines):
                if int(row["Mig instance"]) == slices:
                    per_process = throughputs[int(row["Batch size"])]
                    per_process[int(row["Workload Number"])] = float(row["Throughput"])
        for size, by_number in sorted(throughputs.items()):
            if all(by_number.get(number, 0.0) > 0 for number in (1, *COPIES)):
                slowdowns = {number: by_number[1] / by_number[number] for number in COPIES}
                found.append(Copies(path.stem, size, slowdowns))
    return found
