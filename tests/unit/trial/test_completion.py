"""Whether a config.pbtxt states `max_batch_size`, which Triton's own reading of it does not tell."""

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
def test_it_is_stated(text: str, tmp_path: Path) -> None:
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
def test_it_is_not_stated(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text(text)
    assert not states_max_batch_size(tmp_path / "config.pbtxt")


def test_a_file_that_cannot_be_read_states_nothing(tmp_path: Path) -> None:
    assert not states_max_batch_size(tmp_path / "config.pbtxt")
    (tmp_path / "config.pbtxt").write_bytes(b"\xff max_batch_size: 0")
    assert not states_max_batch_size(tmp_path / "config.pbtxt")
