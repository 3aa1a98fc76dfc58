"""NVIDIA's Multi-Process Service: the search for its daemon, and a process's share of the multiprocessors.

CUDA reads both as it starts in a process, and never again.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from backend.errors import ConfigError

PIPE_DIRECTORY = "CUDA_MPS_PIPE_DIRECTORY"
SHARE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
_DEFAULT_PIPE_DIRECTORY = "/tmp/nvidia-mps"


def pipe_directory() -> Path:
    """Folder in which CUDA looks for the daemon."""
    return Path(os.environ.get(PIPE_DIRECTORY) or _DEFAULT_PIPE_DIRECTORY)


def mps_runs() -> bool:
    """True where a daemon listens on the socket `control` that CUDA would connect to, in whichever container it runs.

    The file outlives the daemon. A datagram socket cannot connect to the daemon's, but the kernel's error tells: wrong
    type where a process listens, refused where none does. The daemon is not disturbed.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(pipe_directory() / "control"))
        except OSError as error:
            return error.errno == errno.EPROTOTYPE
    return True


def limit_multiprocessors(percent: int) -> None:
    """Limit this process to a share of the GPU's multiprocessors once CUDA starts in it. Raises ConfigError."""
    if not mps_runs():
        raise ConfigError(
            f"parameter 'mps_percent' is \"{percent}\", but no MPS daemon listens in '{pipe_directory()}'; "
            f"start it with `nvidia-cuda-mps-control -d`, or set {PIPE_DIRECTORY}"
        )
    stated = os.environ.setdefault(SHARE, str(percent))
    if stated != str(percent):
        raise ConfigError(
            f"parameter 'mps_percent' is \"{percent}\", but this process has {stated} % already; "
            "models in one process share one value"
        )


def stated_share() -> str | None:
    """Share of this process under MPS in words, for an engine's identity; None: all."""
    share = os.environ.get(SHARE)
    return f"{share} % of the multiprocessors" if share else None
