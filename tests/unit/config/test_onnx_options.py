"""ONNX Runtime's options in config.pbtxt: where a library of operators is found, and their effect on a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime_extensions import get_library_path

from backend.config.onnx_options import options_without_effect, read_onnx_options
from backend.engines.onnxruntime.cpu_engine import OnnxCpuEngine
from backend.engines.onnxruntime.session import open_session, read_specs
from backend.engines.protocol import OnnxOptions
from backend.errors import ConfigError
from backend.linux.cpu_topology import cores
from tests.fakes.graphs import write_mlp

LIBRARY = get_library_path()


def write_upper(path: Path) -> Path:
    """A model of one operator that ONNX Runtime does not have."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.STRING, ["n", 1]) for name in ("x", "y"))
    node = helper.make_node("StringUpper", ["x"], ["y"], domain="ai.onnx.contrib")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    graph = helper.make_graph([node], "test", [x], [y])
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def read(file: Path, *libraries: str, **parameters: str) -> OnnxOptions:
    named = {"model_operations": {"op_library_filename": list(libraries)}} if libraries else {}
    values = {name: {"string_value": value} for name, value in parameters.items()}
    return read_onnx_options({**named, "parameters": values}, file)


def refused(config: dict[str, Any], file: Path) -> str:
    with pytest.raises(ConfigError) as error:
        read_onnx_options(config, file)
    return str(error.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "m" / "1").mkdir(parents=True)
    return tmp_path / "m" / "1" / "model.onnx"


def test_nothing_is_asked_by_default(file: Path) -> None:
    assert read_onnx_options({}, file) == OnnxOptions()
    assert OnnxOptions().deviations == ""


def test_a_library_is_beside_the_model_in_its_folder_or_from_the_working_directory(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = [file.parent / "a.so", file.parent.parent / "b.so", tmp_path / "ops" / "c.so"]
    (tmp_path / "ops").mkdir()
    for place in places:
        place.touch()
    assert read(file, "a.so", "b.so", "ops/c.so", str(places[2])).op_libraries == (*map(str, places), str(places[2]))


def test_a_bare_name_that_is_no_file_is_the_loaders(file: Path) -> None:
    assert read(file, "libops.so").op_libraries == ("libops.so",)


def test_a_library_that_is_not_there(file: Path) -> None:
    named = {"model_operations": {"op_library_filename": ["ops/none.so"]}}
    assert refused(named, file) == (
        "op_library_filename in model_operations is 'ops/none.so', but there is no such file in "
        f"'{file.parent}', '{file.parent.parent}', '{Path.cwd()}'"
    )
    named = {"model_operations": {"op_library_filename": ["/none.so"]}}
    assert refused(named, file).endswith("is '/none.so', but there is no such file")


def test_memory_and_optimisations(file: Path) -> None:
    read_options = read(file, enable_mem_arena="0", enable_mem_pattern="false")
    assert read_options == OnnxOptions(memory_arena=False, memory_pattern=False)
    leveled = read_onnx_options({"optimization": {"graph": {"level": 2}}}, file)
    assert leveled == OnnxOptions(graph_level=2)
    assert leveled.deviations == ", graph level 2"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"optimization": {"graph": {"level": 3}}}, "optimization graph level is 3; it must be -1 (basic"),
        (
            {"parameters": {"enable_mem_arena": {"string_value": "yes"}}},
            'parameter \'enable_mem_arena\' is "yes"; it must be "0" or "1"',
        ),
    ],
)
def test_an_option_that_cannot_be_read_is_refused(config: dict[str, Any], says: str, file: Path) -> None:
    assert refused(config, file).startswith(says)


def test_options_that_another_engine_does_not_know_are_told() -> None:
    asked = OnnxOptions(graph_level=1, memory_arena=False, memory_pattern=False)
    assert options_without_effect(asked, "onnxruntime") == options_without_effect(OnnxOptions(), "tensorrt") == []
    told = options_without_effect(asked, "tensorrt")
    assert len(told) == 3
    assert told[1] == (
        "parameter 'enable_mem_arena' has no effect: it is for ONNX Runtime, but the engine of this model is tensorrt; "
        "leave it out"
    )


def test_operators_of_a_library(file: Path) -> None:
    asked = OnnxOptions(op_libraries=(LIBRARY,))
    specs = read_specs(write_upper(file), asked)
    assert [(spec.name, spec.shape) for spec in (*specs.inputs, *specs.outputs)] == [("x", (-1, 1)), ("y", (-1, 1))]
    for lane in (cores()[:1], cores()[:2]):
        engine = OnnxCpuEngine(file, [lane], asked)
        ran = engine.run(0, {"x": [np.array([["ab"], ["c"]], object)]}, ["y"])
        assert ran.outputs[0].tolist() == [["AB"], ["C"]]
        engine.close()


@pytest.mark.parametrize("libraries", [(), (LIBRARY,)])
def test_an_operator_that_no_library_has(libraries: tuple[str, ...], file: Path) -> None:
    write_upper(file)
    if libraries:
        file.write_bytes(file.read_bytes().replace(b"StringUpper", b"StringOther"))
    with pytest.raises(ConfigError) as error:
        read_specs(file, OnnxOptions(op_libraries=libraries))
    operator, nor = ("StringOther", f", nor of '{LIBRARY}'") if libraries else ("StringUpper", "")
    assert str(error.value) == (
        f"'{file}' has the operator ai.onnx.contrib:{operator}, which is not one of ONNX Runtime "
        f"{onnxruntime.__version__}{nor}; name the library that has it in "
        'config.pbtxt: model_operations { op_library_filename: "FILE" }'
    )


def test_a_library_that_is_none(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"the custom operators of op_library_filename 'libops.so' cannot be had: .*"):
        open_session(write_mlp(file.parent), onnx_options=OnnxOptions(op_libraries=("libops.so",)))


def test_a_session_is_opened_as_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[onnxruntime.SessionOptions] = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda _, options, **__: seen.append(options))
    path = write_mlp(file.parent)
    open_session(path)
    open_session(path, onnx_options=OnnxOptions(graph_level=-1, memory_arena=False, memory_pattern=False))
    levels = onnxruntime.GraphOptimizationLevel
    assert [(s.graph_optimization_level, s.enable_cpu_mem_arena, s.enable_mem_pattern) for s in seen] == [
        (levels.ORT_ENABLE_ALL, True, True),
        (levels.ORT_ENABLE_BASIC, False, False),
    ]
