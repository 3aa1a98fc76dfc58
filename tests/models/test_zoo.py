"""The zoo's models: sizes as published, runnable at any batch, answers that depend on the input, same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from zoo.__main__ import app
from zoo.catalog import CONFIG, MODELS, build, is_current, parameter_count, write
from zoo.inputs import random_inputs
from zoo.onnx_header import NotOnnxError, read_inputs, read_metadata
from zoo.roberta import PADDING_ID

Array: TypeAlias = NDArray[Any]
Sessions: TypeAlias = dict[str, ort.InferenceSession]

INPUT_BYTES_MAX = 200_000
OUTPUT_BYTES_MAX = 200_000
SMALLEST = "yolov8n"  # the quickest to write, for tests of files
PUBLISHED_MILLIONS = {
    "resnet50": 25.6,
    "yolov8n": 3.2,
    "roberta_base": 124.6,
    "vit_b16": 86.6,
    "vgg19": 143.7,
    "convnext_base": 88.6,
}

each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All small models, written once; removed at the end, as pytest would keep 180 MB of each of three runs."""
    root = tmp_path_factory.mktemp("repository")
    for name in MODELS:
        write(name, "small", root)
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def sessions(repository: Path) -> Sessions:
    """All small models, loaded once."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return {
        name: ort.InferenceSession(model_file(repository, name), options, providers=["CPUExecutionProvider"])
        for name in MODELS
    }


def model_file(repository: Path, name: str) -> Path:
    return repository / name / "1" / "model.onnx"


@each_model
def test_full_model_has_the_published_number_of_parameters(name: str) -> None:
    count = parameter_count(build(name, "full", shapes_only=True))
    assert count == MODELS[name].parameters_published
    assert round(count / 1e6, 1) == PUBLISHED_MILLIONS[name]


def test_counting_by_shapes_agrees_with_counting_the_weights(repository: Path) -> None:
    written = onnx.load(model_file(repository, "resnet50"))
    assert parameter_count(written) == parameter_count(build("resnet50", "small", shapes_only=True))


@each_model
def test_full_and_small_share_their_operators(name: str) -> None:
    operators = [
        {node.op_type for node in build(name, scale, shapes_only=True).graph.node} for scale in ("full", "small")
    ]
    assert operators[0] == operators[1]


@each_model
def test_small_model_answers_each_row_by_itself(name: str, sessions: Sessions) -> None:
    session = sessions[name]
    inputs = random_inputs(session.get_inputs(), 3, seed=7)
    together = session.run(None, inputs)
    for row in range(3):
        alone = session.run(None, {key: value[row : row + 1] for key, value in inputs.items()})
        for one, all_rows in zip(alone, together, strict=True):
            assert np.isfinite(all_rows).all()
            assert_close(all_rows[row : row + 1], one)
    for answer in together:
        size = float(np.abs(answer).mean())
        assert float(np.abs(answer[0] - answer[1]).mean()) > 0.01 * size
        assert float(np.abs(answer[1] - answer[2]).mean()) > 0.01 * size


def assert_close(actual: Array, expected: Array) -> None:
    """Relative to the answer's size: an element that happens to be near zero has no relative precision."""
    assert float(np.abs(actual - expected).max()) <= 1e-4 * float(np.abs(expected).max())


@each_model
def test_one_request_is_small(name: str, sessions: Sessions) -> None:
    session = sessions[name]
    inputs = random_inputs(session.get_inputs(), 1, seed=0)
    assert sum(value.nbytes for value in inputs.values()) <= INPUT_BYTES_MAX
    assert sum(value.nbytes for value in session.run(None, inputs)) <= OUTPUT_BYTES_MAX


@each_model
def test_first_dimension_is_symbolic(name: str, sessions: Sessions) -> None:
    session = sessions[name]
    for value in [*session.get_inputs(), *session.get_outputs()]:
        assert value.shape[0] == "batch"
        assert all(isinstance(size, int) for size in value.shape[1:])


@each_model
def test_model_passes_the_onnx_checker(name: str, repository: Path) -> None:
    onnx.checker.check_model(model_file(repository, name), full_check=True)


def test_inputs_are_seeded_and_the_same_from_file_and_session(repository: Path, sessions: Sessions) -> None:
    path = model_file(repository, "roberta_base")
    from_file = random_inputs(path, 4, seed=3)
    from_session = random_inputs(sessions["roberta_base"].get_inputs(), 4, seed=3)
    other = random_inputs(path, 4, seed=4)
    assert from_file.keys() == from_session.keys() == {"input_ids", "attention_mask"}
    for key, value in from_file.items():
        np.testing.assert_array_equal(value, from_session[key])
        assert not np.array_equal(value, other[key])


def test_random_text_is_masked_where_it_is_padded(repository: Path) -> None:
    inputs = random_inputs(model_file(repository, "roberta_base"), 8, seed=1)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert ids.dtype == mask.dtype == np.int64
    assert ids.min() >= 0
    assert ids.max() < 8_192
    np.testing.assert_array_equal(mask == 0, ids == PADDING_ID)
    assert 0 < (mask == 0).sum() < mask.size // 2


def test_padded_tokens_do_not_change_the_others(sessions: Sessions) -> None:
    session = sessions["roberta_base"]
    inputs = random_inputs(session.get_inputs(), 1, seed=2)
    inputs["attention_mask"][:, 40:] = 0
    before = session.run(["pooler_output"], inputs)[0]
    inputs["input_ids"][:, 40:] = 9
    assert_close(session.run(["pooler_output"], inputs)[0], before)


def test_current_file_is_kept_and_any_other_replaced(repository: Path, tmp_path: Path) -> None:
    path = model_file(tmp_path, SMALLEST)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x07not a model")
    assert not is_current(SMALLEST, "small", tmp_path)

    assert write(SMALLEST, "small", tmp_path) == path
    assert is_current(SMALLEST, "small", tmp_path)
    assert not is_current(SMALLEST, "full", tmp_path)
    assert path.read_bytes() == model_file(repository, SMALLEST).read_bytes()  # the same bytes every time
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]

    written_ns = path.stat().st_mtime_ns
    write(SMALLEST, "small", tmp_path)
    assert path.stat().st_mtime_ns == written_ns


def test_missing_config_is_written_and_a_present_one_kept(repository: Path) -> None:
    config = repository / SMALLEST / "config.pbtxt"
    assert config.read_text() == CONFIG
    config.write_text("# mine\n")
    write(SMALLEST, "small", repository)
    assert config.read_text() == "# mine\n"


def test_the_header_agrees_with_onnx(repository: Path) -> None:
    path = model_file(repository, "roberta_base")
    model = onnx.load(path)
    assert read_metadata(path) == {entry.key: entry.value for entry in model.metadata_props}
    assert read_inputs(path) == list(model.graph.input)


@pytest.mark.parametrize("content", [b"\x3a\x7f", b"\x80", b"\x07", b"\xff" * 12])
def test_the_header_refuses_what_is_not_onnx(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(NotOnnxError):
        read_metadata(path)


def test_command_prints_one_line_per_model(repository: Path) -> None:
    names = ["yolov8n", "resnet50"]
    chosen = [word for name in names for word in ("--model", name)]
    result = CliRunner().invoke(app, ["--scale", "small", "--repository", str(repository), *chosen])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "small"] for name in names]
    assert all(line.endswith("(already there)") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--scale", "tiny"], "Unknown scale 'tiny': choose from full, small.\n"),
        (["--model", "bert"], f"Unknown model 'bert': choose from {', '.join(MODELS)}.\n"),
    ],
)
def test_command_names_what_is_allowed(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*arguments, "--repository", str(tmp_path)])
    assert result.exit_code == 2
    assert result.output == sentence


def test_command_explains_a_place_it_cannot_write(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    result = CliRunner().invoke(app, ["--repository", str(blocker), "--model", "yolov8n"])
    assert result.exit_code == 2
    assert result.output.startswith("Cannot write yolov8n to ")
