"""Replies of a device's scheduler to a model's process."""

from __future__ import annotations

from functools import cache

from backend.model_process.scheduler_client import SchedulerClient
from backend.scheduler.messages import Decided
from tests.fakes.builders import join, profile

FORMAT = "msgpack"


class _Listener:
    """Counts what is to be carried out."""

    def __init__(self) -> None:
        self.commands = 0

    def decided(self, decided: Decided) -> None:
        self.commands += len(decided.commands)

    def lost(self) -> None: ...

    def restored(self) -> None: ...

    def awaits_decision(self) -> bool:
        return False


@cache
def _client() -> SchedulerClient:
    return SchedulerClient("cpu", 2, join(profile()), _Listener())


def check(data: bytes) -> None:
    """Carried out, or taken for a broken connection; never an error, which would end the client's thread."""
    assert _client()._handle(data) in (True, False)
