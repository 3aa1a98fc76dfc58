"""The parts of one input, a request's rows each, and the one tensor that they make along the first dimension."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.tensors import Array


def joined(parts: Sequence[Array]) -> Array:
    """One array of an input's parts; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def joined_shape(parts: Sequence[Array]) -> tuple[int, ...]:
    """Shape of `joined`."""
    first = parts[0].shape
    return first if len(parts) == 1 else (sum(part.shape[0] for part in parts), *first[1:])


def join_into(place: Array, parts: Sequence[Array]) -> None:
    """`joined` written to `place`, which has its dtype and shape: each part is copied once."""
    if len(parts) == 1:
        np.copyto(place, parts[0])
    else:
        np.concatenate(parts, out=place)
