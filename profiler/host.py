"""Names and sizes of this machine and a file's hash, on which a measurement depends. Measures nothing."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path

_CPU0_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_HASH_CHUNK_BYTES = 1 << 20
_LAST_LEVEL_BYTES_UNKNOWN = 16 << 20
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def cpu_name() -> str:
    """The processor as the kernel names it; architectures that give no name there give their own."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def sha256_of(path: Path) -> str:
    """Hexadecimal hash of a file's bytes. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def package_version(name: str) -> str:
    """Version of an installed distribution, `none` where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def last_level_cache(caches: Path = _CPU0_CACHES) -> tuple[int, int]:
    """Bytes of the last-level cache and the number of logical CPUs that share it; a guess where unknown."""
    best = (0, _LAST_LEVEL_BYTES_UNKNOWN, 1)
    for index in caches.glob("index*"):
        try:
            level = int((index / "level").read_text())
            size_bytes = _size_bytes((index / "size").read_text().strip())
            sharers = _count_cpus((index / "shared_cpu_list").read_text().strip())
        except (OSError, ValueError):  # hidden by some virtual machines and containers
            continue
        best = max(best, (level, size_bytes, sharers))
    return best[1], best[2]


def _size_bytes(text: str) -> int:
    if text and text[-1] in _UNITS:
        return int(text[:-1]) * _UNITS[text[-1]]
    return int(text)


def _count_cpus(ranges: str) -> int:
    """`0-3,8` is five."""
    count = 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count
