"""Models that `isochrone emulate` writes: they load, and their figures are those of the published data."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from backend.commands.emulate import emulate
from backend.engines.emulated.catalogue import A100, BATCH_SIZES
from backend.engines.emulated.spec import read_spec
from backend.errors import ConfigError

DATA = Path(__file__).resolve().parents[4] / "data" / "parvagpu"


def test_every_model_of_the_catalogue_is_a_valid_specification(tmp_path: Path) -> None:
    emulate("a100", ",".join(A100), tmp_path, seed=3)

    devices = {read_spec(tmp_path / name / "1" / "model.emulated.json").device for name in A100}
    assert [(device.name, device.seed) for device in devices] == [("emulated-a100-0", 3)]


@pytest.mark.parametrize("model", A100)
def test_solo_latencies_of_the_catalogue_are_the_published_ones(model: str) -> None:
    with (DATA / f"{model}.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if (row["Mig instance"], row["Workload Number"]) == ("7", "1")]
    throughputs = {int(row["Batch size"]): float(row["Throughput"]) for row in rows}

    assert A100[model].solo_us == tuple(round(size / throughputs[size] * 1e6) for size in BATCH_SIZES)


@pytest.mark.parametrize(
    ("gpu", "models", "sentence"),
    [
        ("l4", "resnet50", "--gpu is 'l4', of which no latencies are known here; there are a100"),
        ("a100", "resnet50,gpt", "--models has 'gpt', but of a100 there are bert, "),
    ],
)
def test_unknown_gpu_or_model_is_refused_and_nothing_is_written(
    tmp_path: Path, gpu: str, models: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        emulate(gpu, models, tmp_path, seed=0)

    assert not list(tmp_path.iterdir())


def test_models_that_exist_are_not_overwritten(tmp_path: Path) -> None:
    emulate("a100", "bert", tmp_path, seed=0)

    with pytest.raises(ConfigError, match="exists already"):
        emulate("a100", "resnet50,bert", tmp_path, seed=1)
    assert not (tmp_path / "resnet50").exists()
