"""Files that are read whole, up to a size: what somebody has put in the place of one must not fill the memory."""

from __future__ import annotations

import errno
from pathlib import Path


def read_at_most(path: Path, max_bytes: int) -> bytes:
    """Content of a file. Raises OSError, whose `strerror` says so where it has more than `max_bytes`."""
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes} bytes", str(path))
    return content
