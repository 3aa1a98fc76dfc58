"""CPU quotas as the kernel's files tell of them, in containers and out of them; and the lanes that follow from one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.linux import cpu_topology as lanes
from backend.linux.cpu_quota import cpu_quota
from backend.linux.cpu_topology import core_budget, lane_cores, may_pin

V2 = "31 23 0:28 {top} {mount} rw,relatime - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {top} {mount} rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHER = "33 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
PLAIN = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw"


def tree(root: Path, cgroup: str, mounts: list[str], files: dict[str, str]) -> Path:
    """A machine's files, as far as they matter."""
    for name, text in {"proc/self/cgroup": cgroup, "proc/self/mountinfo": "\n".join([PLAIN, *mounts]), **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def v2(top: str = "/", mount: str = "/sys/fs/cgroup") -> str:
    return V2.format(top=top, mount=mount)


def v1(top: str = "/", mount: str = "/sys/fs/cgroup/cpu,cpuacct") -> str:
    return V1.format(top=top, mount=mount)


def old(quota: int, folder: str = "") -> dict[str, str]:
    """Version 1's two files."""
    group = f"sys/fs/cgroup/cpu,cpuacct/{folder}"
    return {f"{group}/cpu.cfs_quota_us": str(quota), f"{group}/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("cgroup", "mounts", "files", "expected"),
    [
        # A container with a namespace of its own sees its group as the topmost one.
        ("0::/", [v2()], {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2.0),
        ("0::/", [v2()], {"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ("0::/", [v2()], {}, None),
        ("0::/", [v2()], {"sys/fs/cgroup/cpu.max": "what"}, None),
        # A service of systemd's, in a slice that allows less.
        (
            "0::/a.slice/b.service",
            [v2()],
            {
                "sys/fs/cgroup/a.slice/cpu.max": "150000 100000",
                "sys/fs/cgroup/a.slice/b.service/cpu.max": "40000 10000",
            },
            1.5,
        ),
        # Without a namespace: the host's path, of which the container's group is mounted.
        ("4:cpu,cpuacct:/docker/ab\n0::/docker/ab", [v1("/docker/ab"), OTHER], old(250000), 2.5),
        ("4:cpu,cpuacct:/docker/ab", [v1("/docker/ab")], old(-1), None),
        ("4:cpuacct,cpu:/a/b", [v1()], old(400000, "a") | old(-1, "a/b"), 4.0),
        ("5:memory:/a\n4:cpuset:/a", [OTHER, v1()], old(100000, "a"), None),
        # A path out of what is mounted here.
        ("0::/../other", [v2()], {"sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        ("4:cpu:/elsewhere", [v1("/docker/ab")], old(100000), 1.0),
        ("0::/", [v2(mount="/my\\040groups")], {"my groups/cpu.max": "300000 100000"}, 3.0),
    ],
)
def test_the_quota_is_the_least_of_all_groups(
    tmp_path: Path, cgroup: str, mounts: list[str], files: dict[str, str], expected: float | None
) -> None:
    assert cpu_quota(tree(tmp_path, cgroup, mounts, files)) == expected


def test_a_machine_without_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


def test_this_machines_files_can_be_read() -> None:
    assert cpu_quota() is None or cpu_quota() > 0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("quota", "expected", "pinned"),
    [(None, 5, True), (2.0, 2, False), (2.9, 2, False), (0.5, 1, False), (5.0, 5, True), (64.0, 5, True)],
)
def test_lanes_by_quota(quota: float | None, expected: int, pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {4, 5, 6, 7, 8})
    monkeypatch.setattr(lanes, "cpu_quota", lambda: quota)
    assert (core_budget(), may_pin()) == (expected, pinned)
    assert len(lane_cores(core_budget())) == expected
    assert {len(team) for team in lane_cores(1)} == {expected}
