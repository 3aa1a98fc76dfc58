"""The file of figures on types of machines: written, taken up, refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import ConfigError
from backend.fleet.machine_figures import MEASURED, MachineFigures
from backend.route_process.figures_file import read_figures, write_figures
from tests.fakes.fleets import MACHINE, model_state, snapshot_of


def test_what_was_learned_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    figures = read_figures(path)
    figures.observe(MACHINE.name, [snapshot_of([model_state("m", 10.0, arrivals=MEASURED)])])
    write_figures(path, figures)
    found = read_figures(path).figures("m", MACHINE.name)
    assert found is not None
    assert (found.solo_ns, found.predicted) == (10e6, ())


@pytest.mark.parametrize("content", ["", "[]", '{"version": 9, "types": {}, "predictor": {}}', "[" * 10_000])
def test_another_file_is_refused_and_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "figures.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"--figures .*figures\.json is no file that `isochrone place` wrote"):
        read_figures(path)


def test_a_folder_is_neither_read_nor_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_figures(tmp_path)
    with pytest.raises(ConfigError, match="cannot be written: "):
        write_figures(tmp_path, MachineFigures())
