"""What the way to an engine process costs: the same model with its engine there and in the model's own process.

Both stand in one server; the two are driven in turn, A B B A …, and compared pair by pair, so that the machine's drift
hits both alike. Nothing else may run meanwhile.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import onnxruntime
import typer
from rich.console import Console
from rich.table import Table

from backend.lanes import cores
from backend.server.embedded import EmbeddedServer
from benchmarks.overhead import depth_for, network
from benchmarks.perf_analyzer import Measured, measure

_MAX_BATCH_SIZE = 8
_PLACES = ("shared", "own")
_WARM_UP_S = 0.9


@dataclass(frozen=True)
class Pair:
    """One comparison: both places, measured right after each other."""

    shared: Measured
    own: Measured


def write_repository(repository: Path, targets_ms: tuple[float, ...]) -> None:
    """For each solo latency, the same file with its engine in either place."""
    for target_ms in targets_ms:
        content = network(depth_for(target_ms)).SerializeToString()
        for place in _PLACES:
            folder = repository / f"{place}_{target_ms:g}ms"
            (folder / "1").mkdir(parents=True)
            (folder / "1" / "model.onnx").write_bytes(content)
            (folder / "config.pbtxt").write_text(
                f'backend: "isochrone"\nmax_batch_size: {_MAX_BATCH_SIZE}\n'
                f'parameters {{ key: "engine_process" value {{ string_value: "{place}" }} }}\n'
            )


def compare(grpc_url: str, target_ms: float, concurrency: int, repeats: int, seconds: float) -> list[Pair]:
    """`repeats` pairs; the order within a pair alternates."""
    names = [f"{place}_{target_ms:g}ms" for place in _PLACES]
    for name in names:
        measure(grpc_url, name, concurrency, _WARM_UP_S)
    pairs = []
    for i in range(repeats):
        order = names if i % 2 == 0 else names[::-1]
        measured = {name: measure(grpc_url, name, concurrency, seconds) for name in order}
        pairs.append(Pair(*(measured[name] for name in names)))
    return pairs


def main(
    repeats: Annotated[int, typer.Option(help="pairs per row of the table")] = 7,
    seconds: Annotated[float, typer.Option(help="length of one measurement")] = 3.0,
    solo_ms: Annotated[list[float] | None, typer.Option(help="solo latency of a model; may be repeated")] = None,
    concurrency: Annotated[list[int] | None, typer.Option(help="requests in flight; may be repeated")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="write the raw numbers here")] = None,
) -> None:
    """Compare latency and throughput of engines in an engine process and in their model's own, on CPU."""
    console = Console()
    targets = tuple(solo_ms or (2.0, 15.0))
    rows: dict[str, list[Pair]] = {}
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder, "models")
        write_repository(repository, targets)
        with EmbeddedServer(repository, ready_timeout_s=120) as server:
            for target in targets:
                for clients in concurrency or (1, 8, 32):
                    rows[f"{target:g} ms, {clients}"] = compare(server.grpc_url, target, clients, repeats, seconds)
                    console.print(f"  {target:g} ms at concurrency {clients}: done")
    console.print(_table(rows))
    console.print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}, "
        f"1 thread per batch, {len(cores())} lanes, max_batch_size {_MAX_BATCH_SIZE}; perf_analyzer over gRPC on the "
        f"same cores; {repeats} pairs of {seconds:g} s, median (min to max) of the pairs"
    )
    if json_out is not None:
        raw = {k: [{"shared": vars(p.shared), "own": vars(p.own)} for p in v] for k, v in rows.items()}
        json_out.write_text(json.dumps(raw, indent=1))


def _table(rows: dict[str, list[Pair]]) -> Table:
    table = Table("model, concurrency", "p50 shared ms", "p50 own ms", "difference ms", "requests/s, shared / own")
    for name, pairs in rows.items():
        shared = statistics.median(p.shared.p50_us for p in pairs) / 1e3
        own = statistics.median(p.own.p50_us for p in pairs) / 1e3
        more = _spread([(p.shared.p50_us - p.own.p50_us) / 1e3 for p in pairs])
        ratio = _spread([p.shared.throughput_s / p.own.throughput_s for p in pairs])
        table.add_row(name, f"{shared:.2f}", f"{own:.2f}", more, ratio)
    return table


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    typer.run(main)
