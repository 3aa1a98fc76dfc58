"""Processes that are killed, and processes that are stopped and go on."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial

from tests.chaos.account import Allowance
from tests.chaos.faults.fault import ALL, Fault, Undo, nothing_to_undo
from tests.chaos.faults.loading import GONE, load_again
from tests.chaos.models import SPARE
from tests.chaos.stage import Stage

LOCKED = "a model's process that is killed while it holds a lock of Triton's takes tritonserver with it"
PAUSED = "a model's process without a sign of life for a second is taken for dead by tritonserver"
KILLED = "server/test_failures.py::test_a_killed_model_holds_up_no_other_and_can_be_loaded_again"
UNANSWERED = Allowance("what was in flight in a killed model's process is never answered", KILLED, None, (SPARE,))
NOT_HEALTHY = Allowance(
    "Triton does not restart a model's process", KILLED, r"Stub process '\w+' is not healthy", (SPARE,)
)


def kill(role: str, stage: Stage) -> Undo:
    """Send SIGKILL; the others have to notice."""
    os.kill(stage.pid(role), signal.SIGKILL)
    return nothing_to_undo


def kill_model(stage: Stage) -> Undo:
    """Kill a model's process; only loading it again brings it back."""
    os.kill(stage.pid(SPARE), signal.SIGKILL)
    return partial(load_again, stage)


def kill_router(stage: Stage) -> Undo:
    """Kill the router, as a supervisor would find it, and start another one."""
    assert stage.route is not None
    stage.route.kill_router()
    return stage.route.start_router


def stop(roles: tuple[str, ...], stage: Stage) -> Undo:
    """Send SIGSTOP, and SIGCONT at the end."""
    pids = [stage.pid(role) for role in roles]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return go_on


ROUTE = frozenset({"route"})
FAULTS = (
    Fault("kill the scheduler", partial(kill, "scheduler")),
    Fault("kill the engine process", partial(kill, "engine")),
    Fault(
        "kill a model's process",
        kill_model,
        1.0,
        (UNANSWERED, NOT_HEALTHY, *GONE),
        stops_decisions=True,
        may_crash=LOCKED,
    ),
    Fault("kill the router", kill_router, 1.0, needs=ROUTE),
    Fault("stop the scheduler", partial(stop, ("scheduler",)), 2.0, stops_decisions=True),
    Fault("stop the engine process", partial(stop, ("engine",)), 1.0, stops_decisions=True),
    Fault("stop a model's process", partial(stop, (SPARE,)), 0.3, stops_decisions=True, may_crash=PAUSED),
    Fault("stop tritonserver", partial(stop, ("server",)), 0.3, stops_decisions=True, may_crash=PAUSED),
    Fault("stop the router", partial(stop, ("router",)), 2.0, needs=ROUTE),
    Fault(
        "stop them all",
        partial(stop, (*ALL, "scheduler", "engine", "server")),
        0.3,
        stops_decisions=True,
        may_crash=PAUSED,
    ),
)
