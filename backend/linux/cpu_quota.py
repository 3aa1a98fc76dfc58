"""CPU quota of this process's container, from the kernel's control groups, version 1 and 2.

Groups above the container's own may allow less than it does; they count as far as they are visible from inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Cores' worth of CPU time that this process's control groups allow, None: no limit. root: of the file system."""
    return min((limit for group in _groups(root) if (limit := _limit_of(group)) is not None), default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the groups that control this process's CPU time, and of those above them."""
    try:
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for top, mount in _mounted(mounts, "cpu" if controllers else None):
            within = PurePosixPath(path)
            # A path of another namespace, such as the host's, says nothing of what is mounted here.
            below = within.relative_to(top) if within.is_relative_to(top) and ".." not in within.parts else None
            folder = root / mount.lstrip("/")
            for depth in range(len(below.parts) if below else 0, -1, -1):
                yield folder.joinpath(*(below.parts[:depth] if below else ()))


def _mounted(mounts: list[str], controller: str | None) -> Iterator[tuple[str, str]]:
    """Mounts of that controller (version 1), or of all (None: version 2): top group and folder."""
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), after.split(maxsplit=2)
        version_2 = kind == "cgroup2" and controller is None
        if version_2 or (kind == "cgroup" and controller in options.split(",")):
            yield _unescaped(fields[3]), _unescaped(fields[4])


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _limit_of(group: Path) -> float | None:
    with suppress(OSError, ValueError):  # the topmost group has no such file
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else _cores(int(quota), int(period))
    with suppress(OSError, ValueError):
        return _cores(int((group / "cpu.cfs_quota_us").read_text()), int((group / "cpu.cfs_period_us").read_text()))
    return None


def _cores(quota_us: int, period_us: int) -> float | None:
    """Quota in cores; None for a negative quota, which stands for no limit."""
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None
