"""tritonserver's command line, environment and folders, with this backend among its backends."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from backend.runtime_dir import VARIABLE as RUNTIME_DIR
from backend.scheduler_process.event_log import VARIABLE as EVENTS
from backend.scheduler_process.sample_log import VARIABLE as SAMPLES
from backend.scheduler_process.state_address import VARIABLE as STATE_ADDRESS
from backend.server import processes
from backend.server.assemble import CODE, assemble, working_directory
from backend.server.interpreter import bin_dir, libpython_dir, libpython_of
from backend.server.locate import TritonServer, locate
from backend.server.options import ServeOptions, absolute_paths

ARENAS = "MALLOC_ARENA_MAX"


@dataclass(frozen=True)
class ServerCommand:
    """backends: its backend directory. regions: prefix of its shared memory's names, and of no other server's."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(repr=False)
    cwd: Path
    backends: Path
    regions: str

    def sweep(self) -> None:
        """End the stubs and remove the shared memory that the server left behind as it failed."""
        processes.sweep(self.backends, self.regions)


def assemble_command(options: ServeOptions, folder: Path, code: Path = CODE) -> ServerCommand:
    """Assemble what the server needs in `folder`, which is empty and absolute. code: this backend's.

    Raises ServerError.
    """
    server = locate(options.tritonserver)
    env = _environment(server)
    if (address := options.state_address) is not None:
        env[STATE_ADDRESS] = address
    backends = assemble(server, folder / "backends", code)
    argv = [
        str(server.binary),
        f"--backend-directory={backends}",
        f"--model-repository={options.model_repository.absolute()}",
    ]
    for name, port in options.ports().items():
        argv += [f"--{name}-address={options.host}", f"--{name}-port={port}"]
    regions = f"triton_isochrone_{secrets.token_hex(8)}_"
    argv.append(f"--backend-config=python,shm-region-prefix-name={regions}")  # also of the backends built on Python's
    cwd = working_directory(folder / "cwd")
    return ServerCommand((*argv, *absolute_paths(options.extra)), env, cwd, backends, regions)


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
    # Arenas of glibc's give little back after large answers, and there may be eight per core: one per core will do.
    env.setdefault(ARENAS, str(max(2, len(os.sched_getaffinity(0)))))
    return env
