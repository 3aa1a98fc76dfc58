"""`isochrone emulate`: writes a repository of models of an emulated GPU after published latencies."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from backend.engines.emulated.catalogue import emulated_model
from backend.engines.emulated.spec import NAME
from backend.errors import ConfigError

CONFIG = 'backend: "isochrone"\ninstance_group [{ kind: KIND_CPU }]\n'


def emulate(gpu: str, models: str, repository: Path, seed: int) -> None:
    """Write each model's config.pbtxt and specification. gpu: or several, with commas, that each model runs on.

    Raises ConfigError; nothing is written then.
    """
    names = list(dict.fromkeys(name.strip() for name in models.split(",")))
    gpus = [name.strip() for name in gpu.split(",")]
    contents = {name: emulated_model(gpus, name, seed) for name in names}
    for name in names:
        if (repository / name).exists():
            raise ConfigError(f"'{repository / name}' exists already; remove it or name another --repository")
    for name, content in contents.items():
        file = repository / name / "1" / NAME
        try:
            file.parent.mkdir(parents=True)
            (repository / name / "config.pbtxt").write_text(CONFIG)
            file.write_text(json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise ConfigError(f"--repository {repository} cannot be written: {error.strerror}") from None
        for entry in content.get("devices", (content,)):
            typer.echo(f"{file}: {entry['device']['name']}, {entry['source']}")
