"""Models that `isochrone emulate` writes: they load, and their figures are those of the published data."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from backend.commands.emulate import emulate
from backend.engines.emulated.catalogue import BATCH_SIZES, emulated_model, model_names, scaled, solo_runs
from backend.engines.emulated.machines import MACHINES, busy_ratio
from backend.engines.emulated.published import MODELS, NVIDIA, PARVAGPU
from backend.engines.emulated.spec import read_spec, read_specs
from backend.errors import ConfigError

DATA = Path(__file__).resolve().parents[4] / "data"
NVIDIA_TABLES = {
    "resnet50": ("ConvNets/triton/resnet50", "avg_ms"),
    "bert-large": ("BERT/triton/large", "infer_ms"),
    "bert-dist6l": ("BERT/triton/dist6l", "infer_ms"),
    "bert-dist4l": ("BERT/triton/dist4l", "infer_ms"),
}


@pytest.mark.parametrize("gpu", MACHINES)
def test_every_model_of_the_catalogue_is_a_valid_specification(tmp_path: Path, gpu: str) -> None:
    emulate(gpu, ",".join(model_names()), tmp_path, seed=3)

    specs = [read_spec(tmp_path / name / "1" / "model.emulated.json") for name in model_names()]
    assert {(spec.device.name, spec.device.seed) for spec in specs} == {(f"emulated-{gpu}-0", 3)}
    assert all(spec.source.startswith("solo_us: ") for spec in specs)


@pytest.mark.parametrize("model", [name for name, model in MODELS.items() if model.source == PARVAGPU])
def test_latencies_after_parvagpu_are_the_published_ones(model: str) -> None:
    with (DATA / "parvagpu" / f"{model.removesuffix('-pytorch')}.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if (row["Mig instance"], row["Workload Number"]) == ("7", "1")]
    throughputs = {int(row["Batch size"]): float(row["Throughput"]) for row in rows}

    assert MODELS[model].solo_us["a100"] == {size: round(size / throughputs[size] * 1e6) for size in BATCH_SIZES}


@pytest.mark.parametrize("model", [name for name, model in MODELS.items() if model.source == NVIDIA])
def test_latencies_after_nvidia_are_the_published_ones(model: str) -> None:
    folder, column = NVIDIA_TABLES[model]
    found: dict[str, dict[int, int]] = {"a100": {}, "v100": {}, "t4": {}}
    with (DATA / "nvidia_deeplearningexamples" / "solo_latency.csv").open() as lines:
        for row in csv.DictReader(lines):
            gpu = next(gpu for gpu in found if gpu.upper() in row["heading"])
            if folder in row["source_file"]:
                found[gpu][int(float(row["batch"]))] = round(float(row[column]) * 1000)

    assert MODELS[model].solo_us == found


def test_what_is_not_published_says_how_it_was_derived() -> None:
    sources = {gpu: emulated_model([gpu], "bert-base")["source"] for gpu in ("a100", "l4")}

    assert (
        "published as 2 × bert-dist6l (batch 1, 8, 16); interpolated as 2 × bert-dist6l (batch 2, 4)" in sources["a100"]
    )
    assert "published as 2 × bert-dist6l, scaled from t4 (batch 1, 8, 16)" in sources["l4"]
    assert solo_runs("t4", "bert-base")[8].solo_us == 2 * MODELS["bert-dist6l"].solo_us["t4"][8]
    assert solo_runs("t4", "bert-large")[2].solo_us == pytest.approx(13700 + (113800 - 13700) / 7)


def test_on_another_gpu_the_busy_part_is_scaled_and_the_rest_stays() -> None:
    run = solo_runs("a100", "vgg16")[4]
    there = solo_runs("v100", "vgg16")[4]

    assert busy_ratio("a100", "v100") == pytest.approx((312 / 125) ** 0.7)
    assert there.busy_share * there.solo_us == pytest.approx(busy_ratio("a100", "v100") * run.busy_share * run.solo_us)
    assert (1 - there.busy_share) * there.solo_us == pytest.approx((1 - run.busy_share) * run.solo_us)
    assert scaled(there, "v100", "v100") == there


@pytest.mark.parametrize(
    ("gpu", "models", "sentence"),
    [
        ("h100", "resnet50", "--gpu is 'h100', but must be one of a100, v100, t4, l4; write a model.emulated.json"),
        ("a100", "resnet50,gpt", "--models has 'gpt', but must have models out of bert-base, bert-dist4l, "),
        ("a100", "", "--models has '', but must have models out of bert-base, "),
    ],
)
def test_unknown_gpu_or_model_is_refused_and_nothing_is_written(
    tmp_path: Path, gpu: str, models: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        emulate(gpu, models, tmp_path, seed=0)

    assert not list(tmp_path.iterdir())


def test_models_that_exist_are_not_overwritten(tmp_path: Path) -> None:
    emulate("a100", "bert-base", tmp_path, seed=0)

    with pytest.raises(ConfigError, match="exists already"):
        emulate("a100", "resnet50,bert-base", tmp_path, seed=1)
    assert not (tmp_path / "resnet50").exists()


def test_the_catalogues_page_has_every_gpu_with_its_constants_and_every_model() -> None:
    page = (DATA.parent / "docs" / "explanation" / "emulated-gpu.md").read_text()

    for name, m in MACHINES.items():
        row = f"| `{name}` | {m.product} | {m.fp16_tflops:g} | {m.memory_gb_per_s:g} | {m.multiprocessors} |"
        assert f"{row} {m.boost_mhz:g} | {m.pcie[0]:g} |" in page
    assert all(f"`{model}`" in page for model in model_names())


def test_model_for_several_gpus_has_each_ones_constants_and_latencies(tmp_path: Path) -> None:
    emulate("a100,t4, a100", "bert-base", tmp_path, seed=0)

    specs = read_specs(tmp_path / "bert-base" / "1" / "model.emulated.json")
    assert [spec.device.name for spec in specs] == ["emulated-a100-0", "emulated-t4-0", "emulated-a100-1"]
    for spec, gpu in zip(specs, ("a100", "t4", "a100"), strict=True):
        runs = solo_runs(gpu, "bert-base")
        assert {b.batch_size: b.solo_us for b in spec.batches} == {s: round(run.solo_us) for s, run in runs.items()}
        assert spec.device.pcie_gb_per_s == MACHINES[gpu].pcie[0]
