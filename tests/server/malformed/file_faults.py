"""Broken model files, and broken files beside them; seeded. Writes and loads nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.fakes.emulated import spec
from tests.fuzz.mutation import mutated
from tests.server.malformed.model_folder import (
    MB,
    ONNX,
    Folder,
    emulated_folder,
    onnx_folder,
)


def _model_file(random: Random) -> Folder:
    at = random.randrange(len(ONNX))
    flipped = bytearray(ONNX)
    for _ in range(random.choice((1, 5, 50))):
        flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
    contents = (
        b"",
        ONNX[:at],
        bytes(flipped),
        bytes(flipped),
        bytes(flipped),
        random.randbytes(300),
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\0" * MB,
        ONNX + ONNX,
        ONNX[at:],
        ONNX.replace(b"MatMul", b"Nopmul"),
        ONNX.replace(b"Relu", b"Loop"),
    )
    return onnx_folder("max_batch_size: 8\n", "either", "model file", model=random.choice(contents))


def _no_model_file(random: Random) -> Folder:
    folder = onnx_folder("max_batch_size: 8\n", "refused", "no model file")
    files = dict(folder.files)
    content = files.pop("1/model.onnx")
    name = random.choice(
        ("1/model.txt", "2/model.onnx/x", "model.onnx", "1/model.onnx/model.onnx", "one/model.onnx", "1/1/model.onnx")
    )
    return replace(folder, files={**files, name: content})


def _emulated_file(random: Random) -> Folder:
    text = json.dumps(spec()).encode()
    return emulated_folder(mutated(text, random, "json"), "either", "emulated file")


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
    return emulated_folder(content, "either" if isinstance(value, str) else "refused", "emulated value")


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
    folder = onnx_folder("max_batch_size: 8\n", "served", "profile")
    return replace(folder, files={**folder.files, "1/profile.json": text})


def huge(random: Random) -> Folder:
    """A file of 100 MB where one of some kilobytes is read."""
    content = b" " * 100 * MB
    if random.random() < 0.5:
        return emulated_folder(content, "refused", "huge file")
    folder = onnx_folder("max_batch_size: 8\n", "served", "huge file")
    return replace(folder, files={**folder.files, "1/profile.json": content})


FILE_FAULTS: tuple[Callable[[Random], Folder], ...] = (
    *(_model_file,) * 2,
    _no_model_file,
    *(_emulated_file,) * 2,
    *(_emulated_value,) * 2,
    _profile,
)
