"""Machines of open data: their peaks, as data sheets have them, and all that was measured on them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

from benchmarks.emulated.measured import DATA
from predictor.features import Own
from predictor.machines.peaks import MachinePeaks
from predictor.workload import Load

_GIB = 2**30
GAVEL = {
    "v100": MachinePeaks(15.7, 900, 80, 16 * _GIB),
    "p100": MachinePeaks(9.3, 732, 56, 16 * _GIB),
    "k80": MachinePeaks(4.37, 240, 13, 12 * _GIB),
}
"""FP32 TFLOPS at boost clock, memory GB/s, multiprocessors: V100 SXM2, P100 PCIe, one of the two GPUs on a K80."""
_MEMORY_SLICES = {1: 1, 2: 2, 3: 4, 4: 4, 7: 8}
PARVAGPU = {
    f"MIG {slices}": MachinePeaks(19.5 * 14 * slices / 108, 2039 * memory / 8, 14 * slices, memory * 10 * _GIB)
    for slices, memory in _MEMORY_SLICES.items()
}
"""Shares of an A100 80 GB, FP32, by NVIDIA's MIG guide: 14 of its 108 multiprocessors a slice, eighths of memory."""


class Measured(NamedTuple):
    """A batch beside co-runners all the time."""

    own: Own
    co_runners: tuple[tuple[Own, float], ...]
    slowdown: float


class MeasuredMachine(NamedTuple):
    """solo: each kind alone."""

    peaks: MachinePeaks
    solo: tuple[Own, ...]
    samples: tuple[Measured, ...]


def gavel_machines() -> dict[str, MeasuredMachine]:
    """Pairs of training jobs on three types of GPU; pairs that did not fit are left out."""
    throughputs = json.loads((DATA / "gavel" / "oracle_throughputs.json").read_text())
    return {gpu: _gavel_machine(peaks, throughputs[gpu]) for gpu, peaks in GAVEL.items()}


def parvagpu_machines() -> dict[str, MeasuredMachine]:
    """Two to five copies of a model on the slices of an A100; those that did not fit are left out."""
    rows = []
    for path in sorted((DATA / "parvagpu").glob("*.csv")):
        with path.open() as lines:
            for row in csv.DictReader(lines):
                key = f"MIG {row['Mig instance']}", path.stem, int(row["Batch size"])
                rows.append((*key, int(row["Workload Number"]), float(row["Throughput"])))
    rows.sort()
    return {
        name: _parvagpu_machine(PARVAGPU[name], [(*row[1:3], row[3], row[4]) for row in found])
        for name, found in groupby(rows, key=lambda row: row[0])
    }


def _gavel_machine(
    peaks: MachinePeaks, throughputs: Mapping[str, Mapping[str, float | list[float]]]
) -> MeasuredMachine:
    alone = {job: found for job in throughputs if isinstance(found := throughputs[job]["null"], float) and found > 0}
    batches = {job: Own(*_kind(job), _load(throughput)) for job, throughput in alone.items()}
    samples = [
        Measured(batches[job], ((batches[other], 1.0),), alone[job] / both[0])
        for job in batches
        for other, both in throughputs[job].items()
        if other in batches and isinstance(both, list) and min(both) > 0
    ]
    return MeasuredMachine(peaks, tuple(batches.values()), tuple(samples))


def _parvagpu_machine(peaks: MachinePeaks, rows: list[tuple[str, int, int, float]]) -> MeasuredMachine:
    """rows: model, batch size, number of copies, throughput of each."""
    alone = {(model, size): throughput for model, size, copies, throughput in rows if copies == 1 and throughput > 0}
    batches = {kind: Own(*kind, _load(throughput / kind[1])) for kind, throughput in alone.items()}
    samples = [
        Measured(batches[model, size], ((batches[model, size], copies - 1.0),), alone[model, size] / throughput)
        for model, size, copies, throughput in rows
        if copies > 1 and throughput > 0 and (model, size) in alone
    ]
    return MeasuredMachine(peaks, tuple(batches.values()), tuple(samples))


def _kind(job: str) -> tuple[str, int]:
    """Model and batch size of a job such as `ResNet-18 (batch size 16)`; the size is 1 where it has none."""
    found = re.fullmatch(r"(.+) \(batch size (\d+)\)", job)
    return (found[1], int(found[2])) if found else (job, 1)


def _load(per_second: float) -> Load:
    return Load(round(1e9 / per_second), 0.0, 0.0, 0.0)
