"""`isochrone serve`: checks what the user asked for, builds tritonserver's command, runs it in the foreground.

The server's output goes to this process's stdout and stderr untouched.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from backend.errors import ConfigError
from backend.runtime_dir import VARIABLE as RUNTIME_DIR
from backend.scheduler_process.event_log import VARIABLE as EVENTS
from backend.scheduler_process.sample_log import VARIABLE as SAMPLES
from backend.scheduler_process.scheduler_factory import scheduler_factory
from backend.server import ports, processes
from backend.server.assemble import CODE, assemble, working_directory
from backend.server.interpreter import bin_dir, libpython_dir, libpython_of
from backend.server.locate import TritonServer, locate
from backend.server.paths import check_path, temporary_base
from backend.server.tether import tethered

# tritonserver's options that name a file or folder; relative ones mean the user's folder, not the server's (see below).
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

_MODELS_MAY_COME = ("explicit", "poll")
"""Ways to control models in which an empty repository is no mistake."""

_EXIT_TIMEOUT_S = 30.0
"""Triton's own."""
_EXIT_LEEWAY_S = 5.0


@dataclass(frozen=True)
class ServeOptions:
    model_repository: Path
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    tritonserver: Path | None = None
    extra: tuple[str, ...] = ()  # to tritonserver as they are

    def ports(self) -> dict[str, int]:
        return {"http": self.http_port, "grpc": self.grpc_port, "metrics": self.metrics_port}


@dataclass(frozen=True)
class Command:
    argv: tuple[str, ...]
    env: dict[str, str] = field(repr=False)
    cwd: Path
    backends: Path
    regions: str
    """With what the names of its shared memory begin, and no other server's."""


def check(options: ServeOptions) -> None:
    """ConfigError for whatever would make the server fail later with a message that is harder to read."""
    check_models(options)
    _check_ports(options)


def check_models(options: ServeOptions) -> None:
    """The part of `check` that does not depend on the moment."""
    _check_repository(options.model_repository, options.extra)
    _check_extra(options.extra)
    _check_environment()


def command(options: ServeOptions, folder: Path) -> Command:
    """Assembles what the server needs in `folder`, which is empty and absolute, and says how to run it."""
    server = locate(options.tritonserver)
    env = _environment(server)
    backends = assemble(server, folder / "backends")
    argv = [
        str(server.binary),
        f"--backend-directory={backends}",
        f"--model-repository={options.model_repository.absolute()}",
    ]
    for name, port in options.ports().items():
        argv += [f"--{name}-address={options.host}", f"--{name}-port={port}"]
    regions = f"triton_isochrone_{secrets.token_hex(8)}_"
    argv.append(f"--backend-config=python,shm-region-prefix-name={regions}")  # of the backends built on Python's too
    cwd = working_directory(folder / "cwd")
    return Command((*argv, *_absolute_paths(options.extra)), env, cwd, backends, regions)


def serve(options: ServeOptions) -> int:
    """Runs the server until it ends or this process gets SIGINT, SIGTERM or SIGHUP; returns its exit code.

    Triton answers what is in flight before it ends, for as long as its exit timeout; a model that is loading may keep
    it longer, so it is killed soon after that. Should this process be killed, the server is told to end as well.
    """
    check(options)
    with _signals() as received, tempfile.TemporaryDirectory(prefix="isochrone-", dir=temporary_base()) as folder:
        run = command(options, Path(folder).resolve())
        if received.first is not None:
            return 128 + received.first
        print(f"isochrone: starting {run.argv[0]}", file=sys.stderr, flush=True)
        # A session of its own: Ctrl-C in a terminal reaches the server once, from here, and no stub.
        process = subprocess.Popen(tethered(run.argv), env=run.env, cwd=run.cwd, start_new_session=True)
        received.forward_to(process, _exit_timeout_s(options.extra) + _EXIT_LEEWAY_S)
        code = process.wait()
        received.ended()
        if code != 0:
            processes.sweep(run.backends, run.regions)
    if code not in (0, received.first and -received.first) and not received.killed:
        print(f"isochrone: tritonserver {_ending(code)}; its log above says why", file=sys.stderr, flush=True)
    return code if code >= 0 else 128 - code


def _exit_timeout_s(extra: Sequence[str]) -> float:
    try:
        return float(_value(extra, "--exit-timeout-secs") or _EXIT_TIMEOUT_S)
    except ValueError:  # tritonserver says so itself
        return _EXIT_TIMEOUT_S


def _ending(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


class _Received:
    """The first signal this process got, passed on to the server as soon as there is one.

    killed: the server did not end within its time after that.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.killed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._limit_s = 0.0
        self._limit: threading.Timer | None = None

    def forward_to(self, process: subprocess.Popen[bytes], limit_s: float) -> None:
        """limit_s: how long it may take to end."""
        self._process, self._limit_s = process, limit_s
        if self.first is not None:
            self._send(self.first)

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        signum = signal.SIGTERM if signum == signal.SIGHUP else signum  # Triton does not handle SIGHUP
        self.first = self.first or signum
        self._send(signum)

    def ended(self) -> None:
        if self._limit is not None:
            self._limit.cancel()

    def _send(self, signum: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(signum)
        if self._limit is None:
            self._limit = threading.Timer(self._limit_s, self._kill, (self._process,))
            self._limit.daemon = True
            self._limit.start()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        self.killed = True
        print(
            f"isochrone: tritonserver did not end within {self._limit_s:g} s, its exit timeout and some, so it is "
            "killed; a model whose load does not end keeps it",
            file=sys.stderr,
            flush=True,
        )
        process.kill()


@contextmanager
def _signals() -> Iterator[_Received]:
    received = _Received()
    old = {s: signal.signal(s, received.handle) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


def _environment(server: TritonServer) -> dict[str, str]:
    env = dict(os.environ)
    env["PATH"] = os.pathsep.join(filter(None, (str(bin_dir()), env.get("PATH"))))
    libraries = [str(folder) for folder in server.library_dirs]
    libpython = libpython_of(server.stub)
    if libpython is not None:
        libraries.append(str(libpython_dir(libpython.soname, server.library_dirs)))
    # After the user's own entries: a container's CUDA compatibility folder must stay first.
    env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (env.get("LD_LIBRARY_PATH"), *dict.fromkeys(libraries))))
    for variable in (SAMPLES, EVENTS, RUNTIME_DIR):  # the server's processes run in folders of their own
        if path := env.get(variable):
            env[variable] = str(Path(path).expanduser().absolute())
    return env


def _check_repository(repository: Path, extra: Sequence[str]) -> None:
    try:
        if not repository.exists():
            raise ConfigError(f"--model-repository {repository} does not exist")
        if not repository.is_dir():
            raise ConfigError(f"--model-repository {repository} is not a directory")
        models = [child.name for child in repository.iterdir() if child.is_dir() and not child.name.startswith(".")]
    except OSError as error:
        raise ConfigError(f"--model-repository {repository} cannot be read: {error.strerror}") from error
    if not models and _value(extra, "--model-control-mode") not in _MODELS_MAY_COME:
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
    """What only the scheduler's own log would tell."""
    check_path("the folder of isochrone", CODE)
    check_path("the folder of Python", sys.prefix)
    scheduler_factory()
    for variable in (SAMPLES, EVENTS):
        if named := os.environ.get(variable):
            folder = Path(named).expanduser().absolute().parent
            if not os.access(folder, os.W_OK | os.X_OK):
                raise ConfigError(f"{variable} is '{named}', but nothing can be written to '{folder}'")


def _check_extra(extra: Sequence[str]) -> None:
    if extra and not extra[0].startswith("-"):
        raise ConfigError(f"unexpected argument {extra[0]!r}; options for tritonserver follow after --")
    if _given(extra, "--backend-directory"):
        raise ConfigError(
            "--backend-directory cannot be given to tritonserver, because isochrone assembles one; put further "
            "backends into the backends folder of your tritonserver, where isochrone finds them"
        )


def _check_ports(options: ServeOptions) -> None:
    # An endpoint that the user set up or turned off after `--` is the user's own affair.
    asked = {n: p for n, p in options.ports().items() if not _given(options.extra, f"--{n}-port", f"--allow-{n}")}
    seen: dict[int, str] = {}
    for name, port in asked.items():
        if not 1 <= port <= 65535:
            raise ConfigError(f"--{name}-port {port} is not a port; it must lie between 1 and 65535")
        if port in seen:
            raise ConfigError(f"--{name}-port and --{seen[port]}-port are both {port}; each needs a port of its own")
        seen[port] = name
    for name, port in asked.items():
        if not ports.is_free(options.host, port):
            raise ConfigError(f"port {port} on {options.host} is already in use; choose another with --{name}-port")


def _given(extra: Sequence[str], *options: str) -> bool:
    return any(argument.partition("=")[0] in options for argument in extra)


def _value(extra: Sequence[str], option: str) -> str | None:
    """What the last `option=VALUE` or `option VALUE` says, None where there is none."""
    found = None
    for i, argument in enumerate(extra):
        name, equals, value = argument.partition("=")
        if name == option:
            found = value if equals else next(iter(extra[i + 1 :]), "")
    return found


def _absolute_paths(extra: Sequence[str]) -> list[str]:
    """The user's arguments; paths that Triton would look up in its working directory made absolute."""
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
