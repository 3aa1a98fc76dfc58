"""Profiles, batch sizes and facts of a plan: no GPU, no TensorRT."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from backend.engines.gpu.device import GpuMemory
from backend.engines.tensorrt.plan_facts import (
    PlanFacts,
    check_facts,
    facts_path,
    read_facts,
)
from backend.engines.tensorrt.plan_layout import choose_profile, largest_batch, largest_shapes
from backend.engines.tensorrt.plan_memory import MemoryBudget, check_budget
from backend.engines.tensorrt.plan_runtime import OptimizationProfile, PlanTensor
from backend.errors import ConfigError, EngineError
from backend.tensors import Datatype
from tests.fakes.fake_gpu import tensor

WIDE = OptimizationProfile({"x": (1, 3)}, {"x": (64, 3)}, {"x": (64, 3)})
SMALL = OptimizationProfile({"x": (1, 3)}, {"x": (4, 3)}, {"x": (4, 3)})
LARGE = OptimizationProfile({"x": (5, 3)}, {"x": (8, 3)}, {"x": (8, 3)})


@pytest.mark.parametrize(
    ("profiles", "size", "chosen"),
    [
        ([WIDE, SMALL, LARGE], 1, 1),
        ([WIDE, SMALL, LARGE], 4, 1),
        ([WIDE, SMALL, LARGE], 5, 2),
        ([WIDE, SMALL, LARGE], 9, 0),
        ([SMALL, SMALL], 2, 0),
    ],
)
def test_the_tightest_profile_is_chosen(profiles: list[OptimizationProfile], size: int, chosen: int) -> None:
    assert choose_profile(profiles, {"x": (size, 3)}) == chosen


def test_inputs_that_fit_only_apart() -> None:
    profiles = [
        OptimizationProfile({"x": (1, 1), "n": (1, 1)}, {"x": (8, 16), "n": (8, 1)}, {"x": (8, 16), "n": (8, 1)}),
        OptimizationProfile({"x": (1, 17), "n": (1, 2)}, {"x": (8, 64), "n": (8, 2)}, {"x": (8, 64), "n": (8, 2)}),
    ]
    with pytest.raises(
        EngineError, match=r"^no profile of the plan takes these shapes together: 'x' \[2, 9\], 'n' \[2, 2\]$"
    ):
        choose_profile(profiles, {"x": (2, 9), "n": (2, 2)})


def test_a_rank_that_no_profile_has() -> None:
    with pytest.raises(EngineError, match=r"^input 'x' has shape \[2\], which no profile"):
        choose_profile([SMALL], {"x": (2,)})


def test_the_largest_batch() -> None:
    fixed = [tensor("x", (-1, 3), is_input=True), tensor("y", (-1,), is_input=False)]
    assert largest_shapes(LARGE, 6) == {"x": (6, 3)}
    assert largest_shapes(LARGE, 0) == {"x": (8, 3)}
    assert largest_batch(fixed, [SMALL, LARGE]) == 8
    assert (
        largest_batch(
            [tensor("x", (4, 3), is_input=True)], [OptimizationProfile({"x": (4, 3)}, {"x": (4, 3)}, {"x": (4, 3)})]
        )
        == 0
    )


def test_a_budget() -> None:
    memory = GpuMemory(free_bytes=100 << 20, total_bytes=1 << 30)
    check_budget(MemoryBudget(40 << 20, 30 << 20, 2), Path("p"), 1, memory)
    with pytest.raises(ConfigError) as refused:
        check_budget(MemoryBudget(40 << 20, 30 << 20, 3), Path("p"), 1, memory)
    assert str(refused.value) == (
        "'p' needs 130 MiB on GPU 1 (40 MiB of weights and 3 × 30 MiB for its lanes), "
        "where 100 MiB of 1024 MiB are free; use fewer device_lanes, a smaller max_batch_size or another GPU"
    )


FACTS = PlanFacts(
    schema=1,
    plan_bytes=4,
    tensorrt="10.16.1.11",
    gpu="NVIDIA H200",
    compute_capability="9.0",
    precision="model",
    onnx_sha256="0" * 64,
    tensors=(PlanTensor("x", Datatype.FP16, (-1, 3), True), PlanTensor("y", Datatype.BOOL, (-1,), False)),
    profiles=(OptimizationProfile({"x": (1, 3)}, {"x": (8, 3)}, {"x": (8, 3)}),),
)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")
    facts_path(plan).write_bytes(msgspec.json.encode(FACTS))
    return plan


def test_facts_are_read_back(plan: Path) -> None:
    facts = read_facts(plan)
    assert facts == FACTS
    stored = msgspec.json.decode(facts_path(plan).read_bytes())
    assert stored["tensors"] == [
        {"name": "x", "datatype": "TYPE_FP16", "shape": [-1, 3], "is_input": True},
        {"name": "y", "datatype": "TYPE_BOOL", "shape": [-1], "is_input": False},
    ]
    assert stored["profiles"] == [{"smallest": {"x": [1, 3]}, "optimum": {"x": [8, 3]}, "largest": {"x": [8, 3]}}]
    check_facts(facts, plan, tensorrt="10.16.1.11", gpu="NVIDIA H200")


def test_a_plan_of_another_release_or_gpu_names_both(plan: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        check_facts(FACTS, plan, tensorrt="10.5.0", gpu="NVIDIA H200")
    assert str(refused.value) == (
        f"'{plan}' was built with TensorRT 10.16.1.11, but this is TensorRT 10.5.0; "
        "build it anew with `isochrone build`"
    )
    with pytest.raises(ConfigError) as refused:
        check_facts(FACTS, plan, tensorrt="10.16.1.11", gpu="NVIDIA L4")
    assert str(refused.value) == (
        f"'{plan}' was built on NVIDIA H200, but this GPU is NVIDIA L4; build it anew here with `isochrone build`"
    )


def test_facts_of_another_file_are_not_believed(plan: Path) -> None:
    plan.write_bytes(b"another plan")
    assert read_facts(plan) is None
    facts_path(plan).unlink()
    assert read_facts(plan) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "does not describe a plan"),
        (b'{"schema": 1}', "does not describe a plan"),
        (msgspec.json.encode(FACTS).replace(b"TYPE_BOOL", b"TYPE_BF16"), "does not describe a plan"),
        (msgspec.json.encode(msgspec.structs.replace(FACTS, schema=2)), "is of another release"),
        (msgspec.json.encode(msgspec.structs.replace(FACTS, profiles=())), "is of another release"),
    ],
)
def test_broken_facts(content: bytes, says: str, plan: Path) -> None:
    facts_path(plan).write_bytes(content)
    with pytest.raises(ConfigError, match=f"^'.*model.plan.json' {says}"):
        read_facts(plan)
