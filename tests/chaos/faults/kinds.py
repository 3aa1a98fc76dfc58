"""All kinds of faults, in the order of a round; one is none, whose figures say how much of the others' is chance."""

from __future__ import annotations

from tests.chaos.faults import connections, loading, processes, resources, storage
from tests.chaos.faults.fault import Fault, nothing_to_undo

NOTHING = Fault("nothing", lambda _: nothing_to_undo)
FAULTS = (
    NOTHING,
    *processes.FAULTS,
    *loading.FAULTS,
    *storage.FAULTS,
    *resources.FAULTS,
    *connections.FAULTS,
)
