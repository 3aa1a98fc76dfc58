"""Cost of busy processes in the server's own container, beside a blocking Python backend with the same model.

One request at a time; those processes are started and ended here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tritonclient.grpc as triton_grpc
import typer
from rich.table import Table

from backend.linux.cpu_topology import cores
from backend.progress_bar import console
from benchmarks.harness.command import one_sentence_errors
from benchmarks.harness.model_pairs import name_of, write_kinds
from benchmarks.harness.servers import temporary_server
from benchmarks.overhead import OURS, STOCK, configure
from profiler.host import cpu_name
from tests.fakes.foreign_processes import run_foreign_processes, write_foreign_process_model

_WIDTH = 384
_SETTLES_S = 0.5

Taken = dict[str, dict[str, list[float]]]
"""Milliseconds of each request, by what is beside it and by kind."""


def main(
    solo_ms: Annotated[float, typer.Option(help="what the model takes alone")] = 8.0,
    repeats: Annotated[int, typer.Option(help="measurements of each")] = 5,
    seconds: Annotated[float, typer.Option(help="length of one")] = 3.0,
) -> None:
    """Compare the latency of one request at a time beside no such process, one on a core, and one for each core."""
    busy: dict[str, list[int]] = {
        "nothing": [],
        "one on the first core": cores()[:1],
        f"{len(cores())} on any": [-1] * len(cores()),
    }
    taken: Taken = {name: {OURS: [], STOCK: []} for name in busy}
    with (
        one_sentence_errors("foreign-processes", kept="nothing was measured to its end"),
        temporary_server(partial(_write, solo_ms)) as server,
        closing(triton_grpc.InferenceServerClient(server.grpc_url)) as client,
    ):
        for i in range(repeats):
            for name, on_cores in busy.items():
                for kind in (OURS, STOCK)[:: 1 if i % 2 == 0 else -1]:
                    with _foreign_processes(client, on_cores):
                        taken[name][kind] += _measure(client, name_of(kind, solo_ms), seconds)
    _show(taken, f"{cpu_name()}, {len(cores())} cores; {solo_ms:g} ms alone; {repeats} times {seconds:g} s of each")


def _write(solo_ms: float, repository: Path) -> None:
    write_kinds((OURS, STOCK), [solo_ms], configure, repository)
    write_foreign_process_model(repository)


@contextmanager
def _foreign_processes(client: Any, on_cores: Sequence[int]) -> Iterator[None]:
    run_foreign_processes(client, on_cores)
    try:
        time.sleep(_SETTLES_S)
        yield
    finally:
        run_foreign_processes(client, [])


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
    table = Table("busy", *(f"{figure} {kind} ms" for figure in ("p50", "max") for kind in (OURS, STOCK)), "ratios")
    for name, kinds in taken.items():
        p50 = {kind: statistics.median(ms) for kind, ms in kinds.items()}
        most = {kind: max(ms) for kind, ms in kinds.items()}
        ratios = f"{p50[OURS] / p50[STOCK]:.2f}, {most[OURS] / most[STOCK]:.2f}"
        figures = (p50[OURS], p50[STOCK], most[OURS], most[STOCK])
        table.add_row(name, *(f"{ms:.1f}" for ms in figures), ratios)
    out.print(table)
    out.print(conditions)


if __name__ == "__main__":
    typer.run(main)
