"""Kernels counted in a graph: one per operator that an engine neither folds nor fuses."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from profiler.feature_source import load_of
from profiler.kernel_count import kernel_count
from profiler.peaks import Peaks
from profiler.work import GraphWork

WEIGHTS = {"w", "b", "scale"}


def node(operator: str, inputs: str, output: str) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output])


def test_a_convolution_with_its_normalisation_and_activation_is_one() -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("BatchNormalization", "a scale b b b", "n"),
        node("Relu", "n", "r"),
        node("MaxPool", "r", "y"),
    ]
    assert kernel_count(nodes, WEIGHTS) == 2


def test_a_residual_is_added_in_the_kernel_before_it() -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Conv", "a w", "c"),
        node("Add", "c x", "s"),
        node("Relu", "s", "y"),
    ]
    assert kernel_count(nodes, WEIGHTS) == 2


def test_what_two_read_is_fused_into_none() -> None:
    nodes = [node("MatMul", "x w", "a"), node("Relu", "a", "r"), node("Softmax", "a", "s")]
    assert kernel_count(nodes, WEIGHTS) == 3


def test_a_pointwise_operator_of_an_input_is_a_kernel() -> None:
    assert kernel_count([node("Relu", "x", "y")], WEIGHTS) == 1


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Constant", [], ["c"]), node("Mul", "c w", "v"), node("Conv", "x v", "y")],
        [node("Shape", "x", "s"), node("Gather", "s w", "g"), node("Reshape", "x g", "r"), node("Conv", "r w", "y")],
        [node("Conv", "x w", "a"), node("Reshape", "a w", "r"), node("Relu", "r", "y")],
    ],
    ids=["constants are folded", "shapes are followed on the host", "a view stands between"],
)
def test_only_the_convolution_counts(nodes: list[onnx.NodeProto]) -> None:
    assert kernel_count(nodes, WEIGHTS) == 1


def test_random_values_have_no_input_and_are_a_kernel() -> None:
    assert kernel_count([helper.make_node("RandomNormal", [], ["y"], shape=[2])], WEIGHTS) == 1


@pytest.mark.parametrize(("estimated", "kernel_ns"), [(True, 25_000), (False, 0)])
def test_a_gpu_s_mean_kernel_is_the_run_over_their_number_and_a_core_has_none(
    *, estimated: bool, kernel_ns: int
) -> None:
    peaks = Peaks(1e12, 1e12, 1e11, 1 << 20, estimated=estimated)
    assert load_of(GraphWork(10**6, 10**6, 10**6, kernels=40), 1_000_000, peaks).kernel_ns == kernel_ns
    assert load_of(GraphWork(10**6, 10**6, 10**6), 1_000_000, peaks).kernel_ns == 0
