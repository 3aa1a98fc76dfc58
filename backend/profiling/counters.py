"""Hardware counters of models' batches; once there turn out to be none for any, they are not asked for again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from profiler.lock import exclusive
from profiler.nsight import NoCountersError, NsightFeatures, count

_RUNNER = "backend.profiling.one_batch"
_LOCK_WAIT_S = 60.0


class Counters:
    """Read while nothing else measures that shares `directory`, unless that lasts. say: takes a sentence for people."""

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        self._directory, self._say = directory, say
        self._refused: NoCountersError | None = None

    def features(self, version_directory: Path, batch_sizes: Sequence[int]) -> NsightFeatures:
        """Takes from seconds to minutes for each batch size. Raises `NsightError`."""
        if self._refused is not None:
            raise self._refused
        if batch_sizes:
            sizes = ", ".join(map(str, batch_sizes))
            self._say(f"{version_directory.parent.name}: the GPU's counters are read for batches of {sizes}")
        try:
            with exclusive(self._directory / "profiling.lock", _LOCK_WAIT_S):
                return NsightFeatures(
                    {size: count(_RUNNER, (str(version_directory), str(size))) for size in batch_sizes}
                )
        except NoCountersError as error:
            self._refused = error
            raise
