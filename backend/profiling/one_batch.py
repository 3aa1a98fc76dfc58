"""Runs one batch of a model between CUDA's marks for profilers: `python -m backend.profiling.one_batch DIRECTORY SIZE`.

For `profiler.nsight`, whose `ncu` starts it. The engine is opened in this process, wherever it would serve.
"""

from __future__ import annotations

import sys
from pathlib import Path

from backend.device.cuda import profiled
from backend.engines.loading import load_engine
from backend.errors import ConfigError, IsochroneError
from backend.model_process.load_profile import inputs_of, timed_run
from backend.profiling.repository import ModelVersion, read_config, served_model


def run_one(directory: Path, batch_size: int) -> None:
    """Runs a batch to warm up and one to be counted. directory: the model's version. Raises IsochroneError."""
    folder = directory.parent
    version = ModelVersion(folder.name, directory.name, directory, read_config(folder / "config.pbtxt"))
    config, trial = served_model(version)
    inputs = inputs_of(config, trial)
    if inputs is None:
        raise ConfigError(trial.why)
    if config.device_id is None:
        raise ConfigError(f"model '{config.name}' runs on the CPU, where there is nothing for Nsight Compute to count")
    engine = load_engine(config.model_file, config.options(1))
    try:
        timed_run(config, engine, inputs, batch_size)
        with profiled(config.device_id):
            timed_run(config, engine, inputs, batch_size)
    finally:
        engine.close()


def main(arguments: list[str]) -> int:
    """Returns the exit code; an error is one sentence in the last line of stderr."""
    try:
        run_one(Path(arguments[0]), int(arguments[1]))
    except IsochroneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
