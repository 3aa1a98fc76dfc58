"""What busy processes in the server's own container cost, beside a blocking Python backend with the same model.

One request at a time; the strangers are started and ended here.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tritonclient.grpc as triton_grpc
import typer
from rich.table import Table

from backend.commands.progress_bar import console
from backend.linux.cpu_topology import cores
from backend.server.embedded import EmbeddedServer
from benchmarks.ending import told
from benchmarks.network import depth_for, network
from benchmarks.pairs import MAX_BATCH_SIZE
from benchmarks.stock import write_stock
from profiler.host import cpu_name

_OURS, _STOCK = "ours", "stock"
_WIDTH = 384
_SETTLES_S = 0.5
_READY_TIMEOUT_S = 120.0

Taken = dict[str, dict[str, list[float]]]
"""Milliseconds of each request, by what is beside it and by kind."""


def main(
    solo_ms: Annotated[float, typer.Option(help="what the model takes alone")] = 8.0,
    repeats: Annotated[int, typer.Option(help="measurements of each")] = 5,
    seconds: Annotated[float, typer.Option(help="length of one")] = 3.0,
    lanes: Annotated[int, typer.Option(help="device_lanes, 0: auto")] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", help="write the raw numbers here")] = None,
) -> None:
    """Compare the latency of one request at a time beside no stranger, one on a core, and one for each core."""
    beside: dict[str, list[int]] = {
        "nothing": [],
        "one on the first core": cores()[:1],
        f"{len(cores())} on any": [-1] * len(cores()),
    }
    taken: Taken = {name: {_OURS: [], _STOCK: []} for name in beside}
    with (
        told("strangers", kept="nothing was measured to its end"),
        _server(solo_ms, lanes) as server,
        closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client,
    ):
        for i in range(repeats):
            for name, strangers in beside.items():
                for kind in (_OURS, _STOCK)[:: 1 if i % 2 == 0 else -1]:
                    with _strangers(client, strangers):
                        taken[name][kind] += _measure(client, kind, seconds)
    if json_out is not None:
        json_out.write_text(json.dumps(taken))
    _show(taken, f"{cpu_name()}, {len(cores())} cores; {solo_ms:g} ms alone; {repeats} times {seconds:g} s of each")


@contextmanager
def _server(solo_ms: float, lanes: int) -> Iterator[EmbeddedServer]:
    content = network(depth_for(solo_ms)).SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder, "models")
        for kind in (_OURS, _STOCK):
            (repository / kind / "1").mkdir(parents=True)
            (repository / kind / "1" / "model.onnx").write_bytes(content)
        write_stock(repository / _STOCK, MAX_BATCH_SIZE, len(cores()))
        fixed = f'parameters {{ key: "device_lanes" value {{ string_value: "{lanes}" }} }}\n' if lanes else ""
        (repository / _OURS / "config.pbtxt").write_text(
            f'backend: "isochrone"\nmax_batch_size: {MAX_BATCH_SIZE}\n{fixed}'
        )
        write_strangers(repository)
        with EmbeddedServer(repository, ready_timeout_s=_READY_TIMEOUT_S) as server:
            yield server


def write_strangers(repository: Path) -> None:
    """The model `strangers`, see `stranger_model`."""
    folder = repository / "strangers"
    (folder / "1").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("stranger_model.py"), folder / "1" / "model.py")
    (folder / "config.pbtxt").write_text(
        'backend: "python"\ninput [{ name: "cores" data_type: TYPE_INT32 dims: [-1] }]\n'
        'output [{ name: "count" data_type: TYPE_INT32 dims: [-1] }]\n'
    )


def ask_for_strangers(client: Any, on_cores: Sequence[int]) -> None:
    """Of a server with the model `strangers`: these from now on, and no others."""
    wanted = triton_grpc.InferInput("cores", [len(on_cores)], "INT32")
    wanted.set_data_from_numpy(np.array(on_cores, np.int32))
    client.infer("strangers", [wanted])


@contextmanager
def _strangers(client: Any, on_cores: Sequence[int]) -> Iterator[None]:
    ask_for_strangers(client, on_cores)
    try:
        time.sleep(_SETTLES_S)
        yield
    finally:
        ask_for_strangers(client, [])


def _measure(client: Any, model: str, seconds: float) -> list[float]:
    x = triton_grpc.InferInput("x", [1, _WIDTH], "FP32")
    x.set_data_from_numpy(np.ones((1, _WIDTH), np.float32))
    taken, until_s = [], time.perf_counter() + seconds
    while (began_s := time.perf_counter()) < until_s:
        client.infer(model, [x])
        taken.append((time.perf_counter() - began_s) * 1e3)
    return taken


def _show(taken: Taken, conditions: str) -> None:
    out = console()
    table = Table("beside", "p50 ours ms", "p50 stock ms", "max ours ms", "max stock ms", "ratios")
    for name, kinds in taken.items():
        p50 = {kind: statistics.median(ms) for kind, ms in kinds.items()}
        most = {kind: max(ms) for kind, ms in kinds.items()}
        ratios = f"{p50[_OURS] / p50[_STOCK]:.2f}, {most[_OURS] / most[_STOCK]:.2f}"
        figures = (p50[_OURS], p50[_STOCK], most[_OURS], most[_STOCK])
        table.add_row(name, *(f"{ms:.1f}" for ms in figures), ratios)
    out.print(table)
    out.print(conditions)


if __name__ == "__main__":
    typer.run(main)
