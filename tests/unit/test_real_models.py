"""The page of real models has what the catalogue has."""

from __future__ import annotations

from pathlib import Path

from tests.real_models.catalog import REAL_MODELS

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "real-models.md"


def test_the_page_lists_each_model_with_its_licence() -> None:
    page = PAGE.read_text()
    for model in REAL_MODELS:
        wheel = model.wheel
        assert f"| {model.name} | {model.shows} | {wheel.project} {wheel.version} | {wheel.licence} |" in page


def test_requests_of_a_model_have_equal_shapes_and_other_values() -> None:
    for model in REAL_MODELS:
        one, other = model.ask(0), model.ask(1)
        assert {name: array.shape for name, array in one.items()} == {
            name: array.shape for name, array in other.items()
        }
        assert any((one[name] != other[name]).any() for name in one)
