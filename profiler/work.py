"""The work of one run of a model: operations and bytes. Counting is in `graph`, which needs the onnx library;
a process that serves asks a child for it, since onnx and a model of hundreds of megabytes would stay in its memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from profiler.child import ChildError, run_module

_TIMEOUT_S = 60.0


class Work(msgspec.Struct, frozen=True):
    """One run at one batch size.

    `operations`: 2 per multiply-add, 1 per output element of everything else. `bytes_moved`: weights once, every
    activation written once and read once; an engine that fuses layers moves less.
    """

    operations: int
    bytes_moved: int
    weight_bytes: int
    complete: bool = True
    """False where something could not be counted; the numbers are then lower bounds."""


def graph_work(path: Path, batch_size: int) -> Work:
    """Count the ONNX graph in `path`, in this process."""
    from profiler.graph import count_work, load_graph  # noqa: PLC0415 - keeps onnx out of a serving process

    return count_work(load_graph(path), batch_size)


def work_in_child(path: Path, batch_sizes: Iterable[int], python: str = sys.executable) -> dict[int, Work]:
    """Count the ONNX graph in `path` in a child process. Raises `ChildError`."""
    arguments = [str(path.absolute()), *map(str, batch_sizes)]
    answer = run_module("profiler.work", arguments, timeout_s=_TIMEOUT_S, python=python)
    try:
        return msgspec.json.decode(answer, type=dict[int, Work])
    except msgspec.DecodeError as error:
        raise ChildError(f"profiler.work gave an answer that cannot be read: {error}") from None


def main(arguments: list[str]) -> None:
    """`python -m profiler.work PATH SIZE…` prints the work per batch size as one line of JSON."""
    from profiler.graph import count_work, load_graph  # noqa: PLC0415 - as above

    graph = load_graph(Path(arguments[0]))
    work = {int(size): count_work(graph, int(size)) for size in arguments[1:]}
    print(msgspec.json.encode(work).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
