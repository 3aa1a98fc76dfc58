"""Whatever a graph does: the answers of a batch are those of its requests alone, or the model is not batched."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from backend.engines.protocol import DEFAULT_ONNX_OPTIONS
from backend.errors import EngineError
from backend.trial.messages import Question
from backend.trial.process import Clock, try_model
from backend.trial.search import Run
from backend.trial.session import opened
from tests.properties.graphs import random_graph, random_requests

GRAPHS, BLOCKS = 300, 10
TOLERANCE = 2e-3
"""Of the largest value of an answer; see `backend.trial.batching.ALONE_TOLERANCE`."""


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_batch_answers_as_its_requests_alone_or_there_is_none(block: int, tmp_path: Path) -> None:
    counts: Counter[bool | None] = Counter()
    file = tmp_path / "model.onnx"
    for seed in range(block * GRAPHS // BLOCKS, (block + 1) * GRAPHS // BLOCKS):
        random = np.random.default_rng(seed)
        file.write_bytes(random_graph(random).SerializeToString())
        question = Question("", str(file), "onnxruntime", "", None, DEFAULT_ONNX_OPTIONS, {}, (), 8)
        with opened(question) as model:
            trial = try_model(question, model, Clock(), batch=True)
            counts[trial.batches] += 1
            for _ in range(4 if trial.batches else 0):
                check_requests(model.run, model.inputs[0].shape[1:], random)
    assert min(counts[True], counts[False]) >= 3, counts


def check_requests(run: Run, dims: tuple[int, ...], random: np.random.Generator) -> None:
    """Some requests of one shape in one batch, and each by itself. dims: of a row, -1 where dynamic."""
    shape = tuple(int(random.integers(1, 7)) if d == -1 else d for d in dims)
    requests = random_requests(random, shape)
    try:
        alone = [run({"x": request})[0] for request in requests]
    except EngineError:
        return  # a request that the model does not take
    (batch,) = run({"x": np.concatenate(requests)})
    assert batch.shape[0] == sum(len(request) for request in requests)
    start = 0
    for request, answer in zip(requests, alone, strict=True):
        part, start = batch[start : start + len(request)], start + len(request)
        assert part.shape == answer.shape
        largest = float(np.max(np.abs(answer.astype(np.float64)), initial=0))
        assert np.allclose(part.astype(np.float64), answer.astype(np.float64), rtol=0, atol=TOLERANCE * largest)
