"""Parts of a benchmark in virtual time: the tasks of each draw, which processes share; a draw of a part is a record."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, Protocol

from backend.linux.cpu_topology import cores
from benchmarks.harness.steps import Step

_DRAWS_MAX = 4
"""Draws of a step: many enough for the processes to end at about the same time, few enough to be lost with it."""
Task = Callable[[], Any]


@dataclass(frozen=True)
class Part:
    """draws: that take part; cpu_s: of one of them, about. tasks: of a draw."""

    name: str
    draws: int
    cpu_s: float
    tasks: Callable[[int], list[Task]]


def record_file(part: str, draw: int) -> str:
    """Name of a record in the folder."""
    return f"{part}/{draw}.json"


class PartRecords(Protocol):
    """Records by part and draw."""

    @property
    def parts(self) -> Sequence[Part]: ...

    def has(self, name: str) -> bool: ...

    def keep(self, name: str, record: object) -> None: ...


class PartCollector:
    """Steps of whatever is missing. workers: processes; 1: this one."""

    def __init__(self, records: PartRecords, workers: int | None = None, draws_max: int = _DRAWS_MAX) -> None:
        self._records, self._workers = records, len(cores()) if workers is None else workers
        self._draws_max = draws_max

    def prepare(self) -> None:
        """Nothing is to be set up."""

    def steps(self) -> Iterator[Step]:
        """All draws that are missing, a few in a step."""
        for part in self._records.parts:
            missing = [draw for draw in range(part.draws) if not self._records.has(record_file(part.name, draw))]
            for i in range(0, len(missing), self._draws_max):
                draws = missing[i : i + self._draws_max]
                name = f"{part.name}, draws {draws[0]} to {draws[-1]}"
                yield Step(name, len(draws) * part.cpu_s / self._workers, partial(self._take, part, draws))

    def _take(self, part: Part, draws: Sequence[int]) -> None:
        by_draw = {draw: part.tasks(draw) for draw in draws}
        found = iter(self._run([task for tasks in by_draw.values() for task in tasks]))
        for draw, tasks in by_draw.items():
            self._records.keep(record_file(part.name, draw), [next(found) for _ in tasks])

    def _run(self, tasks: Sequence[Task]) -> list[Any]:
        if self._workers == 1:
            return [task() for task in tasks]
        with ProcessPoolExecutor(self._workers, get_context("forkserver"), _leave_interrupts) as pool:
            try:
                return list(pool.map(_call, tasks))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _leave_interrupts() -> None:
    """Let Ctrl-C end the command, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _call(task: Task) -> Any:
    return task()
