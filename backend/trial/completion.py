"""Fills in what config.pbtxt leaves out: tensors, and batching where a trial shows it changes no answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.config.model_config import ANY_ROWS, complete, first_gpu, may_batch
from backend.config.onnx_options import read_onnx_options
from backend.engines.emulated.spec import is_emulated
from backend.engines.loading import read_model_specs
from backend.engines.protocol import ModelSpecs
from backend.errors import ConfigError
from backend.trial.launch import try_file
from backend.trial.messages import Fill, Trial
from backend.trial.question import question_of
from profiler.child import Attend

_TOKEN = re.compile(r"""\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}<>\[\]]|[\w.+-]+|\S""")


def complete_config(config: dict[str, Any], file: Path, attend: Attend | None = None) -> tuple[ModelSpecs, list[str]]:
    """Complete the configuration in place. Raises ConfigError.

    Returns the model file's declarations, and sentences for the log, on what is served otherwise than expected.
    """
    model = read_model_specs(file, first_gpu(config), read_onnx_options(config, file))
    rows = 0
    left_out = {} if config.get("output") else model.unserved  # where config.pbtxt does not say which are wanted
    notes = [f"output '{name}' is not served: it is {why}" for name, why in left_out.items()]
    if _is_open(config, file) and may_batch(config, model.inputs, model.outputs):
        trial = tried(config, file, model, batch=True, attend=attend)
        if trial.batches:
            rows = model.max_batch_size or ANY_ROWS
        else:
            notes.append(f"requests are not batched: {trial.why}; a max_batch_size in config.pbtxt has them batched")
    complete(config, model.inputs, model.outputs, rows)
    return model, notes


def tried(
    config: Mapping[str, Any], file: Path, model: ModelSpecs, *, batch: bool, attend: Attend | None = None
) -> Trial:
    """Trial of the model on synthetic inputs. batch: also whether batching changes an answer.

    Raises ConfigError where the model file cannot be read.
    """
    if is_emulated(file):  # it computes nothing, so that rows have nothing to do with each other
        zeros = {s.name: Fill(tuple(abs(d) for d in s.shape), zeros=True) for s in model.inputs}
        return Trial(as_batch=zeros, as_is=zeros, batch=True, batches=True)
    try:
        question = question_of(config, file, model, first_gpu(config))
    except OSError as error:
        raise ConfigError(f"the model file '{file}' cannot be read: {error.strerror}") from None
    return try_file(question, batch=batch, attend=attend)


def _is_open(config: Mapping[str, Any], file: Path) -> bool:
    """True where config.pbtxt does not set `max_batch_size`, not even to 0."""
    return int(config.get("max_batch_size", 0)) == 0 and not states_max_batch_size(file.parent.parent / "config.pbtxt")


def states_max_batch_size(config_file: Path) -> bool:
    """True where the file sets the model's own `max_batch_size`, whatever its value. False where it cannot be read.

    Tokens of protobuf's text format: comments, strings and nested messages are told apart.
    """
    try:
        text = config_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    depth = 0
    for token in _TOKEN.findall(text):
        if token in "{<[":
            depth += 1
        elif token in "}>]":
            depth -= 1
        elif depth == 0 and token == "max_batch_size":
            return True
    return False
