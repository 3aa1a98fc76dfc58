"""The question of a trial, from a model's configuration; the same before and after Triton's completion of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from backend.config.onnx_options import read_onnx_options
from backend.engines.loading import engine_of
from backend.engines.protocol import ModelSpecs
from backend.tensors import TensorSpec
from backend.trial.batching import ROWS_MAX
from backend.trial.messages import Question, Sample
from profiler.host import sha256_of


def question_of(config: Mapping[str, Any], file: Path, model: ModelSpecs, device_id: int | None) -> Question:
    """Question about the file. config: as Triton hands it to Python.

    Raises OSError or ConfigError where a file cannot be read.
    """
    by_name = {str(tensor["name"]): tensor for tensor in config.get("input", ())}
    dims = {spec.name: _fixed(spec, by_name[spec.name]) for spec in model.inputs if spec.name in by_name}
    engine = engine_of(file)
    most = int(config.get("max_batch_size", 0)) or model.max_batch_size or ROWS_MAX
    return Question(
        model_sha256=sha256_of(file),
        file=str(file.absolute()),
        engine=engine,
        runtime=onnxruntime.__version__ if engine == "onnxruntime" else "",
        device_id=device_id if engine == "tensorrt" else None,
        onnx=read_onnx_options(config, file),
        dims={name: lengths for name, lengths in dims.items() if any(length >= 0 for length in lengths)},
        samples=tuple(_samples(config, file.parent.parent)),
        rows_max=min(most, ROWS_MAX),
    )


def _fixed(spec: TensorSpec, stated: Mapping[str, Any]) -> tuple[int, ...]:
    """Lengths in the configuration for dynamic dimensions after the first, −1 for the others."""
    dims = (stated.get("reshape") or {}).get("shape") or stated.get("dims") or ()
    own = spec.shape[1:]
    lengths = tuple(int(d) for d in dims)[-len(own) :] if own else ()
    if len(lengths) != len(own):
        return ()
    return tuple(length if size == -1 else -1 for length, size in zip(lengths, own, strict=True))


def _samples(config: Mapping[str, Any], folder: Path) -> Iterator[Sample]:
    """`model_warmup`: Triton's way to name shapes and data. folder: the model's, where it keeps files of data."""
    for warm_up in config.get("model_warmup") or ():
        inputs: Mapping[str, Mapping[str, Any]] = warm_up.get("inputs") or {}
        files = {name: one["input_data_file"] for name, one in inputs.items() if one.get("input_data_file")}
        yield Sample(
            name=str(warm_up.get("name", "")),
            dims={name: tuple(int(d) for d in one.get("dims", ())) for name, one in inputs.items()},
            data={name: str(folder / "warmup" / file) for name, file in files.items()},
            zeros=tuple(name for name, one in inputs.items() if one.get("zero_data")),
        )
