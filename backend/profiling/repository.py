"""Finds the models of a Triton model repository and reads their config.pbtxt, without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.config.model_config import ModelConfig, first_gpu, model_file, read_engine_config, read_model_config
from backend.errors import ConfigError
from backend.trial.completion import complete_config, tried
from backend.trial.messages import Trial

BACKEND = "isochrone"


@dataclass(frozen=True)
class ModelVersion:
    """A version directory that Triton would load."""

    model: str
    version: str
    directory: Path
    config: Mapping[str, Any]


def find_versions(repository: Path, models: Sequence[str] = ()) -> tuple[list[ModelVersion], dict[str, str]]:
    """The versions of `models` (default: all of this backend's), and why a model has none that can be read.

    Raises ConfigError where the repository or a name is wrong.
    """
    folders = _folders(repository)
    for name in models:
        if name not in folders:
            known = ", ".join(folders) or "none"
            raise ConfigError(f"--model {name} is not in {repository}, which has {known}")
    found: list[ModelVersion] = []
    failed: dict[str, str] = {}
    for name in dict.fromkeys(models or folders):
        try:
            config = read_config(folders[name] / "config.pbtxt")
            if config.get("backend") == BACKEND:
                found += _versions(name, folders[name], config)
            elif models:
                failed[name] = f"its config.pbtxt names backend '{config.get('backend', '')}', not '{BACKEND}'"
        except ConfigError as error:  # one broken model does not stop the others
            failed[name] = str(error)
    if not found and not failed:
        raise ConfigError(f'--model-repository {repository} holds no model with backend: "{BACKEND}"')
    return found, failed


def served_model(version: ModelVersion) -> tuple[ModelConfig, Trial]:
    """The configuration as the backend would serve it, and inputs that the model runs on. Raises ConfigError."""
    config = {**version.config, "name": version.model}
    file = model_file(version.directory, config)
    model, _ = complete_config(config, file)
    engine = read_engine_config(config, version.version, file, first_gpu(config))
    return read_model_config(engine, config, model), tried(config, file, model, batch=False)


def read_config(path: Path) -> dict[str, Any]:
    """A config.pbtxt as a dictionary with Triton's field names. Raises ConfigError."""
    try:
        from google.protobuf import json_format, text_format  # noqa: PLC0415 - only this command needs them
        from tritonclient.grpc import model_config_pb2  # noqa: PLC0415
    except ImportError:
        raise ConfigError("reading config.pbtxt needs tritonclient; pip install 'isochrone[client]'") from None
    try:
        message = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}") from None
    except (text_format.ParseError, ValueError) as error:  # of bytes that are no text, numbers too large for an enum
        raise ConfigError(f"'{path}' is not a model configuration: {error}") from None
    config: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    for tensor in (*config.get("input", ()), *config.get("output", ())):  # as Triton has them; protobuf leaves them out
        tensor.setdefault("name", "")
        tensor.setdefault("data_type", "TYPE_INVALID")
    return config


def _folders(repository: Path) -> dict[str, Path]:
    try:
        children = sorted(repository.iterdir())
    except FileNotFoundError:
        raise ConfigError(f"--model-repository {repository} does not exist") from None
    except OSError as error:
        raise ConfigError(f"--model-repository {repository} cannot be read: {error.strerror}") from None
    return {child.name: child for child in children if child.is_dir() and not child.name.startswith(".")}


def _versions(name: str, folder: Path, config: Mapping[str, Any]) -> list[ModelVersion]:
    """Versions by Triton's `version_policy`: by default the latest one."""
    numbers = sorted(int(child.name) for child in folder.iterdir() if child.is_dir() and child.name.isdecimal())
    policy = config.get("version_policy", {})
    if "specific" in policy:
        wanted = {int(number) for number in policy["specific"].get("versions", ())}
        numbers = [number for number in numbers if number in wanted]
    elif "all" not in policy:
        numbers = numbers[-int(policy.get("latest", {}).get("num_versions", 1)) :]
    if not numbers:
        raise ConfigError(f"'{folder}' has no version directory to load, such as {folder}/1")
    return [ModelVersion(name, str(number), folder / str(number), config) for number in numbers]
