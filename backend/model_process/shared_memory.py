"""Puts answers into the memory that Triton's process shares with a model's, where they fit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from backend.errors import AnswerError
from backend.tensors import Array

_FOLDER = "/dev/shm"
_PLENTY_TIMES, _PLENTY_BYTES = 16, 8 << 20
_SMALL_BYTES = 1 << 20
"""Up to this much, what was free a moment ago tells enough: plenty is far more than goes until the next look."""
_NOBODY = "isochrone/nobody"
"""No model has such a name: a name is a folder's."""


class _Seen:
    """What was free when somebody looked last."""

    free = 0


_seen = _Seen()


def lay_down(tensors: Sequence[Any], arrays: Sequence[Array]) -> None:
    """Let the tensors have their shared memory now, and not only as they are sent. Raises AnswerError if they cannot.

    Triton does so for the inputs of a request from model to model, so it is sent one that goes nowhere; what is laid
    down stays with the tensors. That takes some 0.15 ms, and is left out where there is plenty of room.
    """
    size = sum(map(_size, arrays))
    plenty = _PLENTY_TIMES * size + _PLENTY_BYTES
    if size <= _SMALL_BYTES and _seen.free >= plenty:
        return
    if (free := look()) >= plenty:
        return
    request = pb_utils.InferenceRequest(model_name=_NOBODY, requested_output_names=[], inputs=list(tensors))
    said = request.exec().error().message()
    if _NOBODY not in said:  # else it came to Triton, tensors and all, which knows no such model
        raise AnswerError(
            f"its answer of {size / 1e6:.1f} MB does not fit the shared memory that Triton takes it from: "
            f"{free / 1e6:.1f} MB of {_FOLDER} are free; give the container more, as with `docker run --shm-size=2g`"
        )


def look() -> int:
    """See how many bytes are free, and remember it for small answers; to be done now and then."""
    folder = os.statvfs(_FOLDER)
    _seen.free = folder.f_bavail * folder.f_frsize
    return _seen.free


def _size(array: Array) -> int:
    """Bytes that it takes on its way. Each text has its length before it."""
    if not array.dtype.hasobject:
        return array.nbytes
    return sum(4 + len(item.encode() if isinstance(item, str) else item) for item in array.ravel().tolist())
