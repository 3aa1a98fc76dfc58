"""Model repositories of benchmarks: links to the models, and config.pbtxt files of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.harness.errors import BenchmarkError

MAX_BATCH_SIZE = 8
_TEMP_DIR_CHARS_MAX = 48  # leaves room for the scheduler's socket in the 107 bytes of its path


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
        version = target / model / "1"
        version.mkdir(parents=True, exist_ok=True)
        link = version / "model.onnx"
        if not link.is_symlink():
            link.symlink_to(file.absolute())
    return files


def write_configs(
    repository: Path, parameters: Mapping[str, str], *, backend: str = "isochrone", kind: str | None = None
) -> None:
    """The same for every model in the repository."""
    for model in repository.iterdir():
        write_config(model, parameters, backend=backend, kind=kind)


def write_config(
    model: Path, parameters: Mapping[str, str], *, backend: str = "isochrone", kind: str | None = None
) -> None:
    """One model's config.pbtxt. kind: of its instances, None: Triton's choice."""
    lines = [f'backend: "{backend}"', f"max_batch_size: {MAX_BATCH_SIZE}"]
    lines += [f"instance_group [ {{ kind: {kind} }} ]"] if kind else []
    lines += [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()]
    (model / "config.pbtxt").write_text("\n".join(lines) + "\n")


def short_temporary_folder() -> Path:
    """A new one, where a runtime folder fits in; the caller removes it."""
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="iso-", dir=base if len(base) <= _TEMP_DIR_CHARS_MAX else "/tmp")).resolve()
