"""Tensors in shared memory: one process writes, the other reads.

A region is a memfd, which has no name, so that nothing is left of it once both processes have ended, however they end.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike

from backend.engine_process.wire.messages import TensorPlace
from backend.tensors import BY_CONFIG, Array, Feeds, join_into, joined_shape

_ALIGNED_BYTES = 64
_MIN_BYTES = 1 << 16
_TEXT = "|O"
_NUMBERS = {datatype.numpy.str for datatype in BY_CONFIG.values() if not datatype.numpy.hasobject}
"""Element types that shared memory may hold: of any other numpy would take the bytes for pointers, or for records."""
_encode_text = msgspec.msgpack.Encoder().encode
_decode_text = msgspec.msgpack.Decoder(list[Any]).decode


class RegionWriter:
    """A region to write to. It grows where it must; each `pack` overwrites it."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def pack(self, feeds: Feeds) -> tuple[tuple[TensorPlace, ...], int | None]:
        """Write each tensor's parts joined. Returns their places, and the descriptor of a new region, the caller's."""
        texts = {name: _text(parts) for name, parts in feeds.items() if parts[0].dtype.hasobject}
        tensors, size = [], 0
        for name, parts in feeds.items():
            dtype, shape = parts[0].dtype, joined_shape(parts)
            nbytes = len(texts[name]) if name in texts else math.prod(shape) * dtype.itemsize
            tensors.append(TensorPlace(name, dtype.str, shape, size, nbytes))
            size += -(-nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
        descriptor = self._grow(size)
        try:
            for tensor in tensors:
                self._write(tensor, feeds[tensor.name], texts.get(tensor.name))
        except BaseException:
            if descriptor is not None:  # the reader will not learn of this region
                os.close(descriptor)
                self._memory = None
            raise
        return tuple(tensors), descriptor

    def _grow(self, size: int) -> int | None:
        """Descriptor of a new region where the old one is too small."""
        if self._memory is not None and len(self._memory) >= size:
            return None
        descriptor = os.memfd_create("isochrone-tensors")
        try:
            os.truncate(descriptor, max(_MIN_BYTES, 1 << (size - 1).bit_length()))
            self._memory = mmap.mmap(descriptor, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _write(self, tensor: TensorPlace, parts: Sequence[Array], text: bytes | None) -> None:
        if text is not None:
            _place(self._memory, tensor, np.uint8, (tensor.nbytes,))[...] = np.frombuffer(text, np.uint8)
            return
        join_into(_place(self._memory, tensor, tensor.dtype, tensor.shape), parts)


class RegionReader:
    """View of the region that the other process writes, valid until it packs again."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def map(self, descriptor: int) -> None:
        """Map a new region. Takes over the descriptor."""
        self._memory = None
        try:
            self._memory = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)

    def arrays(self, tensors: Sequence[TensorPlace]) -> dict[str, Array]:
        """Arrays at these places; only text is copied. Raises ValueError where a tensor is not within the region."""
        try:
            return {tensor.name: self._array(tensor) for tensor in tensors}
        except (ArithmeticError, RecursionError, TypeError, ValueError, msgspec.MsgspecError) as error:
            raise ValueError(f"a tensor's place in shared memory cannot be: {error}") from error

    def _array(self, tensor: TensorPlace) -> Array:
        if tensor.dtype != _TEXT:
            if tensor.dtype not in _NUMBERS:
                raise ValueError(f"there are no tensors of {tensor.dtype[:40]!r}")
            return _place(self._memory, tensor, tensor.dtype, tensor.shape)
        items = _decode_text(_place(self._memory, tensor, np.uint8, (tensor.nbytes,)).tobytes())
        array = np.empty(len(items), np.object_)
        array[:] = items
        return array.reshape(tensor.shape)


def _place(memory: mmap.mmap | None, tensor: TensorPlace, dtype: DTypeLike, shape: tuple[int, ...]) -> Array:
    if memory is None:
        raise ValueError("there is no region")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    # numpy looks too, but its sum of offset and size wraps around.
    if min(shape, default=0) < 0 or not 0 <= tensor.offset <= len(memory) - size:
        raise ValueError(f"{size} bytes at {tensor.offset} are not within {len(memory)}")
    return np.ndarray(shape, dtype, memory, tensor.offset)


def _text(parts: Sequence[Array]) -> bytes:
    return _encode_text([item for part in parts for item in part.ravel().tolist()])
