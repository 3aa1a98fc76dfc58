"""Check that batching changes no answer of a model: batches of several rows against the same rows one by one.

Two comparisons. A row in a batch and the same row solo may differ by rounding, as kernels depend on the batch size. A
row and itself at the same place of a batch of the same size, with other rows in it, may hardly differ at all: any
difference comes from those rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from backend.errors import EngineError
from backend.tensors import Array, TensorSpec
from backend.trial.messages import SyntheticInputs
from backend.trial.search import Run
from backend.trial.synthetic_inputs import KINDS, Kind, arrays

SOLO_TOLERANCE: Mapping[int, float] = {2: 1e-2, 4: 1e-3, 8: 1e-6}
"""Largest difference of a value in a batch from the one solo, as a share of the row's largest; by bytes of a float."""
CO_BATCHED_TOLERANCE: Mapping[int, float] = {2: 1e-3, 4: 1e-6, 8: 1e-12}
"""The same for a row between two batches that differ in its co-batched rows."""
ODD_SHARE = 1e-3
"""Share of a row's values that may differ more: one that is rounded, or the first of two equals, falls either way."""
_BATCHES = ((0, 1), (1, 0, 2), (3, 0, 2), (3, 1, 3, 0))
"""Rows of each batch. Row 0 is the middle one of both batches of three, with other rows."""
ROWS_MAX = 4
_Row = Mapping[str, Array]
_Answers = list[Array]


class RefutedError(Exception):
    """Batching changes an answer; its text is a clause that says which.

    random: it changes from run to run anyway. splits: whether outputs still have a row for each row of the batch.
    """

    random = False
    splits = True


class RandomAnswerError(RefutedError):
    """Answers to one request differ from run to run, so nothing can be compared."""

    random = True


class ShapeRefutedError(RefutedError):
    """Outputs of a batch cannot be told apart by rows."""

    splits = False


class UncheckedError(Exception):
    """Synthetic inputs cannot check this model; the text is a clause that says why."""


def check_batching(
    run: Run,
    specs: Sequence[TensorSpec],
    outputs: Sequence[str],
    synthetic: SyntheticInputs,
    rows_max: int,
    *,
    seed: int = 0,
    check_time: Callable[[], None] = lambda: None,
) -> None:
    """Check one round over rows drawn by `seed`. outputs: names in the order of `run`'s answers.

    Raises RefutedError or UncheckedError.
    """
    kinds: Sequence[Kind] = ["wide"] * len(KINDS) if seed % 2 else KINDS
    rows = [arrays(specs, synthetic, 1, seed * len(KINDS) + i, kind) for i, kind in enumerate(kinds)]
    _check_variety(rows)
    alone = [_answers_alone(run, row, check_time) for row in rows]
    if seed == 0 and not _same(_answers_alone(run, rows[0], check_time), alone[0]):
        raise RandomAnswerError("its answer to one request differs from run to run")
    middles: list[_Answers] = []
    for batch in _BATCHES:
        if len(batch) > rows_max:
            continue
        check_time()
        answers = _answers_of(run, [rows[i] for i in batch])
        for name, of_batch, of_rows in zip(outputs, answers, zip(*(alone[i] for i in batch), strict=True), strict=True):
            _compare(name, of_batch, of_rows)
        if len(batch) == 3:
            middles.append([answer[1] for answer in answers])
    for beside_some, beside_others in pairwise(middles):
        for name, one, other in zip(outputs, beside_some, beside_others, strict=True):
            if not close(one, other, CO_BATCHED_TOLERANCE, 0.0):
                raise RefutedError(f"output '{name}' of a row depends on the rows beside it")


def _check_variety(rows: Sequence[_Row]) -> None:
    for name, first in rows[0].items():
        if first.size and all(np.array_equal(row[name], first) for row in rows[1:]):
            raise UncheckedError(f"it runs with one value of input '{name}' only, so that nothing tells its rows apart")


def _answers_alone(run: Run, row: _Row, check_time: Callable[[], None]) -> _Answers:
    check_time()
    try:
        return run(row)
    except EngineError as error:
        raise UncheckedError(f"not all synthetic rows run ({error})") from None


def _answers_of(run: Run, rows: Sequence[_Row]) -> _Answers:
    try:
        return run(in_batch(rows))
    except EngineError as error:
        raise RefutedError(f"a batch of {len(rows)} rows does not run ({error})") from None


def in_batch(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Join rows to one batch."""
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _compare(name: str, of_batch: Array, of_rows: Sequence[Array]) -> None:
    count = len(of_rows)
    if of_batch.ndim == 0 or of_batch.shape[0] != count:
        raise ShapeRefutedError(f"output '{name}' has shape {list(of_batch.shape)} for a batch of {count} rows")
    for i, row in enumerate(of_rows):
        if row.ndim == 0 or row.shape[0] != 1 or row.shape[1:] != of_batch.shape[1:]:
            raise ShapeRefutedError(
                f"output '{name}' has shape {list(row.shape)} for a row, {list(of_batch.shape)} for a batch of {count}"
            )
        if not close(of_batch[i], row[0], SOLO_TOLERANCE, ODD_SHARE):
            raise RefutedError(f"output '{name}' of a row is not in a batch of {count} rows what it is alone")


def _same(one: _Answers, other: _Answers) -> bool:
    return all(a.shape == b.shape and close(a, b, CO_BATCHED_TOLERANCE, 0.0) for a, b in zip(one, other, strict=True))


def close(one: Array, other: Array, tolerance: Mapping[int, float], odd_share: float) -> bool:
    """True where all values but `odd_share` of them are equal within the tolerance; infinities and NaN are equal."""
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "fc":
        wrong = np.asarray(one != other)
    else:
        a, b = one.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(a) & np.isfinite(b)
        largest = float(np.max(np.abs(a), initial=0.0, where=finite))
        with np.errstate(invalid="ignore"):
            wrong = np.where(
                finite,
                np.abs(a - b) > tolerance[one.dtype.itemsize] * largest,
                (a != b) & ~(np.isnan(a) & np.isnan(b)),
            )
    return int(np.count_nonzero(wrong)) <= odd_share * wrong.size
