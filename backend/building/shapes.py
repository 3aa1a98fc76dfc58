"""Optimisation profiles of a plan, from the model's inputs and the user's options. Arithmetic only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from backend.engines.gpu.device import Shape
from backend.engines.tensorrt.plan_runtime import OptimizationProfile
from backend.errors import ConfigError
from backend.tensors import TensorSpec

_BOUNDS = re.compile(r"(?P<name>[^=]+)=(?P<low>[0-9x]+):(?P<optimum>[0-9x]+):(?P<high>[0-9x]+)")
_DIMENSION_MAX = 1 << 31


Bounds = tuple[Shape, Shape, Shape]
"""Smallest, optimum and largest dimensions of an input, without the batch."""


def read_bounds(texts: Sequence[str]) -> dict[str, Bounds]:
    """Bounds by input, from "ids=16:128:512" or "image=3x32x32:3x224x224:3x512x512". Raises ConfigError."""
    bounds = {}
    for text in texts:
        match = _BOUNDS.fullmatch(text)
        if not match:
            raise ConfigError(
                f"--shape {text!r} must be NAME=MIN:OPT:MAX with sizes such as 3x224x224, without the batch"
            )
        low, optimum, high = (_sizes(match[part], text) for part in ("low", "optimum", "high"))
        if not len(low) == len(optimum) == len(high):
            raise ConfigError(f"--shape {text!r} must have as many dimensions in MIN, OPT and MAX")
        if not all(a <= b <= c for a, b, c in zip(low, optimum, high, strict=True)):
            raise ConfigError(f"--shape {text!r} must have MIN <= OPT <= MAX in each dimension")
        bounds[match["name"]] = (low, optimum, high)
    return bounds


def batches(inputs: Sequence[TensorSpec]) -> bool:
    """True where all inputs leave their first dimension, the batch, open."""
    return bool(inputs) and all(spec.shape and spec.shape[0] == -1 for spec in inputs)


def make_profiles(
    inputs: Sequence[TensorSpec], batch_sizes: Sequence[int], bounds: Mapping[str, Bounds]
) -> tuple[OptimizationProfile, ...]:
    """Profiles, one for each batch size, tuned to it, which also takes the sizes down to the next smaller one.

    Raises ConfigError where the bounds do not fit the inputs, or an open dimension has none.
    """
    names = [spec.name for spec in inputs]
    for name in bounds:
        if name not in names:
            raise ConfigError(f"--shape names input '{name}', but the model has {', '.join(map(repr, names))}")
    batched = batches(inputs)
    rest = {spec.name: _rest(spec, bounds.get(spec.name), batched) for spec in inputs}
    if not batched:
        return (_profile(rest, None, None),)
    sizes = sorted(set(batch_sizes))
    return tuple(_profile(rest, below + 1, size) for below, size in zip((0, *sizes), sizes, strict=False))


def _profile(rest: Mapping[str, Bounds], low: int | None, high: int | None) -> OptimizationProfile:
    def with_batch(size: int | None, shape: Shape) -> Shape:
        return shape if size is None else (size, *shape)

    sizes = enumerate((low, high, high))
    return OptimizationProfile(*({name: with_batch(size, b[i]) for name, b in rest.items()} for i, size in sizes))


def _rest(spec: TensorSpec, bounds: Bounds | None, batched: bool) -> Bounds:
    shape = spec.shape[1:] if batched else spec.shape
    if bounds is None:
        if -1 in shape:
            raise ConfigError(
                f"input '{spec.name}' has open dimensions {list(shape)}"
                f"{' beside the batch' if batched else ''}; give their bounds with --shape {spec.name}=MIN:OPT:MAX"
            )
        return (shape, shape, shape)
    for sizes in bounds:
        if len(sizes) != len(shape) or any(own not in (-1, size) for own, size in zip(shape, sizes, strict=False)):
            raise ConfigError(
                f"--shape gives {list(sizes)} for input '{spec.name}', which the model has as {list(shape)}"
            )
    return bounds


def _sizes(text: str, whole: str) -> Shape:
    parts = text.split("x")
    if not all(part.isdecimal() and 1 <= int(part) < _DIMENSION_MAX for part in parts):
        raise ConfigError(f"--shape {whole!r} must have whole numbers from 1 as sizes, with an x between")
    return tuple(int(part) for part in parts)
