"""The machine's condition: how fast its core is just now, and the versions that figures depend on."""

from __future__ import annotations

import platform
import timeit

from profiler.host import package_version

_CALLS, _REPEATS = 200, 50


def machine_speed() -> str:
    """Speed of this core, for what is told in microseconds: virtual machines change by the minute."""
    least_s = min(timeit.repeat("sum(range(1000))", number=_CALLS, repeat=_REPEATS)) / _CALLS
    return f"sum(range(1000)) takes {1e6 * least_s:.1f} µs"


def version_facts(*packages: str) -> dict[str, str]:
    """Versions of Python and of those packages that are installed, by name."""
    found = {"Python": platform.python_version()} | {name: package_version(name) for name in packages}
    return {name: version for name, version in found.items() if version != "none"}


def versions(*packages: str) -> str:
    return ", ".join(f"{name} {version}" for name, version in version_facts(*packages).items())
