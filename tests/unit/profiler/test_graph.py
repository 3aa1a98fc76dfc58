"""Work counted in ONNX graphs, here and in a child process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import profiler.child as child_module
from profiler import graph
from profiler.child import ChildError
from profiler.graph import graph_work
from profiler.work import GraphWork, work_in_child
from tests.fakes.graphs import Array, Shape, ones, write_mlp, write_model


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    return write_mlp(tmp_path)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_gemm_and_an_elementwise_operator(mlp: Path, size: int) -> None:
    weight_bytes = 4 * (10 * 16 + 10)
    # x read, h written and read, y written
    moved = 4 * size * (16 + 10 + 10 + 10)
    assert graph_work(mlp, size) == GraphWork(
        2 * size * 10 * 16 + size * 10, weight_bytes + moved, weight_bytes, kernels=1
    )


@pytest.mark.parametrize("size", [1, 3])
def test_a_convolution_counts_its_multiply_adds(tmp_path: Path, size: int) -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])
    weights = {"w": ones(4, 3, 3, 3), "b": ones(4)}
    path = write_model(tmp_path / "m.onnx", [node], {"x": [None, 3, 8, 8]}, {"y": None}, weights)
    weight_bytes = 4 * (4 * 27 + 4)
    assert graph_work(path, size) == GraphWork(
        2 * size * 4 * 64 * 27, weight_bytes + 4 * size * 64 * (3 + 4), weight_bytes, kernels=1
    )


def test_grouped_convolution_has_fewer_multiplications(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4)
    path = write_model(tmp_path / "m.onnx", [node], {"x": ["n", 4, 8, 8]}, {"y": None}, {"w": ones(4, 1, 3, 3)})
    assert graph_work(path, 1).operations == 2 * 4 * 36 * 9


def test_a_batched_matmul_counts_its_multiply_adds(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    inputs: dict[str, Shape] = {"a": ["n", 4, 8, 16], "b": ["n", 4, 16, 8]}
    path = write_model(tmp_path / "m.onnx", [node], inputs, {"c": None})
    assert graph_work(path, 5) == GraphWork(2 * 5 * 4 * 8 * 8 * 16, 4 * 5 * (512 + 512 + 256), 0, kernels=1)


@pytest.mark.parametrize(
    ("node", "inputs", "weights", "operations"),
    [
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
            {"x": ["n", 3, 4, 4]},
            {"w": ones(3, 5, 2, 2)},
            2 * 3 * 16 * 5 * 4,
        ),
        (
            helper.make_node("Einsum", ["x", "z"], ["y"], equation="bhid, bhjd -> bhij"),
            {"x": ["n", 2, 5, 4], "z": ["n", 2, 7, 4]},
            {},
            2 * 2 * 5 * 7 * 4,
        ),
        (
            helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=6),
            {"x": [9, 1, 4]},
            {"w": ones(1, 24, 4), "r": ones(1, 24, 6)},
            2 * 9 * (24 * 4 + 24 * 6),
        ),
        (helper.make_node("GlobalAveragePool", ["x"], ["y"]), {"x": ["n", 3, 4, 4]}, {}, 48),
        (helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0]), {"x": ["n", 3]}, {}, 0),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_operations_of_one_operator(
    tmp_path: Path,
    node: onnx.NodeProto,
    inputs: dict[str, Shape],
    weights: dict[str, Array],
    operations: int,
) -> None:
    work = graph_work(write_model(tmp_path / "m.onnx", [node], inputs, {"y": None}, weights), 1)
    assert (work.operations, work.complete) == (operations, True)


def test_attention_counts_both_products() -> None:
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=2, kv_num_heads=2)
    shapes = {"q": [1, 5, 8], "k": [1, 7, 8], "v": [1, 7, 8]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "test", values, [y]), opset_imports=[helper.make_opsetid("", 23)]
    )
    assert graph.count_work(model, 1).operations == 2 * (5 * 7 * 8) * 2


def test_a_table_that_is_looked_up_counts_the_rows_read(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    path = write_model(
        tmp_path / "m.onnx",
        [node],
        {"ids": ["n", 5]},
        {"y": None},
        {"table": ones(1000, 8)},
        {"ids": TensorProto.INT64},
    )
    assert graph_work(path, 2) == GraphWork(0, 2 * 5 * (32 + 8 + 32), 32_000, kernels=1)


def test_a_view_moves_nothing(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "to"], ["v"]), helper.make_node("Relu", ["v"], ["y"])]
    weights = {"to": np.array([0, -1], np.int64)}
    path = write_model(tmp_path / "m.onnx", nodes, {"x": ["n", 4, 4]}, {"y": None}, weights)
    assert graph_work(path, 3) == GraphWork(48, 4 * (48 + 48) + 16, 16, kernels=1)


@pytest.mark.parametrize("size", [2, 3, 8, 64])
def test_work_is_affine_in_the_batch_size(mlp: Path, size: int) -> None:
    first, second, other = (graph_work(mlp, n) for n in (1, 2, size))
    for field in ("operations", "bytes_moved", "weight_bytes"):
        low, high = getattr(first, field), getattr(second, field)
        assert getattr(other, field) == low + (size - 1) * (high - low)


def test_a_fixed_batch_stays_and_other_unknown_dimensions_count_one(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    fixed = write_model(tmp_path / "fixed.onnx", [node], {"x": [1, 6]}, {"y": [1, 6]})
    assert graph_work(fixed, 8).operations == 6
    loose = write_model(tmp_path / "loose.onnx", [node], {"x": ["n", "length", 6]}, {"y": None})
    assert graph_work(loose, 8).operations == 8 * 6


def test_stale_shapes_in_the_file_do_not_count(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 6]}, {"y": [1, 6]})
    assert graph_work(path, 4).operations == 24


def test_unknown_shapes_count_what_is_known(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Strange", ["h"], ["s"], domain="elsewhere"),
        helper.make_node("NonZero", ["h"], ["z"]),
        helper.make_node("MatMul", ["s", "w"], ["y"]),
    ]
    path = write_model(
        tmp_path / "m.onnx", nodes, {"x": ["n", 6]}, {"y": None, "z": None}, {"w": ones(6, 6)}, {"z": TensorProto.INT64}
    )
    assert graph_work(path, 2) == GraphWork(12, 4 * (12 + 12 + 12 + 36), 144, complete=False, kernels=4)


def test_bodies_of_control_flow_make_the_count_incomplete(tmp_path: Path) -> None:
    y = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "body", [], [y])
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    path = write_model(
        tmp_path / "m.onnx", [node], {"c": [], "x": ["n", 6]}, {"y": None}, dtypes={"c": TensorProto.BOOL}
    )
    assert not graph_work(path, 2).complete


def test_large_values_are_dropped_and_small_ones_kept(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(ones(64, 64))),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "v"], ["y"]),
    ]
    path = write_model(tmp_path / "m.onnx", nodes, {"x": ["n", 64]}, {"y": None}, {"v": ones(64)})
    assert graph.load_graph(path).ByteSize() < 1000
    assert graph_work(path, 1) == GraphWork(2 * 64 * 64 + 64, 4 * (4096 + 64 + 4 * 64), 4 * (4096 + 64), kernels=1)


def test_an_empty_file_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    with pytest.raises(ValueError, match=r"m\.onnx holds no ONNX graph"):
        graph_work(tmp_path / "m.onnx", 1)


def test_child_answer_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "run_module", lambda *_, **__: b"hello")
    with pytest.raises(ChildError, match="cannot be read"):
        work_in_child(Path("m.onnx"), [1])
