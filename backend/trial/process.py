"""Tries a model file on synthetic inputs, in a process of its own: `python -m backend.trial.process QUESTION [batch]`.

A model that crashes, takes all memory or never ends on inputs that nobody sent does so here, and not where it serves.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from backend import numerical_threads  # noqa: F401 - before whatever else imports numpy
from backend.config.model_config import may_have_rows
from backend.errors import IsochroneError
from backend.tensors import TensorSpec
from backend.trial.batching import ROWS_MAX, RefutedError, UncheckedError, check_batching
from backend.trial.intermediate_tensors import Look, check_intermediate_tensors
from backend.trial.messages import Question, SyntheticInputs, Trial
from backend.trial.operators import explanation
from backend.trial.search import ExpiredError, Search
from backend.trial.session import Opened, opened
from profiler.child import end_with_parent

BUDGET_S = 10.0
"""CPU time for all that is tried."""
PATIENCE_S = 30.0
"""Time by the clock for all that is tried, where others hold the cores: what is found by then is the result."""
WALL_S = 60.0
"""Time by the clock for the process: what takes longer to open, or hangs in a run, has no result."""
_NICENESS = 5
_MORE_ROUNDS_S = 0.25
"""Further rounds over other rows while all of them together take less: they find what depends on the values."""
_ROUNDS_MAX = 8
_MEMORY_MIN_BYTES = 2 << 30


class Clock:
    """Budget of CPU time, and of time by the clock."""

    def __init__(self, budget_s: float = BUDGET_S, patience_s: float = PATIENCE_S) -> None:
        self._cpu_end_s, self._end_s = time.process_time() + budget_s, time.monotonic() + patience_s

    def check(self) -> None:
        """Raise ExpiredError where either is spent."""
        if time.process_time() > self._cpu_end_s or time.monotonic() > self._end_s:
            raise ExpiredError


def answer(question: Question, *, batch: bool) -> Trial:
    """Open the file and try it. Raises IsochroneError where it cannot be opened."""
    with opened(question) as model:
        return try_model(question, model, Clock(), batch=batch)


def try_model(question: Question, model: Opened, clock: Clock, *, batch: bool) -> Trial:
    """Try an open model."""
    search = Search(model.run, model.inputs, question.dims, question.samples, clock.check)
    as_batch: SyntheticInputs | None = None
    verdict = _Verdict(None)
    try:
        if may_have_rows(model.inputs):
            as_batch = search.find(batch=True)
        if batch:
            verdict = _verdict(question, model, search, clock, as_batch)
        as_is = None if verdict.batches else search.find(batch=False)
    except ExpiredError:
        why = verdict.why or f"it could not be tried within {BUDGET_S:g} s of CPU time and {PATIENCE_S:g} s in all"
        return Trial(as_batch, None, batch, verdict.batches, why, verdict.splits, lasting=False)
    why = verdict.why
    if as_batch is None and as_is is None:
        why = f"it does not run on synthetic inputs ({search.error})"
    return Trial(as_batch, as_is, batch, verdict.batches, why, verdict.splits)


class _Verdict(NamedTuple):
    """Fields of `Trial` on batching."""

    batches: bool | None
    why: str = ""
    splits: bool = True


def _verdict(
    question: Question, model: Opened, search: Search, clock: Clock, synthetic: SyntheticInputs | None
) -> _Verdict:
    """Try whether batching changes no answer, and name the reason if it does."""
    if synthetic is None:
        return _Verdict(None, f"it does not run on synthetic inputs ({search.error})")
    rows_max = min(question.rows_max, ROWS_MAX)
    try:
        _rounds(model, synthetic, rows_max, clock)
        if (other := search.other_lengths(synthetic, batch=True)) is not None:
            check_batching(model.run, model.inputs, model.outputs, other, rows_max, check_time=clock.check)
        if model.look is not None:
            _check_intermediate_tensors(model.look, model.inputs, synthetic)
    except RefutedError as refuted:
        why = f"{refuted}{explanation(Path(question.file), random=refuted.random)}"
        return _Verdict(False, why, refuted.splits)
    except UncheckedError as unchecked:
        return _Verdict(None, str(unchecked))
    return _Verdict(True)


def _check_intermediate_tensors(look: Look, specs: Sequence[TensorSpec], synthetic: SyntheticInputs) -> None:
    begin_s = time.process_time()
    check_intermediate_tensors(look, specs, synthetic)
    if time.process_time() - begin_s < _MORE_ROUNDS_S:
        check_intermediate_tensors(look, specs, synthetic, seed=1)


def _rounds(model: Opened, synthetic: SyntheticInputs, rows_max: int, clock: Clock) -> None:
    begin_s = time.process_time()
    for seed in range(_ROUNDS_MAX):
        check_batching(model.run, model.inputs, model.outputs, synthetic, rows_max, seed=seed, check_time=clock.check)
        spent_s = time.process_time() - begin_s
        if spent_s / (seed + 1) * (seed + 2) > _MORE_ROUNDS_S:
            return


def _limit_resources() -> None:
    end_with_parent()
    signal.alarm(round(WALL_S) + 5)  # should the parent have been gone by the line above
    with suppress(OSError):
        os.nice(_NICENESS)
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = max(_MEMORY_MIN_BYTES, available // 2)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(arguments: list[str]) -> int:
    """Print the trial as one line of JSON; an error is one sentence in the last line of stderr."""
    _limit_resources()
    try:
        found = answer(msgspec.json.decode(arguments[0], type=Question), batch="batch" in arguments[1:])
    except IsochroneError as error:
        print(error, file=sys.stderr)
        return 1
    print(msgspec.json.encode(found).decode(), flush=True)
    os._exit(0)  # without freeing a large model, which takes time


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
