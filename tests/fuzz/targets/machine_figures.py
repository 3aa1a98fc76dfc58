"""The file in which `isochrone place` keeps figures of models on types of machines."""

from __future__ import annotations

from math import isfinite

from backend.errors import ConfigError
from backend.fleet.machine_figures import MachineFigures
from backend.route_process.figures_file import read_figures, write_figures
from tests.fuzz.files import file_of

FORMAT = "json"


def check(data: bytes) -> None:
    """Figures that tell of every model and type, and can be kept again; or `ConfigError`."""
    path = file_of("figures.json", data)
    try:
        figures = read_figures(path)
    except ConfigError as error:
        assert str(error)
        return
    _ask(figures)
    write_figures(path, figures)
    read_figures(path)


def _ask(figures: MachineFigures) -> None:
    for model in ("resnet50", "vgg19", "another"):
        for machine in ("A100", "T4", "another"):
            found = figures.figures(model, machine)
            assert found is None or (found.solo_ns >= 1.0 and all(isfinite(value) for value in found[:4]))
