"""Niceness of a process's session; as a program its own, once that had time to be changed, in JSON."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path


def niceness(process: int) -> str:
    """Niceness of a process's session, "" without an autogroup: no such file, or one that is empty."""
    try:
        shown = Path(f"/proc/{process}/autogroup").read_text()
    except OSError:
        return ""
    return shown.rpartition(" ")[2].strip()


if __name__ == "__main__":
    time.sleep(0.2)
    print(json.dumps(niceness(os.getpid())))
