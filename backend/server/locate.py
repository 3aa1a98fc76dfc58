"""Finds a stock tritonserver and its parts; starts nothing, changes nothing.

In this order: the path that the user gave, a tritonserver on PATH (NVIDIA's container, which is production), the one
in the nvidia-pytriton wheel of this environment. The first that exists must be usable: none is skipped silently.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backend.errors import ServerError
from backend.server.interpreter import libpython_of

PYTRITON = "nvidia-pytriton==0.7.0"
STUB = "triton_python_backend_stub"
_NEEDED = ("libtriton_python.so", "triton_python_backend_utils.py")


@dataclass(frozen=True)
class TritonServer:
    """python_backend: folder with libtriton_python.so and triton_python_backend_utils.py. stub: for this Python's minor
    version; in `python_backend`, or apart from it (the wheel has one per minor version). origin: for error messages.
    """

    binary: Path
    python_backend: Path
    stub: Path
    library_dirs: tuple[Path, ...]
    origin: str

    @property
    def backends(self) -> Path:
        return self.python_backend.parent


def wheel_binary() -> Path | None:
    """tritonserver in nvidia-pytriton, found without importing it (its dependencies are not installed)."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        return None
    binary = Path(spec.submodule_search_locations[0]) / "tritonserver" / "bin" / "tritonserver"
    return binary if binary.is_file() else None


def locate(explicit: Path | None = None, wheel: Callable[[], Path | None] = wheel_binary) -> TritonServer:
    """Find the server to start. Raises ServerError where there is none or it is not usable."""
    if explicit is not None:
        return _describe(explicit, "--tritonserver")
    on_path = shutil.which("tritonserver")
    if on_path is not None:
        return _describe(Path(on_path), "PATH")
    in_wheel = wheel()
    if in_wheel is not None:
        return _describe(in_wheel, "the nvidia-pytriton wheel")
    raise ServerError(
        f"no tritonserver was found on PATH nor in an nvidia-pytriton wheel; run inside NVIDIA's Triton container, "
        f"or pip install --no-deps {PYTRITON}, or name one with --tritonserver PATH"
    )


def _describe(binary: Path, origin: str) -> TritonServer:
    binary = binary.expanduser().resolve()
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise ServerError(
            f"{binary} (from {origin}) is not an executable file; --tritonserver takes the path of the tritonserver "
            f"binary, such as /opt/tritonserver/bin/tritonserver"
        )
    python_backend = _python_backend(binary, origin)
    prefix = python_backend.parent.parent
    libraries = [prefix / "lib", *(parent / "nvidia_pytriton.libs" for parent in prefix.parents[1:2])]
    return TritonServer(
        binary=binary,
        python_backend=python_backend,
        stub=_stub(python_backend, prefix / "python_backend_stubs"),
        library_dirs=tuple(folder for folder in libraries if folder.is_dir()),
        origin=origin,
    )


def _python_backend(binary: Path, origin: str) -> Path:
    candidates = [binary.parent.parent / "backends" / "python", Path("/opt/tritonserver/backends/python")]
    for folder in candidates:
        if all((folder / name).is_file() for name in _NEEDED):
            return folder
    raise ServerError(
        f"the tritonserver {binary} (from {origin}) has no Python backend: {' and '.join(_NEEDED)} were sought in "
        f"{' and '.join(map(str, dict.fromkeys(candidates)))}; use a Triton release that includes the Python backend"
    )


def _stub(python_backend: Path, stubs: Path) -> Path:
    """Stub for this minor version: one folder per version (the wheel), else the one beside the backend's library."""
    minor = sys.version_info.minor
    apart = stubs / f"3.{minor}" / STUB
    if apart.is_file():
        return apart
    beside = python_backend / STUB
    if beside.is_file():
        _require_minor(beside, minor)
        return beside
    carried = sorted((d.name for d in stubs.glob("3.*")), key=lambda name: int(name.partition(".")[2]))
    raise ServerError(
        f"the Triton Python backend in {python_backend} has no stub for Python 3.{minor} "
        f"(it has {', '.join(carried) or 'none'}); run isochrone with a Python that it has a stub for"
    )


def _require_minor(stub: Path, minor: int) -> None:
    built_for = libpython_of(stub)
    if built_for is not None and built_for.minor != minor:
        raise ServerError(
            f"{stub} is built for Python 3.{built_for.minor}, but isochrone runs on Python 3.{minor}; "
            f"install isochrone for python3.{built_for.minor} and run it from there"
        )
