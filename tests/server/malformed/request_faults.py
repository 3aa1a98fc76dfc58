"""Seeded generator of broken inference requests: each is a right one of `asked` with something wrong in it.

Knows the protocol's grammar and this backend's parameters, but not how a request travels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from tests.server.malformed.asked import (
    INPUTS,
    OUTPUTS,
    SIZES,
    Asked,
    Tensor,
    as_bytes,
)

_MB = 1 << 20


def right(random: Random) -> Asked:
    model = random.choice(tuple(INPUTS))
    rows, columns = random.randint(1, 8), random.randint(1, 5)
    numbers = np.random.default_rng(random.randrange(2**32))
    inputs = []
    for name, (datatype, dims) in INPUTS[model].items():
        shape = [rows, columns if dims[1] == -1 else dims[1]]
        array: Any
        if datatype == "BYTES":
            array = np.array([["", "a", "ü", "\0", "日本", "x" * 300][i % 6].encode() for i in range(rows * 4)], object)
        elif datatype == "INT64":
            array = numbers.integers(-(2**40), 2**40, shape)
        else:
            array = numbers.standard_normal(shape).astype(np.float32)
        inputs.append(Tensor(name, datatype, shape, as_bytes(array)))
    return Asked(model, inputs)


# What can be wrong with a request, however it travels


def broken(asked: Asked, random: Random) -> str:
    """Break it in one to three ways, whose names are returned."""
    names = []
    for _ in range(random.choice((1, 1, 1, 1, 2, 3))):
        name, wrong = random.choice(_FAULTS)
        wrong(asked, random)
        names.append(name)
    for tensor in asked.inputs:
        if _is_of_no_bytes(tensor):
            tensor.data += b"\0"
    return " + ".join(names)


def _is_of_no_bytes(tensor: Tensor) -> bool:
    """True where the data is as long as the shape says, to 64 bits, and the shape is not: see test_limits."""
    size = math.prod(tensor.shape) * SIZES.get(tensor.datatype, 1)
    return size % 2**64 == len(tensor.data) and not 0 < size < 2**63


def _datatype(asked: Asked, random: Random) -> None:
    types = (
        "FP64",
        "FP16",
        "BF16",
        "INT32",
        "INT64",
        "FP32",
        "BOOL",
        "BYTES",
        "UINT8",
        "",
        "fp32",
        "TYPE_FP32",
        "ü",
        "X" * 70_000,
    )
    random.choice(asked.inputs or [_extra(random)]).datatype = random.choice(types)


def _shape(asked: Asked, random: Random) -> None:
    if not asked.inputs:
        return
    tensor = random.choice(asked.inputs)
    shape = tensor.shape
    huge = (2**31, 2**32, 2**40, 2**62, 2**63 - 1)
    roll = random.randrange(7)
    if roll == 0:
        shape.append(random.choice((1, 4, -1, *huge)))
    elif roll == 1 and shape:
        shape.pop(random.randrange(len(shape)))
    elif roll == 2:
        tensor.shape = [1] * random.choice((0, 1, 3, 8, 64, 2000))
    elif roll == 3:
        tensor.shape = random.choice(([2**32, 2**32], [2**62, 4], [2**63 - 1, 2**63 - 1], [2**31, 2**33], [1, 2**61]))
        if random.random() < 0.5:
            tensor.data = b""  # as many bytes as the product of the dimensions, modulo 2**64
    elif shape:
        shape[random.randrange(len(shape))] = random.choice((-1, -2, -(2**63), 0, 3, 9, 100, *huge))


def _data(asked: Asked, random: Random) -> None:
    if not asked.inputs:
        return
    tensor = random.choice(asked.inputs)
    data = tensor.data
    at = random.randrange(len(data) + 1)
    tensor.data = random.choice(
        (
            b"",
            data[:at],
            data[at:],
            data + b"\0",
            data + data,
            data + random.randbytes(4 * random.randrange(1, 9)),
            data[:-4],
        )
    )


def _values(asked: Asked, random: Random) -> None:
    """Other bytes of the same number: NaN, infinities, bytes that are no text."""
    if not asked.inputs:
        return
    tensor = random.choice(asked.inputs)
    if tensor.datatype == "FP32":
        array = np.frombuffer(tensor.data, np.uint8).copy()
        array[:] = random.choice((0xFF, 0x7F, 0x80, 0))
        tensor.data = array.tobytes()
    else:
        tensor.data = random.randbytes(len(tensor.data))


def _framing(asked: Asked, random: Random) -> None:
    """Of BYTES: lengths before the elements that are not theirs."""
    for tensor in asked.inputs:
        if tensor.datatype == "BYTES":
            data = bytearray(tensor.data)
            at = random.choice((0, 0, max(0, len(data) - 4), random.randrange(len(data) + 1)))
            data[at : at + 4] = random.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\x05\0\0\0")
            )
            tensor.data = bytes(data)
            return
    _data(asked, random)


def _extra(random: Random) -> Tensor:
    name = random.choice(("z", "", "x", "a", "\0", "X" * 10_000, "../x", "ü", "%s%n", "x\n"))
    return Tensor(name, "FP32", [1, 4], bytes(16))


def _inputs(asked: Asked, random: Random) -> None:
    roll = random.randrange(5)
    if roll == 0:
        asked.inputs = []
    elif roll == 1 and asked.inputs:
        asked.inputs.pop(random.randrange(len(asked.inputs)))
    elif roll == 2 and asked.inputs:
        asked.inputs.append(random.choice(asked.inputs))
    elif roll == 3 and asked.inputs:
        random.choice(asked.inputs).name = _extra(random).name
    else:
        asked.inputs += [_extra(random) for _ in range(random.choice((1, 1, 2, 300)))]


def _rows(asked: Asked, random: Random) -> None:
    """Other numbers of rows than the model allows, or than the other inputs have; the data fits."""
    for tensor in random.sample(asked.inputs, k=random.randint(1, len(asked.inputs))) if asked.inputs else ():
        if tensor.datatype in ("FP32", "INT64") and len(tensor.shape) == 2 and 0 < tensor.shape[1] < 100:
            rows = random.choice((1, 2, 9, 17, 1000))
            tensor.shape = [rows, tensor.shape[1]]
            tensor.data = bytes(rows * tensor.shape[1] * (4 if tensor.datatype == "FP32" else 8))


def _outputs(asked: Asked, random: Random) -> None:
    names = (*OUTPUTS.get(asked.model, ()), "z", "", "x", "ü" * 1000, "y\0")
    own = random.choice(OUTPUTS.get(asked.model) or ("y",))
    # Of text it ends tritonserver 2.51: see test_limits.
    classes = {} if asked.model == "text" else {"classification": random.choice((1, 2, 0, -1, 2**40, "2", 1.5, True))}
    region = {
        "shared_memory_region": random.choice(("nope", "", "../x", 3)),
        "shared_memory_byte_size": random.choice((16, -1, 2**63 - 1, "x")),
    }
    outputs: tuple[list[tuple[str, dict[str, Any]]], ...] = (
        [(random.choice(names), {})],
        [(random.choice(names), {}) for _ in range(random.choice((2, 3, 200)))],
        [(own, classes)],
        [(own, {"binary_data": random.choice((True, "yes", 3))})],
        [(own, region)],
    )
    asked.outputs = random.choice(outputs)


def _shared_memory(asked: Asked, random: Random) -> None:
    if not asked.inputs:
        return
    tensor = random.choice(asked.inputs)
    tensor.parameters = {
        "shared_memory_region": random.choice(("nope", "", "../../dev/shm/x", "x" * 100_000, 5, True)),
        "shared_memory_byte_size": random.choice((len(tensor.data), 0, -1, 2**63 - 1, "16", 1.5)),
        "shared_memory_offset": random.choice((0, -1, 2**62, "0")),
    }


def _own_parameters(asked: Asked, random: Random) -> None:
    numbers = (
        0,
        -1,
        -0.0,
        1.5,
        float("nan"),
        float("inf"),
        1e-300,
        1e9,
        1.0000001e9,
        1e300,
        2**53 + 1,
        2**63 - 1,
        2**63,
        2**64 - 1,
        -(2**63),
        12.5,
        3,
    )
    texts = (
        "",
        " ",
        "12.5",
        " 7 ",
        "1_0",
        "0x10",
        "1e5",
        "NaN",
        "inf",
        "-1",
        "fast",
        "٣",
        "1e999",
        "9" * 400,
        "\0",
        "'; --",
        "ü" * _MB,
        "{}",
        "%s",
    )
    value: Any = random.choice((*numbers, *texts, True, False))
    asked.parameters[random.choice(("slo_ms", "deadline_ns", "priority_class"))] = value
    if random.random() < 0.1:
        asked.parameters |= {"slo_ms": 50.0, "deadline_ns": 2**62}


def _other_parameters(asked: Asked, random: Random) -> None:
    names = ("timeout", "priority", "sequence_id", "sequence_start", "sequence_end", "headers", "binary_data_output")
    strange = ("", "ü", "x" * _MB, "triton_enable_empty_final_response", "slo_ms ", "SLO_MS", "__class__", "a\nb", "\0")
    values = (0, 1, -1, 2**63 - 1, 2**63, 2**64 - 1, 1.5, float("nan"), "", "7", "seven", "ü" * 1000, True)
    for _ in range(random.choice((1, 1, 3, 500))):
        name = random.choice(names if random.random() < 0.6 else strange)
        asked.parameters[name if random.random() < 0.9 else f"{name}{random.random()}"] = random.choice(values)


def _model(asked: Asked, random: Random) -> None:
    names = (
        "nope",
        "",
        ".",
        "..",
        "../target",
        "target/",
        "/etc/passwd",
        "target\0",
        "TARGET",
        "t" * 100_000,
        "ü",
        "%2e%2e",
        "target\r\nX: y",
        " ",
    )
    asked.model = random.choice(names)


def _version(asked: Asked, random: Random) -> None:
    asked.version = random.choice(
        (
            "2",
            "0",
            "-1",
            "99999999999999999999",
            "abc",
            "1.0",
            "1 ",
            " 1",
            "+1",
            "0x1",
            "..",
            "1/../1",
            "\0",
            "v" * 70_000,
            "01",
        )
    )


def _id(asked: Asked, random: Random) -> None:
    asked.id = random.choice(("ü", "x" * _MB, "a\nb", "\0", "%s%n%d", '"', "]"))


_FAULTS: tuple[tuple[str, Callable[[Asked, Random], None]], ...] = (
    ("datatype", _datatype),
    ("shape", _shape),
    ("shape", _shape),
    ("data", _data),
    ("values", _values),
    ("framing", _framing),
    ("inputs", _inputs),
    ("rows", _rows),
    ("outputs", _outputs),
    ("shared memory", _shared_memory),
    ("own parameters", _own_parameters),
    ("own parameters", _own_parameters),
    ("own parameters", _own_parameters),
    ("other parameters", _other_parameters),
    ("model", _model),
    ("version", _version),
    ("id", _id),
)
