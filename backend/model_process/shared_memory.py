"""Room for answers in the memory that Triton's process shares with a model's."""

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
"""Size up to which the last measurement of free memory will do: it is far more than is used until the next one."""
_NO_MODEL = "isochrone/nobody"
"""No model has such a name: a name is a folder's."""


class _Measured:
    """Bytes that were free at the last measurement."""

    free = 0


_measured = _Measured()


def place(tensors: Sequence[Any], arrays: Sequence[Array]) -> None:
    """Give the tensors their shared memory now, and not only as they are sent. Raises AnswerError if they do not fit.

    Triton does so for the inputs of a request from model to model, so it is sent one to a model that does not exist;
    the tensors keep their memory. That takes some 0.15 ms, and is left out where there is plenty of room.
    """
    size = sum(map(_size, arrays))
    plenty = _PLENTY_TIMES * size + _PLENTY_BYTES
    if size <= _SMALL_BYTES and _measured.free >= plenty:
        return
    if (free := measure_free()) >= plenty:
        return
    request = pb_utils.InferenceRequest(model_name=_NO_MODEL, requested_output_names=[], inputs=list(tensors))
    message = request.exec().error().message()
    if _NO_MODEL not in message:  # else it came to Triton, tensors and all, which knows no such model
        raise AnswerError(
            f"its answer of {size / 1e6:.1f} MB does not fit the shared memory that Triton takes it from: "
            f"{free / 1e6:.1f} MB of {_FOLDER} are free; give the container more, as with `docker run --shm-size=2g`"
        )


def measure_free() -> int:
    """Measure the free bytes, and keep the result for small answers; to be called now and then."""
    folder = os.statvfs(_FOLDER)
    _measured.free = folder.f_bavail * folder.f_frsize
    return _measured.free


def _size(array: Array) -> int:
    """Bytes that an array takes in shared memory. Each text has its length before it."""
    if not array.dtype.hasobject:
        return array.nbytes
    return sum(4 + len(item.encode() if isinstance(item, str) else item) for item in array.ravel().tolist())
