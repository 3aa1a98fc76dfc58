"""Whole nanoseconds split by weights, so that the parts add up to the last one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def split_exactly(whole_ns: int, weights: Mapping[K, float]) -> dict[K, int]:
    """Split in proportion to weights of 0 or more; what rounding leaves goes to the largest part.

    Empty where no weight is above 0.

    >>> split_exactly(10, {"a": 1.0, "b": 2.0})
    {'a': 3, 'b': 7}
    """
    total = sum(weights.values())
    if total <= 0.0:
        return {}
    parts = {key: round(whole_ns * (weight / total)) for key, weight in weights.items() if weight > 0.0}
    largest = max(parts, key=lambda key: weights[key])
    parts[largest] += whole_ns - sum(parts.values())
    return parts
