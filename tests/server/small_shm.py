"""A tritonserver that has a /dev/shm of its own, as small as a container's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from backend.server.locate import locate

_SCRIPT = """#!/bin/sh
export LD_LIBRARY_PATH={libraries}
exec unshare --mount sh -c 'mount -t tmpfs -o size={megabytes}m tmpfs /dev/shm && exec "$0" "$@"' {binary} "$@"
"""


def may_mount() -> bool:
    """Whether this user may have a /dev/shm of its own."""
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True, check=False
    )
    return tried.returncode == 0


def small_shm(folder: Path, megabytes: int) -> Path:
    """Put into a folder what looks like an installed tritonserver; returns its binary."""
    real = locate()
    binary = folder / "bin" / "tritonserver"
    binary.parent.mkdir(parents=True)
    libraries = ":".join(map(str, real.library_dirs))
    binary.write_text(_SCRIPT.format(libraries=libraries, megabytes=megabytes, binary=real.binary))
    binary.chmod(0o755)
    (folder / "backends").symlink_to(real.backends)
    (folder / "python_backend_stubs").symlink_to(real.stub.parent.parent)
    return binary
