"""Assembles the folder for `--backend-directory`, of this backend, the Python backend and the server's other ones, and
the server's working directory, which decides what Triton's stub imports (see `stub_entry`).

Triton refuses a library that is a symbolic link out of its backend's folder ("escapes backend directory"), but it
resolves the backend's folder itself first and does not check `model.py`. So whole folders and `model.py` are linked;
only where the stub lies apart from its library (the wheel) must `python/` be made of real files: a copy of the stub,
whose mode Triton sets, and hard links, or copies where the file system refuses those. The files stay NVIDIA's and the
user's; the folder is thrown away after use.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from backend.errors import ServerError
from backend.server.locate import STUB, TritonServer

# Folder of this backend's code: `model.py`, which Triton imports, beside the package `backend`.
CODE = Path(__file__).resolve().parents[2]
OURS = "isochrone"


def assemble(server: TritonServer, into: Path, code: Path = CODE) -> Path:
    """Assemble the backends in `into`, which is empty or missing; returns it. Raises ServerError."""
    into.mkdir(parents=True, exist_ok=True)
    _ours(code, into / OURS)
    _python(server, into / "python")
    for backend in sorted(server.backends.iterdir()):
        if backend.is_dir() and backend.name not in (OURS, "python"):
            (into / backend.name).symlink_to(backend, target_is_directory=True)
    return into


def working_directory(folder: Path) -> Path:
    """Assemble the working directory in `folder`; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").symlink_to(Path(__file__).with_name("stub_entry.py").resolve())
    return folder


def _ours(code: Path, folder: Path) -> None:
    shim = code / "model.py"
    if not shim.is_file():
        raise ServerError(f"{shim}, which Triton loads as this backend, is missing; reinstall isochrone")
    folder.mkdir()
    (folder / "model.py").symlink_to(shim)  # it resolves its own path to find the packages beside it


def _python(server: TritonServer, folder: Path) -> None:
    if server.stub.parent == server.python_backend:
        folder.symlink_to(server.python_backend, target_is_directory=True)
        return
    folder.mkdir()
    for file in sorted(server.python_backend.iterdir()):
        if file.is_file() and file.name != STUB:
            _place(file, folder / file.name)
    _place(server.stub, folder / STUB, executable=True)


def _place(source: Path, target: Path, executable: bool = False) -> None:
    """Hard-link a file; copy it where that is impossible, or where Triton may change its mode."""
    if not executable:
        try:
            target.hardlink_to(source)
            return
        except OSError:  # another file system, or not our file (fs.protected_hardlinks)
            pass
    shutil.copy2(source, target)
    if executable:
        target.chmod(0o755)
