"""Stands for NVIDIA's `ncu` where there is none: takes the options that we use, writes what it would, and starts our
program, on a fake GPU, of whose kernels it sees those between CUDA's marks. `python -m tests.fakes.fake_ncu OPTIONS …`.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import pytest
from cuda.bindings import runtime

from backend.engines.protocol import EngineOptions
from backend.engines.tensorrt.engine import TensorRtEngine
from backend.tensors import Array
from tests.fakes.double import double_plan
from tests.fakes.driver import OK
from tests.fakes.fake_gpu import RUN_NS, FakeDevice

REFUSES = "FAKE_NCU_REFUSES"
"""In the environment: there is no permission to read counters."""
_REFUSAL = (
    "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters on the "
    "target device 0. For instructions on enabling permissions and to get more information see "
    "https://developer.nvidia.com/ERR_NVGPUCTRPERM"
)
_LAUNCH = {
    "Process ID": "4711",
    "Process Name": "python3.11",
    "Host Name": "127.0.0.1",
    "Kernel Name": "void double<float, (int)4>(const T1 *, T1 *)",
    "Context": "1",
    "Stream": "13",
    "Block Size": "(128, 1, 1)",
    "Grid Size": "(1, 1, 1)",
    "Device": "0",
    "CC": "8.0",
}


def install(folder: Path, *, refuses: bool = False) -> Path:
    """The executable `ncu` in a folder, to be put first on PATH."""
    folder.mkdir(exist_ok=True)
    ncu = folder / "ncu"
    ncu.write_text(
        f'#!/bin/sh\n{REFUSES}={"1" if refuses else ""} exec {sys.executable} -m tests.fakes.fake_ncu "$@"\n'
    )
    ncu.chmod(0o755)
    return folder


def percent(metric: str, rows: int) -> float:
    """What the made-up counter says of a batch."""
    return {"sm": 8.0, "lts": 4.0, "dram": 2.0}[metric.partition("__")[0]] * rows


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ncu")
    parser.add_argument("--csv", action="store_true", required=True)
    parser.add_argument("--page", choices=["raw"], required=True)
    parser.add_argument("--print-units", choices=["base"], required=True)
    parser.add_argument("--metrics", required=True)
    parser.add_argument("--profile-from-start", choices=["off"], required=True)
    parser.add_argument("--target-processes", choices=["all", "application-only"], required=True)
    parser.add_argument("--clock-control", choices=["none"], required=True)
    parser.add_argument("--log-file", type=Path, required=True)
    parser.add_argument("application", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    _, minus_m, module, *rest = options.application
    assert minus_m == "-m"
    batches: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        status = _run(module, rest, batches, patch)
    refused = bool(os.environ.get(REFUSES))
    with options.log_file.open("w", newline="") as log:
        log.write("==PROF== Connected to process 4711 (/usr/bin/python3.11)\n")
        log.writelines([_REFUSAL + "\n"] if refused else _progress(batches))
        log.write("==PROF== Disconnected from process 4711\n")
        if status:
            log.write(f"==ERROR== The application returned an error code ({status}).\n")
        if batches and not refused:
            _write(log, sorted(options.metrics.split(",")), batches)
        elif not refused:
            log.write("==WARNING== No kernels were profiled.\n")
    return status


def _run(module: str, arguments: list[str], batches: list[int], patch: pytest.MonkeyPatch) -> int:
    """Our program in this process; adds the rows of each batch whose kernel runs between the marks."""
    device = FakeDevice()
    plan, marked = double_plan(device), [False]
    compute = plan.compute

    def seen(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if marked[0]:
            batches.append(inputs["x"].shape[0])
        return compute(inputs)

    def mark(on: bool) -> tuple[object]:
        marked[0] = on
        return (OK,)

    plan.compute = seen
    patch.setattr(runtime, "cudaSetDevice", lambda _: (OK,))
    patch.setattr(runtime, "cudaProfilerStart", lambda: mark(True))
    patch.setattr(runtime, "cudaProfilerStop", lambda: mark(False))
    program = importlib.import_module(module)

    def load_engine(file: Path, options: EngineOptions) -> TensorRtEngine:
        return TensorRtEngine(plan, device, file, options)

    patch.setattr(program, "load_engine", load_engine)
    status: int = program.main(arguments)
    return status


def _progress(batches: list[int]) -> list[str]:
    return [f'==PROF== Profiling "double" - {i}: 0%....50%....100% - 9 passes\n' for i in range(len(batches))]


def _write(log: TextIO, metrics: list[str], batches: list[int]) -> None:
    units = {metric: "ns" if metric.startswith("gpu__time") else "%" for metric in metrics}
    writer = csv.writer(log, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["ID", *_LAUNCH, *metrics])
    writer.writerow(["", *("" for _ in _LAUNCH), *units.values()])
    for i, rows in enumerate(batches):
        values = (f"{RUN_NS:,}" if unit == "ns" else f"{percent(metric, rows):.2f}" for metric, unit in units.items())
        writer.writerow([str(i), *_LAUNCH.values(), *values])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
