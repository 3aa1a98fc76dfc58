"""Shapes of a plan: the profile for a batch, the largest tensors. Arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from backend.engines.gpu.device import Shape, Shapes
from backend.engines.tensorrt.plan_runtime import OptimizationProfile, PlanTensor
from backend.errors import ConfigError, EngineError
from backend.tensors import TensorSpec


def specs(tensors: Sequence[PlanTensor], *, inputs: bool) -> tuple[TensorSpec, ...]:
    """Specs of the inputs or the outputs, in the plan's order."""
    return tuple(TensorSpec(t.name, t.datatype, t.shape) for t in tensors if t.is_input == inputs)


def admits(profile: OptimizationProfile, shapes: Shapes) -> bool:
    """True where every input's shape lies between the profile's smallest and largest."""
    return all(
        len(shape) == len(profile.largest[name])
        and all(
            low <= dimension <= high
            for low, dimension, high in zip(profile.smallest[name], shape, profile.largest[name], strict=True)
        )
        for name, shape in shapes.items()
    )


def choose_profile(profiles: Sequence[OptimizationProfile], shapes: Shapes) -> int:
    """Index of the tightest profile that takes these shapes: its kernels were chosen for the nearest. First of equals.

    Raises EngineError where none does.
    """
    fitting = [index for index, profile in enumerate(profiles) if admits(profile, shapes)]
    if not fitting:
        raise EngineError(_no_profile(profiles, shapes))
    return min(fitting, key=lambda index: sum(math.prod(shape) for shape in profiles[index].largest.values()))


def largest_shapes(profile: OptimizationProfile, max_batch_size: int) -> dict[str, Shape]:
    """Largest shape of each input in serving. max_batch_size: 0 where the model does not batch."""
    if max_batch_size == 0:
        return dict(profile.largest)
    return {name: (min(shape[0], max_batch_size), *shape[1:]) for name, shape in profile.largest.items()}


def largest_batch(tensors: Sequence[PlanTensor], profiles: Sequence[OptimizationProfile]) -> int:
    """Largest batch that a profile takes, 0 where the first dimensions are not all dynamic."""
    inputs = [tensor for tensor in tensors if tensor.is_input]
    if not inputs or not all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors):
        return 0
    return max(min(profile.largest[tensor.name][0] for tensor in inputs) for profile in profiles)


def check_batches(
    file: Path, tensors: Sequence[PlanTensor], profiles: Sequence[OptimizationProfile], max_batch_size: int
) -> None:
    """Refuse a `max_batch_size` of which some batch fits no profile. Raises ConfigError."""
    inputs = [tensor.name for tensor in tensors if tensor.is_input]
    for size in range(1, max_batch_size + 1):
        if not any(all(p.smallest[n][0] <= size <= p.largest[n][0] for n in inputs) for p in profiles):
            raise ConfigError(
                f"max_batch_size is {max_batch_size}, but no profile of '{file}' takes a batch of {size}: "
                f"they take {_batches(profiles, inputs)}; lower max_batch_size or build the plan for more"
            )


def _batches(profiles: Sequence[OptimizationProfile], inputs: Sequence[str]) -> str:
    ranges = []
    for profile in profiles:
        low = max(profile.smallest[name][0] for name in inputs)
        high = min(profile.largest[name][0] for name in inputs)
        ranges.append(str(low) if low == high else f"{low} to {high}")
    return ", ".join(ranges)


def _no_profile(profiles: Sequence[OptimizationProfile], shapes: Shapes) -> str:
    """Error that names the first input that no profile takes, else all: each fits some profile, but none takes all."""
    for name, shape in shapes.items():
        if not any(admits(profile, {name: shape}) for profile in profiles):
            allowed = "; ".join(f"{_text(p.smallest[name])} to {_text(p.largest[name])}" for p in profiles)
            return f"input '{name}' has shape {_text(shape)}, which no profile of the plan takes; they take {allowed}"
    stated = ", ".join(f"'{name}' {_text(shape)}" for name, shape in shapes.items())
    return f"no profile of the plan takes these shapes together: {stated}"


def _text(shape: Shape) -> str:
    return str(list(shape))
