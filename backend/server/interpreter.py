"""Parts of this Python that Triton's stub needs: its minor version, its shared libpython, its bin folder.

The stub embeds Python, so it runs with the minor version it was built for and no other.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from backend.errors import ServerError

# As the stub's ELF header names it: libpython3.11.so.1.0, or libpython3-419a3a08.13.so.1.0 where a wheel bundles it.
_SONAME = re.compile(rb"libpython3(?:-[0-9a-f]+)?\.(\d+)\.so(?:\.\d+)*")


@dataclass(frozen=True)
class Libpython:
    """A shared libpython: minor version, and the name that the loader looks for."""

    minor: int
    soname: str


def libpython_of(stub: Path) -> Libpython | None:
    """Shared libpython that a stub asks the loader for; None where its file does not tell."""
    match = _SONAME.search(stub.read_bytes())
    return Libpython(minor=int(match[1]), soname=match[0].decode()) if match else None


def libpython_dir(
    soname: str, bundled: Iterable[Path] = (), lookup: Callable[[str], object] = sysconfig.get_config_var
) -> Path:
    """Folder that holds `soname`: the server's own if it brings one, else this interpreter's. Raises ServerError.

    Not the loader's cache: a libpython of the same minor from elsewhere has another standard library.
    """
    for folder in (*bundled, *_own_dirs(lookup)):
        if (folder / soname).exists():
            return folder
    raise ServerError(
        f"{sys.executable} has no shared library {soname}, which Triton's Python stub needs; use a Python built "
        f"with --enable-shared (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared; Debian and Ubuntu: apt-get install "
        f"libpython3.{sys.version_info.minor})"
    )


def bin_dir() -> Path:
    """Folder to put first on PATH: the stub asks the first `python3` there for its prefix. Raises ServerError.

    Not resolved: a virtual environment is recognised by pyvenv.cfg near the unresolved path.
    """
    folder = Path(sys.executable).parent
    if not (folder / "python3").exists():
        raise ServerError(
            f"{folder} has no python3 beside {Path(sys.executable).name}, so Triton's Python stub would find another "
            f"Python's packages; run isochrone from a virtual environment"
        )
    return folder


def _own_dirs(lookup: Callable[[str], object]) -> list[Path]:
    libdir, multiarch = lookup("LIBDIR"), lookup("MULTIARCH")
    dirs = [Path(str(libdir))] if libdir else []
    if libdir and multiarch:
        dirs.append(Path(str(libdir)) / str(multiarch))
    if lookup is sysconfig.get_config_var:  # a relocated Python (conda, uv) still names its build machine's LIBDIR
        dirs.append(Path(sys.base_prefix) / "lib")
    return dirs
