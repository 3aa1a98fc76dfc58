"""Checks of `isochrone serve` before it starts tritonserver: errors that the server would report late and obscurely."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from backend.engines.emulated.dilation import time_dilation
from backend.errors import ConfigError
from backend.scheduler_process.event_log import VARIABLE as EVENTS
from backend.scheduler_process.sample_log import VARIABLE as SAMPLES
from backend.scheduler_process.scheduler_factory import scheduler_factory
from backend.scheduler_process.state_address import TOKEN_VARIABLE as STATE_TOKEN
from backend.scheduler_process.state_address import state_address, state_address_of_environment
from backend.server import ports
from backend.server.assemble import CODE
from backend.server.options import ServeOptions, is_given, value_of
from backend.server.paths import check_path

_MODES_WITHOUT_MODELS = ("explicit", "poll")
"""Model control modes in which an empty repository is no mistake."""


def check(options: ServeOptions) -> None:
    """Raise ConfigError for what would make the server fail later."""
    check_models(options)
    _check_ports(options)


def check_models(options: ServeOptions) -> None:
    """Do all of `check` but for the ports."""
    _check_repository(options.model_repository, options.extra)
    _check_extra(options.extra)
    _check_environment()


def _check_repository(repository: Path, extra: Sequence[str]) -> None:
    try:
        if not repository.exists():
            raise ConfigError(f"--model-repository {repository} does not exist")
        if not repository.is_dir():
            raise ConfigError(f"--model-repository {repository} is not a directory")
        models = [child.name for child in repository.iterdir() if child.is_dir() and not child.name.startswith(".")]
    except OSError as error:
        raise ConfigError(f"--model-repository {repository} cannot be read: {error.strerror}") from error
    if not models and value_of(extra, "--model-control-mode") not in _MODES_WITHOUT_MODELS:
        raise ConfigError(
            f"--model-repository {repository} holds no model; a model is a folder with a config.pbtxt and a numbered "
            f"version folder, such as {repository}/resnet50/1/model.onnx"
        )
    if (repository / "config.pbtxt").is_file():
        raise ConfigError(
            f"--model-repository {repository} is a model, for it holds a config.pbtxt; a repository is the folder that "
            f"holds models, such as {repository.absolute().parent}"
        )
    check_path("--model-repository", repository.absolute())
    for model in models:
        check_path("a model's name", model)


def _check_environment() -> None:
    """Check what otherwise only a model's load, or the scheduler's own log, would tell."""
    check_path("the folder of isochrone", CODE)
    check_path("the folder of Python", sys.prefix)
    scheduler_factory()
    time_dilation()
    for variable in (SAMPLES, EVENTS):
        if named := os.environ.get(variable):
            folder = Path(named).expanduser().absolute().parent
            if not os.access(folder, os.W_OK | os.X_OK):
                raise ConfigError(f"{variable} is '{named}', but nothing can be written to '{folder}'")


def _check_extra(extra: Sequence[str]) -> None:
    if extra and not extra[0].startswith("-"):
        raise ConfigError(f"unexpected argument {extra[0]!r}; options for tritonserver follow after --")
    if is_given(extra, "--backend-directory"):
        raise ConfigError(
            "--backend-directory cannot be given to tritonserver, because isochrone assembles one; put further "
            "backends into the backends folder of your tritonserver, where isochrone finds them"
        )


def _check_ports(options: ServeOptions) -> None:
    # An endpoint that the user set up or turned off after `--` is the user's own affair.
    asked = {n: p for n, p in options.ports().items() if not is_given(options.extra, f"--{n}-port", f"--allow-{n}")}
    seen: dict[int, str] = {}
    # Another server's scheduler may publish there, which this one will share: it need not be free.
    state = {} if options.state_port is None else {"state": options.state_port}
    for name, port in (asked | state).items():
        if not 1 <= port <= 65535:
            raise ConfigError(f"--{name}-port {port} is not a port; it must lie between 1 and 65535")
        if port in seen:
            raise ConfigError(f"--{name}-port and --{seen[port]}-port are both {port}; each needs a port of its own")
        seen[port] = name
    if (address := options.state_address) is not None:
        state_address(address, os.environ.get(STATE_TOKEN, ""), "cpu")
    else:
        state_address_of_environment("cpu")
    for name, port in asked.items():
        if not ports.is_free(options.host, port):
            raise ConfigError(f"port {port} on {options.host} is already in use; choose another with --{name}-port")
