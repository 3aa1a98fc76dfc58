"""The work of one run of a model: operations and bytes, counted by `profiler.graph` in a child process.

Counting needs the onnx library, which with a model of hundreds of megabytes would stay in a serving process's memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from profiler.child import Attend, answer_of

_COUNTER = "profiler.graph"
_TIMEOUT_S = 60.0


class GraphWork(msgspec.Struct, frozen=True):
    """One run at one batch size.

    `operations`: 2 per multiply-add, 1 per output element of everything else. `bytes_moved`: weights once, every
    activation written once and read once; an engine that fuses layers moves less.
    """

    operations: int
    bytes_moved: int
    weight_bytes: int
    complete: bool = True
    """False where something could not be counted; the numbers are then lower bounds."""
    kernels: int = 0
    """Estimated number of kernels that a GPU's engine launches; 0 where there is none."""


def work_in_child(path: Path, batch_sizes: Iterable[int], attend: Attend | None = None) -> dict[int, GraphWork]:
    """Counts the ONNX graph in `path` in a child process, by batch size. Raises `ChildError`."""
    arguments = [str(path.absolute()), *map(str, batch_sizes)]
    return answer_of(_COUNTER, arguments, dict[int, GraphWork], timeout_s=_TIMEOUT_S, attend=attend)
