"""Peaks of one core of this machine, measured once per machine and kept in a file.

One thread, by operators of the library that serves (ONNX Runtime) and by memory copies. The measuring runs in a
child process: it needs the onnx library and 256 MB for a moment.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from profiler.child import answer_of
from profiler.host import cpu_name, last_level_cache, package_version
from profiler.lock import exclusive
from profiler.store import read_json, write_json

Array = NDArray[np.float32]

SCHEMA = 1
BUDGET_S = 0.5
_LOCK_WAIT_S = 30.0
_TIMEOUT_S = 30.5

_MATRIX = 256  # three such matrices of float32 are 0.8 MB: inside the second-level cache of a server core
_CHANNELS, _IMAGE, _WINDOW = 128, 28, 3  # of the convolution; 1.4 MB
_CACHE_COPY_BYTES = 256 << 10  # per buffer; two fit every second-level cache of 512 kB and more
_DRAM_COPY_BYTES_MAX = 128 << 20  # per buffer
_COPIES_PER_SAMPLE = 8  # of the small buffer, so that the clock's own cost does not count


class PeaksError(RuntimeError):
    """Nothing can be said of this device's peaks; its text is one sentence."""


class Peaks(msgspec.Struct, frozen=True):
    """Peaks of one core while the others rest, or of a GPU. A copy of n bytes moves 2 n: n are read and n written.

    estimated: from the device's attributes, not measured.
    """

    operations_per_s: float
    cache_bytes_per_s: float
    dram_bytes_per_s: float
    cache_share_bytes: int
    """Last-level cache divided by the logical CPUs that share it; a GPU's second-level cache."""
    estimated: bool = False

    def __post_init__(self) -> None:
        if min(self.operations_per_s, self.cache_bytes_per_s, self.dram_bytes_per_s) <= 0:
            raise ValueError(f"peaks must be positive, got {self}")


class PeaksFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file `peaks.json`; it holds for this processor and these libraries only."""

    schema: int
    device: str
    onnxruntime: str
    numpy: str
    peaks: Peaks


def load_or_measure(directory: Path, measure: Callable[[], Peaks] | None = None) -> Peaks:
    """The peaks in `directory/peaks.json`, measured first where it is missing, broken or of another machine.

    Processes that start together measure once. A file that cannot be written costs only the next measuring.
    Raises `ChildError`.
    """
    path = directory / "peaks.json"
    if (known := known_peaks(directory)) is not None:
        return known
    with exclusive(directory / "peaks.lock", _LOCK_WAIT_S):
        if (known := _read(path)) is not None:  # another process measured while this one waited
            return known
        peaks = (measure or measure_in_child)()
        with suppress(OSError):
            write_json(path, _file_of(peaks))
        return peaks


def known_peaks(directory: Path) -> Peaks | None:
    """The peaks in `directory/peaks.json`; None where it is missing, broken or of another machine."""
    return _read(directory / "peaks.json")


def measure_in_child() -> Peaks:
    """`measure_peaks` in a child on the same cores. Raises `ChildError`."""
    return answer_of("profiler.peaks", [str(BUDGET_S)], Peaks, timeout_s=_TIMEOUT_S)


def measure_peaks(budget_s: float = BUDGET_S) -> Peaks:
    """Measures for about `budget_s`, besides some tenths of a second of preparation."""
    cache_bytes, sharers = last_level_cache()
    part_s = budget_s / 4
    small_s = _fastest(_copies(_CACHE_COPY_BYTES, _COPIES_PER_SAMPLE), part_s)
    large_bytes = min(2 * cache_bytes, _DRAM_COPY_BYTES_MAX)  # both buffers: four times the cache where it is small
    large_s = _fastest(_copies(large_bytes, 1), part_s)
    return Peaks(
        operations_per_s=max(  # which of the two is faster differs between processors
            2 * _MATRIX**3 / _fastest(_matrix_product(), part_s),
            2 * (_CHANNELS * _IMAGE * _WINDOW) ** 2 / _fastest(_convolution(), part_s),
        ),
        cache_bytes_per_s=2 * _CACHE_COPY_BYTES * _COPIES_PER_SAMPLE / small_s,
        dram_bytes_per_s=2 * large_bytes / large_s,
        cache_share_bytes=cache_bytes // sharers,
    )


def _fastest(work: Callable[[], None], budget_s: float) -> float:
    """Seconds of the fastest of the runs that `budget_s` allows, at least two after one that warms up."""
    work()
    fastest_s = float("inf")
    runs, end_s = 0, time.perf_counter() + budget_s
    while runs < 2 or time.perf_counter() < end_s:
        start_s = time.perf_counter()
        work()
        fastest_s = min(fastest_s, time.perf_counter() - start_s)
        runs += 1
    return fastest_s


def _matrix_product() -> Callable[[], None]:
    square = np.ones((_MATRIX, _MATRIX), np.float32)
    return _operator("MatMul", square, square, square.shape)


def _convolution() -> Callable[[], None]:
    image = np.ones((1, _CHANNELS, _IMAGE, _IMAGE), np.float32)
    kernel = np.ones((_CHANNELS, _CHANNELS, _WINDOW, _WINDOW), np.float32)
    return _operator("Conv", image, kernel, image.shape, pads=[_WINDOW // 2] * 4)


def _operator(kind: str, value: Array, weight: Array, result: tuple[int, ...], **attributes: Any) -> Callable[[], None]:
    """One operator as a model of its own, on one thread."""
    # Not at the top: a process that serves imports this module, and need not hold onnx.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else it reports to its vendor from its import on
    import onnxruntime  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"], **attributes)],
        "peak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, value.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, result)],
        [numpy_helper.from_array(weight, "w")],  # constant, so that it is packed beforehand as weights are
    )
    # The oldest versions that will do: a runtime older than the onnx library still reads them.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, {"x": value})


def _copies(size_bytes: int, count: int) -> Callable[[], None]:
    source = np.ones(size_bytes, np.uint8)
    target = np.zeros(size_bytes, np.uint8)

    def copy() -> None:
        for _ in range(count):
            np.copyto(target, source)

    return copy


def _read(path: Path) -> Peaks | None:
    found = read_json(path, PeaksFile)
    return found.peaks if found is not None and found == _file_of(found.peaks) else None


def _file_of(peaks: Peaks) -> PeaksFile:
    return PeaksFile(SCHEMA, cpu_name(), package_version("onnxruntime"), np.__version__, peaks)


def main(arguments: list[str]) -> None:
    """`python -m profiler.peaks SECONDS` prints the peaks as one line of JSON."""
    print(msgspec.json.encode(measure_peaks(float(arguments[0]))).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
