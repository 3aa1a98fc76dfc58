"""Model repositories of benchmarks: links to the models, and config.pbtxt files of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.harness.errors import BenchmarkError

MAX_BATCH_SIZE = 8


def model_files(repository: Path, models: Iterable[str]) -> dict[str, Path]:
    """Model → its file. Raises BenchmarkError where one is missing."""
    files = {model: repository / model / "1" / "model.onnx" for model in models}
    if missing := [model for model, file in files.items() if not file.is_file()]:
        raise BenchmarkError(f"no model file for {', '.join(missing)} in '{repository}'; run `make models`")
    return files


def link_models(source: Path, target: Path, models: Iterable[str]) -> dict[str, Path]:
    """Model → its file in `source`; links that are there already stay. Raises BenchmarkError as `model_files`."""
    files = model_files(source, models)
    for model, file in files.items():
        link_files(target / model / "1", [file])
    return files


def link_files(version: Path, files: Iterable[Path]) -> None:
    """Link files in a version's folder, under their names; links that are there already stay."""
    version.mkdir(parents=True, exist_ok=True)
    for file in files:
        link = version / file.name
        if not link.is_symlink():
            link.symlink_to(file.absolute())


def write_configs(repository: Path, parameters: Mapping[str, str], *, kind: str | None = None) -> None:
    """The same for every model in the repository."""
    for model in repository.iterdir():
        write_config(model, parameters, kind=kind)


def write_config(model: Path, parameters: Mapping[str, str], *, kind: str | None = None) -> None:
    """One model's config.pbtxt. kind: of its instances, None: Triton's choice."""
    lines = ['backend: "isochrone"', f"max_batch_size: {MAX_BATCH_SIZE}"]
    lines += [f"instance_group [ {{ kind: {kind} }} ]"] if kind else []
    lines += [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()]
    (model / "config.pbtxt").write_text("\n".join(lines) + "\n")
