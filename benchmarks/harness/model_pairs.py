"""Two kinds of the same model in one server, driven in turn, A B B A …, and compared pair by pair.

So the machine's drift hits both alike. Nothing else may run meanwhile.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from backend.linux.cpu_topology import cores
from backend.progress_bar import console
from benchmarks.harness.markdown import spread
from benchmarks.harness.perf_analyzer import ClosedLoopFigures, measure
from benchmarks.harness.servers import temporary_server
from benchmarks.models.model_repository import MAX_BATCH_SIZE
from benchmarks.models.sized_model import depth_for, sized_model
from profiler.host import cpu_name, package_version

_WARM_UP_S = 0.9

Configure = Callable[[str, Path], None]
"""Makes the folder of a model, which holds `1/model.onnx`, one of a kind."""
Pair = tuple[ClosedLoopFigures, ClosedLoopFigures]
"""Measured right after each other, in the order of `PairsPlan.kinds`."""
Rows = Mapping[str, Sequence[Pair]]
"""Pairs by model and concurrency, as the table names them."""


@dataclass(frozen=True)
class PairsPlan:
    """kinds: the two, as the table names them. solo_ms: latencies alone, a model each. concurrency: requests in flight.

    repeats: pairs per row of the table; seconds: length of one measurement.
    """

    kinds: tuple[str, str]
    solo_ms: Sequence[float]
    concurrency: Sequence[int]
    repeats: int
    seconds: float


def compare(plan: PairsPlan, configure: Configure) -> None:
    """Measures and prints a table, also of what was measured before an error. Raises IsochroneError."""
    out, rows = console(), dict[str, list[Pair]]()
    with temporary_server(partial(write_kinds, plan.kinds, plan.solo_ms, configure)) as server:
        try:
            for solo_ms in plan.solo_ms:
                models = (name_of(plan.kinds[0], solo_ms), name_of(plan.kinds[1], solo_ms))
                for concurrency in plan.concurrency:
                    found = measure_pairs(server.grpc_url, models, concurrency, plan.repeats, plan.seconds)
                    rows[f"{solo_ms:g} ms, {concurrency}"] = found
                    out.print(f"  {solo_ms:g} ms at concurrency {concurrency}: done")
        finally:
            if rows:
                _show(out, plan, rows)


def measure_pairs(grpc_url: str, models: tuple[str, str], concurrency: int, repeats: int, seconds: float) -> list[Pair]:
    """Measures two models that are served there; the order within a pair alternates. Raises BenchmarkError."""
    for model in models:
        measure(grpc_url, model, concurrency, _WARM_UP_S)
    pairs = []
    for i in range(repeats):
        order = models if i % 2 == 0 else models[::-1]
        measured = {model: measure(grpc_url, model, concurrency, seconds) for model in order}
        pairs.append((measured[models[0]], measured[models[1]]))
    return pairs


def write_kinds(kinds: Sequence[str], solo_ms: Sequence[float], configure: Configure, repository: Path) -> None:
    """Writes the same model file for each kind, one per solo latency."""
    for ms in solo_ms:
        content = sized_model(depth_for(ms)).SerializeToString()
        for kind in kinds:
            model = repository / name_of(kind, ms)
            (model / "1").mkdir(parents=True)
            (model / "1" / "model.onnx").write_bytes(content)
            configure(kind, model)


def name_of(kind: str, solo_ms: float) -> str:
    return f"{kind}_{solo_ms:g}ms"


def _show(out: Console, plan: PairsPlan, rows: Rows) -> None:
    out.print(_table(plan.kinds, rows))
    out.print(
        f"{cpu_name()}, {os.cpu_count()} cores, onnxruntime {package_version('onnxruntime')}, 1 thread per batch, "
        f"{len(cores())} lanes, max_batch_size {MAX_BATCH_SIZE}; perf_analyzer over gRPC on the same cores; "
        f"{plan.repeats} pairs of {plan.seconds:g} s, median (min to max) of the pairs"
    )


def _table(kinds: tuple[str, str], rows: Rows) -> Table:
    a, b = kinds
    table = Table("model, concurrency", f"p50 {a} ms", f"p50 {b} ms", "difference ms", f"requests/s, {a} / {b}")
    for name, pairs in rows.items():
        p50_ms = [statistics.median(one.p50_us for one in ones) / 1e3 for ones in zip(*pairs, strict=True)]
        more = spread([(one.p50_us - other.p50_us) / 1e3 for one, other in pairs])
        ratio = spread([one.throughput_s / other.throughput_s for one, other in pairs])
        table.add_row(name, *(f"{p50:.2f}" for p50 in p50_ms), more, ratio)
    return table
