"""Everything that is missing: the parts in virtual time, which processes share, then the server's turns one by one."""

from __future__ import annotations

from collections.abc import Iterator

from backend.progress_bar import StageBar
from benchmarks.gpu_emulated.records import GpuRecords
from benchmarks.gpu_emulated.served import turns
from benchmarks.harness.parts import PartCollector
from benchmarks.harness.steps import Step


class GpuCollector:
    """See `Collector`. workers: processes that share the parts in virtual time; each step ends its own."""

    def __init__(self, records: GpuRecords, workers: int | None, bar: StageBar) -> None:
        self._records, self._bar, self._virtual = records, bar, PartCollector(records, workers)

    def prepare(self) -> None:
        """Nothing is to be set up."""

    def steps(self) -> Iterator[Step]:
        """Steps of the parts, then of the turns."""
        yield from self._virtual.steps()
        yield from turns.steps(self._records, self._bar)
