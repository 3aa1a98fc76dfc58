"""Tells the requests of `model_warmup` from those of clients: Triton sends them first, and marks them in no way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def warm_up_calls(config: Mapping[str, Any]) -> int:
    """Number of calls of `execute` before an instance is ready. config: Triton's model configuration.

    A call per sample and its `count`, one after the other, with as many requests of one row as its `batch_size`.
    """
    samples = [sample for sample in config.get("model_warmup", ()) if int(sample.get("batch_size", 0)) > 0]
    return sum(max(1, int(sample.get("count", 0))) for sample in samples)
