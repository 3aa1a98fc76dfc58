"""Engine in the device's engine process, as a client of it: batches go there through shared memory.

Where that process dies, it is started again, the model is loaded there again, and its batches run once more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from backend.engine_process.client.connection import EngineConnection
from backend.engine_process.wire.channel import ChannelError
from backend.engine_process.wire.messages import PROTOCOL, OpenModel
from backend.engines.protocol import BatchResult, EngineOptions
from backend.errors import EngineLostError
from backend.linux.execution_priority import ORDINARY_PRIORITY, ExecutionPriority
from backend.tensors import Feeds

_TRIES = 2


class EngineClient:
    """`run` may be called from several threads at once, for a lane each. Raises ConfigError or ServerError."""

    def __init__(self, device: str, file: Path, options: EngineOptions) -> None:
        self._link = EngineConnection(device, OpenModel(PROTOCOL, str(file.absolute()), options))
        opened = self._link.open()
        self.inputs, self.outputs, self.identity = opened.inputs, opened.outputs, opened.identity

    @property
    def lost(self) -> str | None:
        """See `Engine.lost`. An engine process that dies is started again: the reason why that did not succeed."""
        return self._link.failure

    @property
    def away(self) -> bool:
        """True while the engine process is gone, or is back without the model."""
        return self._link.away

    def run(
        self,
        lane: int,
        feeds: Feeds,
        outputs: Sequence[str],
        priority: ExecutionPriority = ORDINARY_PRIORITY,  # noqa: ARG002
        *,
        exclusive: bool = False,  # noqa: ARG002
    ) -> BatchResult:
        """See `Engine.run`. The calling thread only waits."""
        affinity = os.sched_getaffinity(0)
        core = affinity.pop() if len(affinity) == 1 else None
        for _ in range(_TRIES):
            session = self._link.session()
            try:
                return session.lane(lane).run(core, feeds, outputs)
            except (ConnectionError, ChannelError):
                self._link.lost(session)
        raise EngineLostError(
            "the model's run failed: the engine process died, and died again when the batch was run anew"
        )

    def close(self) -> None:
        """See `Engine.close`."""
        self._link.close()
