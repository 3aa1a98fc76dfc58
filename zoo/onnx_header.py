"""Reads the small parts of an ONNX file (metadata, inputs) without its weights.

A protobuf file is a run of (tag, payload) fields; a field that is not asked for is skipped by a seek.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx

# Field numbers of onnx.proto's ModelProto and GraphProto.
MODEL_GRAPH, MODEL_METADATA = 7, 14
GRAPH_INPUT = 11
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5


class NotOnnxError(ValueError):
    """The file is not a protobuf message, or ends early."""


def read_metadata(path: Path) -> dict[str, str]:
    """The model's metadata_props."""
    with path.open("rb") as file:
        fields = _payloads(file, _size(file), MODEL_METADATA)
        entries = [onnx.StringStringEntryProto.FromString(file.read(length)) for length in fields]
    return {entry.key: entry.value for entry in entries}


def read_inputs(path: Path) -> list[onnx.ValueInfoProto]:
    """The graph's declared inputs."""
    with path.open("rb") as file:
        for length in _payloads(file, _size(file), MODEL_GRAPH):
            fields = _payloads(file, file.tell() + length, GRAPH_INPUT)
            return [onnx.ValueInfoProto.FromString(file.read(size)) for size in fields]
    raise NotOnnxError(f"{path} holds no ONNX graph.")


def _payloads(file: BinaryIO, end: int, wanted: int) -> Iterator[int]:
    """Stop the file at the start of each `wanted` field before `end`, and yield that field's length."""
    while (position := file.tell()) < end:
        tag = _varint(file)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            _varint(file)
            continue
        length = {FIXED64: 8, FIXED32: 4}.get(wire_type)
        if length is None:
            if wire_type != LENGTH_DELIMITED:
                raise NotOnnxError(f"Byte {position} of {file.name} starts no protobuf field.")
            length = _varint(file)
        after = file.tell() + length
        if after > end:
            raise NotOnnxError(f"The field at byte {position} of {file.name} runs past its end.")
        if number == wanted:
            yield length
        file.seek(after)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise NotOnnxError(f"{file.name} ends inside a number.")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise NotOnnxError(f"{file.name} holds a number of more than 64 bits.")


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
