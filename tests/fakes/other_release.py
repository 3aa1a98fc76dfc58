"""A scheduler of another release: ours as a real process, with another number for its messages.

`python -m tests.fakes.other_release NEWER --device cpu --lanes 2`; an older one says nothing of its protocol's number.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.runtime_dir import VARIABLE
from backend.scheduler import core, messages
from backend.scheduler_process import process
from profiler.child import search_path

OLDER, NEWER = 4, 99
_STARTS_WITHIN_S = 60.0


@contextmanager
def scheduler_of_another_release(
    runtime_dir: Path, protocol: int, device: str = "cpu"
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs one until the block ends, or the test ends it before."""
    command = [sys.executable, "-m", "tests.fakes.other_release", str(protocol), f"--device={device}", "--lanes=2"]
    environment = {VARIABLE: str(runtime_dir), "PYTHONPATH": search_path(), "PATH": "/usr/bin:/bin"}
    with (runtime_dir / f"{device}.log").open("ab") as log:
        running = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2], env=environment, stderr=log)
    try:
        until_s = time.monotonic() + _STARTS_WITHIN_S
        while not (runtime_dir / f"{device}.sock").exists():
            assert running.poll() is None and time.monotonic() < until_s, "it did not start"
            time.sleep(0.01)
        yield running
    finally:
        running.kill()
        running.wait()


def main(argv: list[str]) -> int:
    """Serve as that release would."""
    protocol = int(argv[0])
    messages.PROTOCOL = core.PROTOCOL = process.PROTOCOL = protocol  # type: ignore[attr-defined]
    if protocol == OLDER:  # before there was a number in the refusal, or a sentence with the model's name
        process.PROTOCOL = 0  # type: ignore[attr-defined]
        process.refusal_of_another_protocol = lambda _: None  # type: ignore[attr-defined,assignment]
    return process.main(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
