"""Detection of `max_batch_size` in a config.pbtxt, which Triton's own reading of it does not show."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.trial.completion import states_max_batch_size


@pytest.mark.parametrize(
    "text",
    [
        "max_batch_size: 0",
        "name: 'm'\nmax_batch_size : 8 # rows",
        "max_batch_size:0",
        'input [ { name: "x" dims: [ 4 ] } ] max_batch_size: 1',
        "instance_group < kind: KIND_CPU >; max_batch_size: 0",
    ],
)
def test_max_batch_size_is_set(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text(text)
    assert states_max_batch_size(tmp_path / "config.pbtxt")


@pytest.mark.parametrize(
    "text",
    [
        "",
        'backend: "isochrone"',
        "# max_batch_size: 0",
        'name: "max_batch_size: 0"',
        'name: "\\"max_batch_size: 0"',
        'parameters { key: "max_batch_size" value { string_value: "0" } }',
        "ensemble_scheduling { step { max_batch_size: 3 } }",
        "xmax_batch_size: 3",
    ],
)
def test_max_batch_size_is_not_set(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text(text)
    assert not states_max_batch_size(tmp_path / "config.pbtxt")


def test_a_file_that_cannot_be_read_sets_nothing(tmp_path: Path) -> None:
    assert not states_max_batch_size(tmp_path / "config.pbtxt")
    (tmp_path / "config.pbtxt").write_bytes(b"\xff max_batch_size: 0")
    assert not states_max_batch_size(tmp_path / "config.pbtxt")
