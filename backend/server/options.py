"""Options of `isochrone serve`, and of tritonserver's own those that matter to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# tritonserver's options that name a file or folder: relative ones are relative to the user's folder, not to the folder
# that the server runs in.
_PATH_OPTIONS = frozenset(
    {
        "--cache-directory",
        "--grpc-root-cert",
        "--grpc-server-cert",
        "--grpc-server-key",
        "--log-file",
        "--model-repository",
        "--model-store",
        "--repoagent-directory",
        "--trace-file",
    }
)


@dataclass(frozen=True)
class ServeOptions:
    """extra: arguments that go to tritonserver as they are. state_port: where the state of its devices is published;
    None: as the environment says.
    """

    model_repository: Path
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    tritonserver: Path | None = None
    extra: tuple[str, ...] = ()
    state_port: int | None = None

    def ports(self) -> dict[str, int]:
        """Port of each endpoint."""
        return {"http": self.http_port, "grpc": self.grpc_port, "metrics": self.metrics_port}

    @property
    def state_address(self) -> str | None:
        """Address at which the state of the devices is published; None: as the environment says."""
        if self.state_port is None:
            return None
        return f"[{self.host}]:{self.state_port}" if ":" in self.host else f"{self.host}:{self.state_port}"


def is_given(extra: Sequence[str], *options: str) -> bool:
    """True where one of these options is among tritonserver's arguments."""
    return any(argument.partition("=")[0] in options for argument in extra)


def value_of(extra: Sequence[str], option: str) -> str | None:
    """Value of the last `option=VALUE` or `option VALUE`, None without one."""
    found = None
    for i, argument in enumerate(extra):
        name, equals, value = argument.partition("=")
        if name == option:
            found = value if equals else next(iter(extra[i + 1 :]), "")
    return found


def absolute_paths(extra: Sequence[str]) -> list[str]:
    """tritonserver's arguments, with paths that it would look up in its working directory made absolute."""
    made: list[str] = []
    for argument in extra:
        option, equals, value = argument.partition("=")
        if equals and option in _PATH_OPTIONS:
            made.append(f"{option}={_absolute(value)}")
        elif made and made[-1] in _PATH_OPTIONS:
            made.append(_absolute(argument))
        else:
            made.append(argument)
    return made


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())
