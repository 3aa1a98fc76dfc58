"""What this backend costs beside a blocking Python backend that runs the same ONNX model on the same lanes.

Both models stand in one server; the two are driven in turn, A B A B …, and compared pair by pair, so that the
machine's drift hits both alike. Nothing else may run meanwhile.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime
import typer
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from backend.lanes import cores
from backend.server.embedded import EmbeddedServer
from benchmarks.perf_analyzer import Measured, measure
from benchmarks.stock import write_stock

_WIDTH = 384
_MAX_BATCH_SIZE = 8
_OUR_CONFIG = f'backend: "isochrone"\nmax_batch_size: {_MAX_BATCH_SIZE}\n'


@dataclass(frozen=True)
class Pair:
    """One comparison: ours and stock, measured right after each other."""

    ours: Measured
    stock: Measured


def network(depth: int) -> onnx.ModelProto:
    """`depth` matrix products over 64 positions each: as heavy per row in a batch as alone, as on a busy device."""
    random = np.random.default_rng(0)
    nodes, value = [helper.make_node("Expand", ["x3", "positions"], ["a"])], "a"
    weights = [
        numpy_helper.from_array(np.array([1, 64, 1], np.int64), "positions"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    nodes.insert(0, helper.make_node("Unsqueeze", ["x", "axis"], ["x3"]))
    for layer in range(depth):
        weight = (random.standard_normal((_WIDTH, _WIDTH)) / np.sqrt(_WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"h{layer}"]))
        nodes.append(helper.make_node("Tanh", [f"h{layer}"], [f"t{layer}"]))
        value = f"t{layer}"
    nodes.append(helper.make_node("ReduceMean", [value], ["y"], axes=[1], keepdims=0))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", _WIDTH]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "overhead", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def depth_for(target_ms: float) -> int:
    """How many layers take `target_ms` on one core of this machine, alone."""
    probe = 16
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(network(probe).SerializeToString(), options)
    feed = {"x": np.ones((1, _WIDTH), np.float32)}
    taken = [_timed(lambda: session.run(None, feed)) for _ in range(60)]
    return max(1, round(probe * target_ms / (statistics.median(taken[10:]) * 1e3)))


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def write_repository(repository: Path, targets_ms: tuple[float, ...]) -> None:
    """For each solo latency, the same file under both backends."""
    lanes = len(cores())
    for target_ms in targets_ms:
        content = network(depth_for(target_ms)).SerializeToString()
        for kind in ("stock", "isochrone"):
            folder = repository / f"{kind}_{target_ms:g}ms"
            (folder / "1").mkdir(parents=True)
            (folder / "1" / "model.onnx").write_bytes(content)
            if kind == "stock":
                write_stock(folder, _MAX_BATCH_SIZE, lanes)
            else:
                (folder / "config.pbtxt").write_text(_OUR_CONFIG)


def compare(grpc_url: str, target_ms: float, concurrency: int, repeats: int, seconds: float) -> list[Pair]:
    """`repeats` pairs; the order within a pair alternates."""
    names = (f"isochrone_{target_ms:g}ms", f"stock_{target_ms:g}ms")
    for name in names:
        measure(grpc_url, name, concurrency, 0.9)
    pairs = []
    for i in range(repeats):
        order = names if i % 2 == 0 else names[::-1]
        measured = {name: measure(grpc_url, name, concurrency, seconds) for name in order}
        pairs.append(Pair(measured[names[0]], measured[names[1]]))
    return pairs


def main(
    repeats: Annotated[int, typer.Option(help="pairs per row of the table")] = 7,
    seconds: Annotated[float, typer.Option(help="length of one measurement")] = 3.0,
    json_out: Annotated[Path | None, typer.Option("--json", help="write the raw numbers here")] = None,
) -> None:
    """Compare latency at concurrency 1 and throughput at 8 and 32 for a 2 ms and a 15 ms model."""
    console = Console()
    targets = (2.0, 15.0)
    rows: dict[str, list[Pair]] = {}
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder, "models")
        write_repository(repository, targets)
        with EmbeddedServer(repository, ready_timeout_s=120) as server:
            for target in targets:
                for concurrency in (1, 8, 32):
                    pairs = compare(server.grpc_url, target, concurrency, repeats, seconds)
                    rows[f"{target:g} ms, {concurrency}"] = pairs
                    console.print(f"  {target:g} ms at concurrency {concurrency}: done")
    console.print(_table(rows))
    console.print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}, "
        f"1 thread per batch, {len(cores())} lanes, max_batch_size {_MAX_BATCH_SIZE}; perf_analyzer over gRPC on the "
        f"same cores; {repeats} pairs of {seconds:g} s, median (min to max) of the pairs"
    )
    if json_out is not None:
        raw = {k: [{"ours": vars(p.ours), "stock": vars(p.stock)} for p in v] for k, v in rows.items()}
        json_out.write_text(json.dumps(raw, indent=1))


def _table(rows: dict[str, list[Pair]]) -> Table:
    table = Table("model, concurrency", "p50 ours ms", "p50 stock ms", "difference ms", "requests/s ratio")
    for name, pairs in rows.items():
        ours = statistics.median(p.ours.p50_us for p in pairs) / 1e3
        stock = statistics.median(p.stock.p50_us for p in pairs) / 1e3
        more = _spread([(p.ours.p50_us - p.stock.p50_us) / 1e3 for p in pairs])
        ratio = _spread([p.ours.throughput_s / p.stock.throughput_s for p in pairs])
        table.add_row(name, f"{ours:.2f}", f"{stock:.2f}", more, ratio)
    return table


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    typer.run(main)
