"""Agreement of the device's answers with ONNX Runtime's on the CPU, in relative norm per output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.engines.onnxruntime.cpu_engine import OnnxCpuEngine
from backend.engines.protocol import Engine
from backend.model_process.placement import open_engine
from benchmarks.gpu_check.records import Agreement, CheckRecords
from benchmarks.harness.steps import Step
from zoo.inputs import random_inputs

BOUND = 1e-3
"""Bound for FP32."""
_STEP_S = 20.0


def steps(records: CheckRecords) -> Iterator[Step]:
    """One per model whose outputs were not compared yet."""
    for model, engine in records.usable().items():
        if model not in records.agreements():
            yield Step(f"checking {model}", _STEP_S, partial(_check, records, model, engine))


def relative_error(found: NDArray[Any], wanted: NDArray[Any]) -> float | None:
    """‖found − wanted‖ / ‖wanted‖ in double precision; None where their shapes differ or one is not finite."""
    if found.shape != wanted.shape:
        return None
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    return float(np.linalg.norm(a - b)) / (float(np.linalg.norm(b)) or 1.0)


def agrees(agreement: Agreement) -> bool:
    """Tells whether every output lies within the bound."""
    return agreement.worst is not None and agreement.worst <= BOUND


def compare(engine: Engine, reference: Engine, inputs: Mapping[str, NDArray[Any]]) -> dict[str, float | None]:
    """Relative error per output. Raises EngineError."""
    feeds, names = {name: [array] for name, array in inputs.items()}, [spec.name for spec in engine.outputs]
    found, wanted = (each.run(0, feeds, names).outputs for each in (engine, reference))
    return {name: relative_error(a, b) for name, a, b in zip(names, found, wanted, strict=True)}


def _check(records: CheckRecords, model: str, kind: str) -> None:
    plan, file = records.plan, records.models / model / "1" / "model.onnx"
    with ExitStack() as opened:
        engine = open_engine(records.target.config(records.models, model, kind))
        opened.callback(engine.close)
        reference = OnnxCpuEngine(file)
        opened.callback(reference.close)
        found = [
            Agreement(size, compare(engine, reference, random_inputs(file, size, plan.seed)))
            for size in plan.checked_sizes
        ]
    records.keep_agreements(model, found)
