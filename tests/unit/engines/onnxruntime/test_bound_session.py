"""The real ONNX Runtime with its inputs and outputs bound to memory: on the CPU, as it would be on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from onnx import TensorProto, helper

from backend.engines.gpu.device import Address, Stream
from backend.engines.gpu.lane_streams import DeviceTensor, array_at
from backend.engines.onnxruntime.bound_session import BoundSession
from backend.engines.onnxruntime.cuda_loading import open_cuda_session, open_onnx_on_gpu
from backend.engines.onnxruntime.session import CPU
from backend.engines.protocol import EngineOptions
from backend.errors import ConfigError, EngineError
from backend.tensors import BY_CONFIG
from tests.fakes.graphs import ones, write_mlp, write_model

Tensor = npt.NDArray[Any]


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[BoundSession]:
    session = BoundSession(write_mlp(tmp_path), [CPU], "cpu", 0)
    yield session
    session.close()


def placed(name: str, array: Tensor) -> DeviceTensor:
    datatype = next(d for d in BY_CONFIG.values() if d.numpy == array.dtype)
    return DeviceTensor(name, datatype, array.shape, Address(array.ctypes.data))


def results(session: BoundSession, outputs: Sequence[str]) -> list[Tensor]:
    return [array_at(place.address, place).copy() for place in session.run(outputs)]


def test_tensors_are_read_and_written_where_they_lie(bound: BoundSession) -> None:
    assert bound.on_device == {"x"}
    for count in (2, 5, 1):  # the outputs' memory grows and shrinks with the batch
        x = np.full((count, 16), count, np.float32)
        bound.bind([placed("x", x)], {})
        [y] = results(bound, ["y"])
        assert y.tolist() == [[16.0 * count + 1] * 10] * count


def test_data_may_come_after_the_binding(bound: BoundSession) -> None:
    x = np.zeros((1, 16), np.float32)
    bound.bind([placed("x", x)], {})
    x[...] = 1.0
    assert results(bound, ["y"])[0][0, 0] == 17.0


def test_an_input_in_host_memory(bound: BoundSession) -> None:
    bound.bind([], {"x": ones(32, 2)[::2].T.copy()[:, :16]})
    assert results(bound, ["y"])[0].tolist() == [[17.0] * 10] * 2


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ({}, r"^the model's run failed: "),
        ({"x": ones(1, 16).astype(np.float64)}, r"^the model's run failed: .*tensor\(double\)"),
        ({"x": ones(1, 3)}, r"^the model's run failed: .*"),
        ({"x": ones(1, 16), "z": ones(1)}, r"^the model's run failed: .*"),
    ],
)
def test_a_run_that_cannot_be_leaves_the_session_in_order(
    places: Mapping[str, Tensor], says: str, bound: BoundSession
) -> None:
    with pytest.raises(EngineError, match=says):
        bound.bind([placed(name, array) for name, array in places.items()], {})
        bound.run(["y"])
    x = ones(1, 16)
    bound.bind([placed("x", x)], {})
    assert results(bound, ["y"])[0][0, 0] == 17.0


def test_an_output_whose_shape_the_data_decide(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["where"])]
    path = write_model(tmp_path / "m.onnx", nodes, {"x": ["n"]}, {"where": [1, "found"]}, dtypes={"where": 7})
    session = BoundSession(path, [CPU], "cpu", 0)
    for x in (np.array([0, 3, 0, 5], np.float32), np.zeros(2, np.float32)):
        session.bind([placed("x", x)], {})
        [where] = results(session, ["where"])
        assert where.tolist() == [np.flatnonzero(x).tolist()]


def test_a_default_that_one_batch_overrides_holds_for_the_next(tmp_path: Path) -> None:
    """`bias` is an input with a default, which ONNX Runtime lists apart."""
    nodes = [helper.make_node("Add", ["x", "bias"], ["y"])]
    weights = {"bias": ones(1)}
    path = write_model(tmp_path / "m.onnx", nodes, {"x": ["n"], "bias": [1]}, {"y": ["n"]}, weights)
    session = BoundSession(path, [CPU], "cpu", 0)
    assert [(spec.name, spec.optional) for spec in session.inputs] == [("x", False), ("bias", True)]
    assert session.on_device == {"x"}
    x = ones(2)
    for host, expected in (({"bias": np.full(1, 9, np.float32)}, 10.0), ({}, 2.0)):
        session.bind([placed("x", x)], host)
        assert results(session, ["y"])[0].tolist() == [expected] * 2


@pytest.mark.parametrize("kind", ["FLOAT16", "FLOAT", "DOUBLE", "INT8", "INT32", "INT64", "UINT8", "BOOL"])
def test_each_type_goes_through_as_it_is(kind: str, tmp_path: Path) -> None:
    dtypes = dict.fromkeys(("x", "y"), int(getattr(TensorProto, kind)))
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    session = BoundSession(
        write_model(tmp_path / "m.onnx", nodes, {"x": ["n", 3]}, {"y": ["n", 3]}, dtypes=dtypes), [CPU], "cpu", 0
    )
    x = np.array([[0, 1, 100], [1, 0, 1]]).astype(helper.tensor_dtype_to_np_dtype(dtypes["x"]))
    session.bind([placed("x", x)], {})
    [y] = results(session, ["y"])
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x)


def test_a_gpu_without_the_cuda_provider(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(
        ConfigError, match=r"^KIND_GPU on GPU 1 needs ONNX Runtime with CUDA, but .* has .*; install onnxruntime-gpu or"
    ):
        open_onnx_on_gpu(write_mlp(tmp_path), EngineOptions(1, 2, 8))


def test_a_cuda_provider_that_does_not_load(tmp_path: Path) -> None:
    """ONNX Runtime goes on with the CPU then, and only warns."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ConfigError, match=r"^KIND_GPU on GPU 0 needs CUDA and cuDNN as ONNX Runtime \S+ was built for"),
    ):
        open_cuda_session(write_mlp(tmp_path), 0, Stream(1))


def test_a_cuda_device_can_be_named() -> None:
    """As `bind_input` and `bind_output` do, which take it as a word."""
    from onnxruntime.capi.onnxruntime_inference_collection import OrtDevice  # noqa: PLC0415 - not public

    device = OrtDevice.make("cuda", 3)
    assert (device.device_type(), device.device_id()) == (OrtDevice.make("cuda", 0).device_type(), 3)
    assert device.device_type() != OrtDevice.make("cpu", 0).device_type()
