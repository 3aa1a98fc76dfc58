"""Facts about a plan in a file beside it, `model.plan.json`, which is read without TensorRT or a GPU."""

from __future__ import annotations

from pathlib import Path

import msgspec

from backend.engines.tensorrt.plan_runtime import OptimizationProfile, PlanTensor
from backend.errors import ConfigError
from predictor.bounded_file import read_at_most
from profiler.host import sha256_of

SCHEMA = 1
_BYTES_MAX = 1 << 22


class PlanFacts(msgspec.Struct, frozen=True):
    """Facts about one plan. plan_bytes: its size. precision: "model" or "fp16", see `isochrone build`."""

    schema: int
    plan_bytes: int
    tensorrt: str
    gpu: str
    compute_capability: str
    precision: str
    onnx_sha256: str
    tensors: tuple[PlanTensor, ...]
    profiles: tuple[OptimizationProfile, ...]


def facts_path(plan: Path) -> Path:
    """Path of a plan's facts."""
    return plan.with_name(f"{plan.name}.json")


def read_facts(plan: Path) -> PlanFacts | None:
    """Facts about a plan; None without any, or where they describe another file. Raises ConfigError where broken."""
    path = facts_path(plan)
    try:
        facts = msgspec.json.decode(read_at_most(path, _BYTES_MAX), type=PlanFacts)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f"'{path}' does not describe a plan: {error}; build the plan anew or remove the file"
        ) from None
    if facts.schema != SCHEMA or not facts.profiles:
        raise ConfigError(f"'{path}' is of another release; build the plan anew or remove the file")
    return facts if facts.plan_bytes == plan.stat().st_size else None


def graph_of(plan: Path) -> Path | None:
    """ONNX file that the plan was built from, if still beside it. Raises ConfigError as `read_facts`."""
    facts, onnx = read_facts(plan), plan.with_suffix(".onnx")
    return onnx if facts and onnx.is_file() and sha256_of(onnx) == facts.onnx_sha256 else None


def check_facts(facts: PlanFacts, plan: Path, *, tensorrt: str, gpu: str) -> None:
    """Refuse a plan that was built for other software or another GPU. Raises ConfigError naming both."""
    if facts.tensorrt != tensorrt:
        raise ConfigError(
            f"'{plan}' was built with TensorRT {facts.tensorrt}, but this is TensorRT {tensorrt}; "
            "build it anew with `isochrone build`"
        )
    if facts.gpu != gpu:
        raise ConfigError(
            f"'{plan}' was built on {facts.gpu}, but this GPU is {gpu}; build it anew here with `isochrone build`"
        )
