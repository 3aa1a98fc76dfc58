"""Seeded generator of broken models: a right one's folder with something wrong in one or two of its files.

Knows the grammar of config.pbtxt, this backend's parameters and its files; writes and loads nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Literal

from tests.fakes.emulated import spec
from tests.fuzz.mutation import mutated
from tests.server.malformed.asked import MLP

Outcome = Literal["refused", "served", "either"]

_ONNX = MLP.SerializeToString()
_TENSORS = (
    'input [{ name: "x" data_type: TYPE_FP32 dims: [4] }]\noutput [{ name: "y" data_type: TYPE_FP32 dims: [4] }]\n'
)
_MB = 1 << 20


@dataclass(frozen=True)
class Folder:
    """A model's folder. files: by their paths in it. says: what a refusal must hold. override: of `load_model`, a
    configuration as JSON in the place of config.pbtxt.
    """

    what: str
    files: dict[str, bytes]
    outcome: Outcome
    says: tuple[str, ...] = ()
    override: str | None = field(default=None)


def folders(seed: int, count: int) -> Iterator[Folder]:
    """That many, always the same for a seed. A few are right, and must be served."""
    random = Random(seed)
    for number in range(count):
        wrong = _huge if number % 500 == 250 else random.choice(_FAULTS)
        yield wrong(random) if number % 25 or number % 500 == 250 else _right(random)


def _right(random: Random) -> Folder:
    if random.random() < 0.3:
        return _emulated(spec(), "served", "right, emulated")
    return _onnx('max_batch_size: 8\nparameters { key: "slo_ms" value { string_value: "50" } }\n', "served", "right")


def _onnx(config: str, outcome: Outcome, what: str, *says: str, model: bytes = _ONNX, **more: bytes) -> Folder:
    text = f'backend: "isochrone"\n{config}'.encode()
    return Folder(what, {"config.pbtxt": text, "1/model.onnx": model, **more}, outcome, says)


def _emulated(content: object, outcome: Outcome, what: str) -> Folder:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Folder(
        what,
        {"config.pbtxt": b'backend: "isochrone"\ninstance_group [{ kind: KIND_CPU }]\n', "1/model.emulated.json": text},
        outcome,
    )


def _quoted(text: str) -> str:
    """A string of protobuf's text format."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\{ord(c):03o}" for c in text) + '"'


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}\n"


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
    return _onnx(_parameter(key, value), "refused", "own parameter", f"parameter '{key}' is ", "; it must be ")


def _long_value(random: Random) -> Folder:
    key = random.choice(tuple(_WRONG))
    value = random.choice(("9", "x", "ü", "\n")) * random.choice((1_000, 200_000))
    return _onnx(_parameter(key, value), "refused", "long value", f"parameter '{key}' is ", "; it must be ")


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
    return _onnx(
        _parameter(random.choice(names), "1"),
        "refused",
        "unknown parameter",
        "unknown parameter",
        "the parameters are interference_aware",
    )


def _several(random: Random) -> Folder:
    """The same key twice, of which protobuf takes the last, and others beside it."""
    key = random.choice(tuple(_WRONG))
    lines = [_parameter(key, random.choice(_WRONG[key])), _parameter("slo_ms", "50"), _parameter("on_miss", "reject")]
    random.shuffle(lines)
    return _onnx("".join(lines), "either", "several parameters")


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
    return _onnx(random.choice(texts), "refused", "parameter of a wrong type")


# The rest of config.pbtxt

_LINES = (
    *(Path(__file__).parent / "config_lines.txt").read_text().splitlines(),
    f'default_model_filename: "{"x" * 5000}"',
)
"""Lines that are wrong, or that leave the model as it is: Triton's own, and what this backend makes of them."""


def _key(random: Random) -> Folder:
    lines = [random.choice(_LINES) for _ in range(random.choice((1, 1, 1, 2)))]
    return _onnx("\n".join(lines) + "\n", "either", "key")


def _tensors(random: Random) -> Folder:
    """Right tensors with wrong parts."""
    text = _TENSORS
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
    return _onnx(f"max_batch_size: 8\n{text}", "either", "tensors")


def _text(random: Random) -> Folder:
    """config.pbtxt that is no text of protobuf's, or another one."""
    right = _right(random)
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
        text + b"#" * _MB,
        text + b'parameters { key: "x" value { string_value: "' + b"\xff\xfe" + b'" } }',
        mutated(text, random, "text"),
        mutated(text, random, "text", _TENSORS.encode()),
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
    return replace(_onnx("", "either", "override"), override=text)


# Model files and what lies beside them


def _model_file(random: Random) -> Folder:
    at = random.randrange(len(_ONNX))
    flipped = bytearray(_ONNX)
    for _ in range(random.choice((1, 5, 50))):
        flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
    contents = (
        b"",
        _ONNX[:at],
        bytes(flipped),
        bytes(flipped),
        bytes(flipped),
        random.randbytes(300),
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\0" * _MB,
        _ONNX + _ONNX,
        _ONNX[at:],
        _ONNX.replace(b"MatMul", b"Nopmul"),
        _ONNX.replace(b"Relu", b"Loop"),
    )
    return _onnx("max_batch_size: 8\n", "either", "model file", model=random.choice(contents))


def _no_model_file(random: Random) -> Folder:
    folder = _onnx("max_batch_size: 8\n", "refused", "no model file")
    files = dict(folder.files)
    content = files.pop("1/model.onnx")
    name = random.choice(
        ("1/model.txt", "2/model.onnx/x", "model.onnx", "1/model.onnx/model.onnx", "one/model.onnx", "1/1/model.onnx")
    )
    return replace(folder, files={**files, name: content})


def _emulated_file(random: Random) -> Folder:
    text = json.dumps(spec()).encode()
    return _emulated(mutated(text, random, "json"), "either", "emulated file")


def _emulated_value(random: Random) -> Folder:
    """A value outside its range."""
    content = spec()
    holder, key = random.choice(
        [(content, k) for k in ("schema", "max_batch_size", "inputs", "outputs", "batches")]
        + [
            (content["device"], k)
            for k in (
                "name",
                "pcie_gb_per_s",
                "copy_latency_us",
                "regime",
                "saturation",
                "pair_sd",
                "seed",
                "noise_sd",
                "mhz_per_w",
                "nope",
            )
        ]
        + [
            (content["batches"][i], k)
            for i in range(3)
            for k in ("batch_size", "solo_us", "busy_share", "work_per_kernel", "features", "power_w")
        ]
        + [(content["batches"][0]["features"], k) for k in ("compute", "l2", "dram")]
        + [(content["inputs"][0], k) for k in ("name", "datatype", "shape")]
    )
    value: object = random.choice(
        (
            None,
            "",
            "x",
            -1,
            -0.5,
            1e300,
            float("nan"),
            float("inf"),
            10**400,
            [],
            {},
            [{}],
            [[]],
            True,
            [0],
            [2**40] * 9,
            "\ud800",
        )
    )
    holder[key] = value
    return _emulated(content, "either" if isinstance(value, str) else "refused", "emulated value")


_PROFILE = {
    "schema": 1,
    "model": "m",
    "version": "1",
    "device": "cpu",
    "engine": "e",
    "model_sha256": "0",
    "features_from": "graph",
    "entries": [
        {
            "batch_size": 1,
            "p50_ns": 1000,
            "p50_interval_ns": [900, 1100],
            "p95_ns": 2000,
            "p95_interval_ns": [1900, 2100],
            "rows_per_s": 1e6,
            "features": {"compute": 0.5, "l2": 0.1, "dram": 0.1},
            "runs": 100,
            "rounds": 5,
            "dropped": 0,
            "stable": True,
        }
    ],
}


def _profile(random: Random) -> Folder:
    """A profile that cannot be used: the model is profiled anew, and served."""
    text = random.choice(
        (mutated(json.dumps(_PROFILE).encode(), random, "json"), b"", b"[" * 5000, random.randbytes(100), b"\xff")
    )
    folder = _onnx("max_batch_size: 8\n", "served", "profile")
    return replace(folder, files={**folder.files, "1/profile.json": text})


def _huge(random: Random) -> Folder:
    """A file of 100 MB where one of some kilobytes is read."""
    content = b" " * 100 * _MB
    if random.random() < 0.5:
        return _emulated(content, "refused", "huge file")
    folder = _onnx("max_batch_size: 8\n", "served", "huge file")
    return replace(folder, files={**folder.files, "1/profile.json": content})


_FAULTS: tuple[Callable[[Random], Folder], ...] = (
    *(_own_value,) * 5,
    _long_value,
    *(_unknown_name,) * 2,
    _several,
    _wrong_type,
    *(_key,) * 6,
    _tensors,
    *(_text,) * 2,
    _override,
    *(_model_file,) * 2,
    _no_model_file,
    *(_emulated_file,) * 2,
    *(_emulated_value,) * 2,
    _profile,
)
