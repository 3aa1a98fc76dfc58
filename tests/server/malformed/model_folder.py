"""Folder of a model as it is written for a load, and what its load must come to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from tests.fakes.emulated import spec
from tests.server.malformed.asked import MLP

Outcome = Literal["refused", "served", "either"]

ONNX = MLP.SerializeToString()
TENSORS = (
    'input [{ name: "x" data_type: TYPE_FP32 dims: [4] }]\noutput [{ name: "y" data_type: TYPE_FP32 dims: [4] }]\n'
)
MB = 1 << 20


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


def onnx_folder(config: str, outcome: Outcome, what: str, *says: str, model: bytes = ONNX, **more: bytes) -> Folder:
    text = f'backend: "isochrone"\n{config}'.encode()
    return Folder(what, {"config.pbtxt": text, "1/model.onnx": model, **more}, outcome, says)


def emulated_folder(content: object, outcome: Outcome, what: str) -> Folder:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Folder(
        what,
        {"config.pbtxt": b'backend: "isochrone"\ninstance_group [{ kind: KIND_CPU }]\n', "1/model.emulated.json": text},
        outcome,
    )


def quoted(text: str) -> str:
    """A string of protobuf's text format."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\{ord(c):03o}" for c in text) + '"'


def parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}\n"


def right_folder(random: Random) -> Folder:
    """A model that must be served."""
    if random.random() < 0.3:
        return emulated_folder(spec(), "served", "right, emulated")
    slo = parameter("slo_ms", "50")
    return onnx_folder(f"max_batch_size: 8\n{slo}", "served", "right")
