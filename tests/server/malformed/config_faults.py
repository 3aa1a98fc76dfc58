"""Broken config.pbtxt by its grammar and this backend's parameters; seeded. Writes and loads nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.fuzz.mutation import mutated
from tests.server.malformed.model_folder import (
    MB,
    TENSORS,
    Folder,
    onnx_folder,
    parameter,
    right_folder,
)

# Parameters of this backend

_NO_NUMBERS = (
    "",
    " ",
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1_0",
    "0x10",
    "1e400",
    "fast",
    "٣",
    "1,5",
    "5 ms",
    "--",
    "true",
    "\0",
    "{}",
    "9" * 30,
)
_NO_WORDS = ("", "TRUE1", "yes", "1", "Auto ", "serve,reject", "ü", "\n", "null", "auto\0", "x" * 200)
_WRONG = {
    "interference_aware": _NO_WORDS,
    "slo_ms": (*_NO_NUMBERS, "1e10", "1e-9", "-5e3"),
    "priority": (*_NO_NUMBERS, "1001", "1.5", "1e2", "+3"),
    "on_miss": _NO_WORDS,
    "engine": (*_NO_WORDS, "openvino", "ONNXRUNTIME"),
    "device_lanes": (*_NO_NUMBERS, "1025", "2.0", "two"),
    "engine_process": _NO_WORDS,
    "mps_percent": (*_NO_NUMBERS, "101", "50%", "33.3"),
    "max_queue_size": (*_NO_NUMBERS, "65537", "4k"),
}
"""Values outside what docs/reference/configuration.md allows."""


def _own_value(random: Random) -> Folder:
    key = random.choice(tuple(_WRONG))
    value = random.choice(_WRONG[key])
    return onnx_folder(parameter(key, value), "refused", "own parameter", f"parameter '{key}' is ", "; it must be ")


def _long_value(random: Random) -> Folder:
    key = random.choice(tuple(_WRONG))
    value = random.choice(("9", "x", "ü", "\n")) * random.choice((1_000, 200_000))
    return onnx_folder(parameter(key, value), "refused", "long value", f"parameter '{key}' is ", "; it must be ")


def _unknown_name(random: Random) -> Folder:
    names = (
        "slo",
        "SLO_MS",
        "slo_ms ",
        "",
        "ü",
        "interference-aware",
        "x" * random.choice((100, 10_000)),
        "\0",
        "a\nb",
        "%s",
        "slo_ms\0",
    )
    return onnx_folder(
        parameter(random.choice(names), "1"),
        "refused",
        "unknown parameter",
        "unknown parameter",
        "the parameters are interference_aware",
    )


def _several(random: Random) -> Folder:
    """The same key twice, of which protobuf takes the last, and others beside it."""
    key = random.choice(tuple(_WRONG))
    lines = [parameter(key, random.choice(_WRONG[key])), parameter("slo_ms", "50"), parameter("on_miss", "reject")]
    random.shuffle(lines)
    return onnx_folder("".join(lines), "either", "several parameters")


def _wrong_type(random: Random) -> Folder:
    texts = (
        'parameters { key: "slo_ms" value { int64_value: 50 } }',
        'parameters { key: "slo_ms" value: 50 }',
        'parameters { key: "slo_ms" }',
        'parameters { key: 3 value { string_value: "50" } }',
        "parameters: 3",
        "parameters [ 3 ]",
        'parameters { slo_ms: "50" }',
        'parameters { key: "slo_ms" value { string_value: 50 } }',
        'parameters { value { string_value: "50" } }',
        'parameters { key: "slo_ms" value { string_value: "50" string_value: "60" } }',
    )
    return onnx_folder(random.choice(texts), "refused", "parameter of a wrong type")


# The rest of config.pbtxt

_LINES = (
    *(Path(__file__).parent / "config_lines.txt").read_text().splitlines(),
    f'default_model_filename: "{"x" * 5000}"',
)
"""Lines that are wrong, or that leave the model as it is: Triton's own, and what this backend makes of them."""


def _key(random: Random) -> Folder:
    lines = [random.choice(_LINES) for _ in range(random.choice((1, 1, 1, 2)))]
    return onnx_folder("\n".join(lines) + "\n", "either", "key")


def _tensors(random: Random) -> Folder:
    """Right tensors with wrong parts."""
    text = TENSORS
    changes = (
        ("FP32", "INT32"),
        ("[4]", "[5]"),
        ("[4]", "[4, 1]"),
        ("[4]", "[]"),
        ('"x"', '"z"'),
        ('"y"', '"x"'),
        ("dims", "dimensions"),
        ("TYPE_", ""),
    )
    for _ in range(random.choice((1, 2))):
        text = text.replace(*random.choice(changes))
    return onnx_folder(f"max_batch_size: 8\n{text}", "either", "tensors")


def _text(random: Random) -> Folder:
    """config.pbtxt that is no text of protobuf's, or another one."""
    right = right_folder(random)
    text = right.files["config.pbtxt"]
    at = random.randrange(len(text) + 1)
    deep = random.choice((50, 5_000))
    texts = (
        text[:at],
        text[:at] + random.randbytes(8) + text[at:],
        text[:at] + b"\0" + text[at:],
        text + b"}" * 3,
        text + b'parameters { key: "slo_ms',
        b"",
        b"\0" * 100,
        random.randbytes(400),
        b"\xef\xbb\xbf" + text,
        text.decode().encode("utf-16"),
        b"{" * deep,
        text + b"input { " * deep,
        text + b"#" * MB,
        text + b'parameters { key: "x" value { string_value: "' + b"\xff\xfe" + b'" } }',
        mutated(text, random, "text"),
        mutated(text, random, "text", TENSORS.encode()),
    )
    return replace(right, what="text", files={**right.files, "config.pbtxt": random.choice(texts)}, outcome="either")


def _override(random: Random) -> Folder:
    """A configuration given with the call of `load_model`."""
    right = {"backend": "isochrone", "max_batch_size": 8, "parameters": {"slo_ms": {"string_value": "50"}}}
    values: tuple[object, ...] = (
        None,
        [],
        {},
        3,
        -1,
        "x",
        {"string_value": 3},
        {"string_value": "fast"},
        [[[]]],
        10**30,
        1.5,
    )
    made: dict[str, object] = dict(right)
    made[random.choice((*right, "input", "output", "instance_group", "nope", "name"))] = random.choice(values)
    text = json.dumps(made)
    if random.random() < 0.4:
        text = random.choice((text[: random.randrange(len(text))], "", "null", "[]", "[" * 100, "\0", '{"a": NaN}'))
    return replace(onnx_folder("", "either", "override"), override=text)


CONFIG_FAULTS: tuple[Callable[[Random], Folder], ...] = (
    *(_own_value,) * 5,
    _long_value,
    *(_unknown_name,) * 2,
    _several,
    _wrong_type,
    *(_key,) * 6,
    _tensors,
    *(_text,) * 2,
    _override,
)
