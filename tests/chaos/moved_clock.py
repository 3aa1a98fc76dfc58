"""A wall clock that can be moved, for the Python processes of one server only: the machine's is everybody's.

They run a virtual environment of their own whose start-up puts an offset, read from a file, on `time.time` and
`time.time_ns`; monotonic clocks stay as they are, as where an administrator or NTP steps the clock. Triton's own code,
which is no Python, does not see it.
"""

from __future__ import annotations

import site
import sys
from pathlib import Path

_START_UP = """
import site
import time

site.addsitedir({packages!r})
_now_ns, _state = time.time_ns, [0.0, 0]

def _time_ns():
    now_s = time.monotonic()
    if now_s >= _state[0]:
        _state[0] = now_s + 0.05
        with open({offset!r}) as file:
            _state[1] = int(file.read() or _state[1])
    return _now_ns() + _state[1]

time.time_ns = _time_ns
time.time = lambda: _time_ns() / 1e9
"""


class MovedClock:
    """folder: an empty one. path: to be put first on the server's PATH."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        self.path = folder / "bin"
        packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        packages.mkdir(parents=True)
        self.path.mkdir()
        (self.path / "python3").symlink_to(Path(sys.executable).resolve())
        home = Path(sys.executable).resolve().parent
        (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
        text = _START_UP.format(packages=site.getsitepackages()[0], offset=str(self._offset))
        (packages / "sitecustomize.py").write_text(text)
        self.move(0)

    def move(self, ahead_s: int) -> None:
        """Set the clock so far ahead of the machine's, negative: back; it is seen within 50 ms."""
        self._offset.write_text(f"{ahead_s * 10**9}\n")
