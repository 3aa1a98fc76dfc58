"""`isochrone build`: builds a plan, its facts beside it, and a timing cache for the next build."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import typer

from backend.building.shapes import batches, make_profiles, read_bounds
from backend.commands.profile import read_batch_sizes
from backend.config.model_config import DEFAULT_MAX_BATCH_SIZE
from backend.engines.onnxruntime.session import read_specs
from backend.engines.tensorrt.plan_facts import SCHEMA, PlanFacts, facts_path
from backend.engines.tensorrt.plan_runtime import OptimizationProfile
from backend.errors import ConfigError
from backend.profiling.repository import read_config
from backend.runtime_dir import runtime_dir
from profiler.brief import batch_sizes
from profiler.host import sha256_of
from profiler.store import write_json

PRECISIONS = ("model", "fp16")
_MIB = 1 << 20


@dataclass(frozen=True)
class BuildOptions:
    """Options as the user wrote them; see `isochrone build --help`."""

    model: Path
    out: Path | None = None
    batch_sizes: str | None = None
    shapes: tuple[str, ...] = ()
    precision: str = "model"
    device: int = 0
    workspace_mib: int | None = None
    timing_cache: Path | None = None


def run_build(options: BuildOptions) -> None:
    """Build a plan and its facts. Raises IsochroneError; wrong options are refused before TensorRT is imported."""
    if options.precision not in PRECISIONS:
        raise ConfigError(f"--precision {options.precision!r} must be {' or '.join(PRECISIONS)}")
    out = options.out or options.model.with_name("model.plan")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out} is in no folder that exists")
    required = [spec for spec in read_specs(options.model).inputs if not spec.optional]
    profiles = make_profiles(required, _batch_sizes(options), read_bounds(options.shapes))
    facts = _build(options, out, profiles)
    _report(out, facts, batched=batches(required))


def _build(options: BuildOptions, out: Path, profiles: tuple[OptimizationProfile, ...]) -> PlanFacts:
    from backend.building import tensorrt_builder  # noqa: PLC0415 - imports TensorRT
    from backend.engines.gpu.cuda_device import CudaDevice  # noqa: PLC0415 - imports CUDA
    from backend.engines.tensorrt import plan as tensorrt_plan  # noqa: PLC0415 - imports TensorRT

    device = CudaDevice(options.device)
    gpu, version = device.name(), tensorrt_plan.VERSION
    cache = options.timing_cache or _default_cache(gpu, version)
    began_s = time.monotonic()
    typer.echo(f"building for {gpu} with TensorRT {version}, profiles: {len(profiles)}; this takes minutes")
    built = tensorrt_builder.build(
        options.model,
        profiles,
        fp16=options.precision == "fp16",
        workspace_bytes=None if options.workspace_mib is None else options.workspace_mib * _MIB,
        timings=cache.read_bytes() if cache.is_file() else b"",
    )
    _replace(out, built.plan)
    _replace(cache, built.timings)
    spent_s, found = time.monotonic() - began_s, "reused" if built.reused else "begun"
    typer.echo(f"built in {spent_s:.0f} s, timing cache {cache} {found}")
    plan = tensorrt_plan.TensorRtPlan(out)  # its tensors, and proof that it loads
    plan.close()
    capability, sha256 = device.compute_capability(), sha256_of(options.model)
    facts = PlanFacts(
        SCHEMA, len(built.plan), version, gpu, capability, options.precision, sha256, plan.tensors, profiles
    )
    write_json(facts_path(out), facts)
    return facts


def _batch_sizes(options: BuildOptions) -> list[int]:
    """Batch sizes asked for; by default powers of two up to the max_batch_size of the model's config.pbtxt."""
    if options.batch_sizes:
        return list(read_batch_sizes(options.batch_sizes))
    config = options.model.resolve().parent.parent / "config.pbtxt"
    stated = int(read_config(config).get("max_batch_size", 0)) if config.is_file() else 0
    return batch_sizes(stated or DEFAULT_MAX_BATCH_SIZE)


def _default_cache(gpu: str, version: str) -> Path:
    """Timing cache for all models: layers of the same shape need no second measurement."""
    return runtime_dir() / "timing" / f"{re.sub('[^A-Za-z0-9]+', '-', gpu)}-{version}.cache"


def _replace(path: Path, content: bytes) -> None:
    """Write a file atomically. Raises ConfigError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)


def _report(out: Path, facts: PlanFacts, *, batched: bool) -> None:
    types = "types as in the model" if facts.precision == "model" else "fp16 where that is faster"
    typer.echo(f"{out}: {facts.plan_bytes / _MIB:.1f} MiB, {types}, for {facts.gpu} and TensorRT {facts.tensorrt} only")
    for profile in facts.profiles:
        tuned = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in profile.optimum.items())
        name = next(iter(profile.largest), "")
        low, high = (profile.smallest[name][0], profile.largest[name][0]) if batched else (0, 0)
        sizes = "" if not batched else f"batch {high}: " if low == high else f"batches {low} to {high}: "
        typer.echo(f"  {sizes}tuned to {tuned}")
    if (out.parent / "model.onnx").is_file():
        typer.echo(
            '  model.onnx is served while it lies beside; to serve the plan, set the parameter engine to "tensorrt"'
        )
