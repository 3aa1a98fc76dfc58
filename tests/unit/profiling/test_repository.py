"""config.pbtxt as `isochrone profile` reads it: with what Triton fills in, which protobuf leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.config.model_config import check_tensors, complete
from backend.engines.protocol import ModelSpecs
from backend.errors import ConfigError
from backend.profiling.repository import read_config
from backend.tensors import Datatype, TensorSpec

X, Y = TensorSpec("x", Datatype.FP32, (-1, 4)), TensorSpec("y", Datatype.FP32, (-1, 4))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("input [{ dims: [4] }]", "config.pbtxt names input '', but the model has 'x'"),
        ('output [{ name: "" dims: [4] }]', "config.pbtxt names output '', but the model has 'y'"),
        ('input [{ name: "x" dims: [4] }, { name: "x" dims: [4] }]', "config.pbtxt names input 'x' twice"),
    ],
)
def test_a_tensor_without_name_or_type_is_refused_in_a_sentence(line: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text(f'backend: "isochrone"\nmax_batch_size: 8\n{line}\n')
    config = read_config(tmp_path / "config.pbtxt")
    complete(config, [X], [Y])
    with pytest.raises(ConfigError) as caught:
        check_tensors(config, ModelSpecs((X,), (Y,)))
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"input [{ data_type: 4294967296 }]", "is not a model configuration: Value out of range: 4294967296"),
        (b"max_batch_size: many", "is not a model configuration: 1:17 : "),
        (b'name: "\xff"', "is not a model configuration: 'utf-8' codec can't decode byte 0xff in position 7"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_a_sentence(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_bytes(content)
    with pytest.raises(ConfigError, match="is not a model configuration") as caught:
        read_config(tmp_path / "config.pbtxt")
    assert says in str(caught.value)
