"""Batches of zeros that a GPU's lane runs as it is loaded, so that no request pays for a first run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from backend.tensors import Array, TensorSpec
from profiler.brief import batch_sizes

READY_SIZES_MAX = 32
"""Each batch size costs load time, and its CUDA graph memory, on every lane."""


def ready_batches(inputs: Sequence[TensorSpec], max_batch_size: int) -> Iterator[dict[str, list[Array]]]:
    """A batch of each size, ascending; none where the batch size does not decide all shapes of `inputs`."""
    required = [spec for spec in inputs if not spec.optional]
    for size in ready_sizes(max_batch_size):
        shapes = [(size, *spec.shape[1:]) if size and spec.shape else spec.shape for spec in required]
        if any(-1 in shape for shape in shapes):
            return
        yield {spec.name: [np.zeros(shape, spec.datatype.numpy)] for spec, shape in zip(required, shapes, strict=True)}


def ready_sizes(max_batch_size: int) -> list[int]:
    """All sizes where they are few, else powers of two and the largest. 0: the model does not batch."""
    if max_batch_size <= READY_SIZES_MAX:
        return list(range(1, max_batch_size + 1)) or [0]
    return batch_sizes(max_batch_size)
