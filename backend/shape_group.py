"""Which requests may share a batch, and are alike in what they take: those of one shape."""

from __future__ import annotations

from collections.abc import Mapping

from backend.engines.protocol import Array


def shape_group(inputs: Mapping[str, Array], *, batching: bool) -> int:
    """Equal for inputs of equal names and shapes, but for the rows where the model batches. Holds in this process."""
    lead = 1 if batching else 0
    return hash(tuple(sorted((name, array.shape[lead:]) for name, array in inputs.items()))) >> 2
