"""`python -m benchmarks.emulated.stock FROM TO`: emulated models behind stock Triton's Python backend and batcher."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from backend.engines.emulated.spec import NAME, TensorJson, read_spec
from backend.errors import ConfigError
from benchmarks.harness.command import one_sentence_errors

_MODEL = Path(__file__).with_name("stock_model.py")
INSTANCES_MAX = 64


def write_stock_repository(
    source: Path, repository: Path, instances: int = 1, batching: str = "dynamic_batching {}"
) -> list[str]:
    """Write each emulated model of `source` as a blocking one, of that many instances. Returns their names.

    Each instance has a lane of its own in the engine process, as it has a thread in Triton. batching: in config.pbtxt's
    words. Raises ConfigError where there is no emulated model.
    """
    if not 1 <= instances <= INSTANCES_MAX:
        raise ConfigError(f"instances is {instances}, but must be from 1 to {INSTANCES_MAX}")
    files = sorted(source.glob(f"*/1/{NAME}"))
    if not files:
        raise ConfigError(f"'{source}' has no emulated model; write some with `isochrone emulate`")
    for index, file in enumerate(files):
        spec, folder = read_spec(file), repository / file.parent.parent.name
        lines = (
            'backend: "python"',
            f"max_batch_size: {spec.max_batch_size}",
            *_tensors("input", spec.inputs),
            *_tensors("output", spec.outputs),
            batching if spec.max_batch_size else "",
            f"instance_group [ {{ kind: KIND_CPU count: {instances} }} ]",
            f'parameters {{ key: "first_lane" value {{ string_value: "{index * instances}" }} }}',
            "",
        )
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text("\n".join(lines))
        shutil.copy(file, folder / "1" / NAME)
        shutil.copy(_MODEL, folder / "1" / "model.py")
    return [file.parent.parent.name for file in files]


def _tensors(kind: str, tensors: Sequence[TensorJson]) -> list[str]:
    return [
        f'{kind} [ {{ name: "{t.name}" data_type: {t.datatype} dims: [ {", ".join(map(str, t.shape))} ] }} ]'
        for t in tensors
    ]


def main(
    source: Annotated[Path, typer.Argument(help="Repository of emulated models.")],
    repository: Annotated[Path, typer.Argument(help="Repository to write.")],
    instances: Annotated[int, typer.Option(help="Of each model.")] = 1,
) -> None:
    """Write emulated models as stock Triton's, blocking."""
    with one_sentence_errors("benchmarks.emulated.stock"):
        print("written for stock Triton:", ", ".join(write_stock_repository(source, repository, instances)))


if __name__ == "__main__":
    typer.run(main)
