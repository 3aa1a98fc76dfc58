"""The user's inputs to profile a model with: an `.npz` with one array per input, of one request."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from backend.config.model_config import ModelConfig
from backend.errors import ConfigError, RequestError
from backend.model_process.load_profile import Inputs
from backend.model_process.request import read_tensor
from backend.tensors import Array


class GivenInputs:
    """Arrays of the file. Raises ConfigError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with np.load(path, allow_pickle=False) as file:
                self._arrays: dict[str, Array] = {name: file[name] for name in file.files}
        except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise ConfigError(f"--inputs {path} cannot be read as an .npz of arrays: {error}") from None

    def of(self, config: ModelConfig) -> Inputs:
        """Inputs of a model as it is served. Raises ConfigError where one is missing, or is not of its form."""
        batching = config.max_batch_size > 0
        found: dict[str, Array] = {}
        for spec in config.inputs:
            if spec.name in self._arrays:
                given = self._arrays[spec.name]
                given = given.astype(object) if spec.datatype.numpy.hasobject else given
                try:
                    found[spec.name] = read_tensor(spec, given, batching)
                except RequestError as error:
                    raise ConfigError(f"--inputs {self._path}: {error}") from None
            elif not spec.optional:
                raise ConfigError(f"--inputs {self._path} has no array '{spec.name}', an input of '{config.name}'")
        return partial(_rows, found)


def _rows(arrays: dict[str, Array], rows: int | None) -> dict[str, Array]:
    """The request's rows, repeated or cut to so many."""
    return {name: a if rows is None else np.resize(a, (rows, *a.shape[1:])) for name, a in arrays.items()}
