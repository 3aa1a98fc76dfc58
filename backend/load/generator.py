"""Open-loop load through tritonclient's gRPC: each request leaves at its planned time, whether or not others came back.

One thread sends, gRPC's own takes the answers (beside it, asyncio costs a fifth more and sends a millisecond late).
Inputs are serialised once; every request has a time limit and requests in flight are bounded, so a run always ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from backend.errors import ServerError
from backend.load.arrivals import NO_DEADLINE_MS, Arrival
from backend.load.interruption import Interruption, interruptible
from backend.load.outcomes import Outcome, Status

TIMEOUT_S = 10.0
IN_FLIGHT_MAX = 2_048
_GRACE_S = 5.0  # beyond the time limit, for gRPC to tell that it has passed
_LEAD_S = 0.05
_PROGRESS_S = 0.5
_NAP_S = 0.05
_ERROR_CHARS_MAX = 200
_LEFT_MS_MIN = 0.001
_REJECTIONS = ("cannot meet its deadline", "max_queue_size", "Request timeout expired")
"""Words of this backend, and of Triton's own queue policies."""

Payloads = Mapping[str, Sequence[Any]]
"""Model → tritonclient's InferInput of one request, used for every request of that model."""


class LoadInterrupted(KeyboardInterrupt):
    """The user's Ctrl-C. `outcomes`: of the requests that were answered before it."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        super().__init__()
        self.outcomes = outcomes


def run_load(
    url: str,
    plan: Sequence[Arrival],
    payloads: Payloads,
    *,
    timeout_s: float = TIMEOUT_S,
    in_flight_max: int = IN_FLIGHT_MAX,
    on_progress: Callable[[float], None] | None = None,
) -> list[Outcome]:
    """Send the plan and wait for what comes back: an outcome per arrival, in the plan's order.

    Deadline and class go along as request parameters, and as headers for a router; the deadline counts from the planned
    instant.
    `on_progress` is called about twice a second with the seconds since the start. Raises LoadInterrupted, and
    ServerError where no server answers.
    """
    run = _OpenLoopRun(plan, payloads, timeout_s, in_flight_max, on_progress or (lambda _: None))
    return interruptible(partial(run.against, url))


class _OpenLoopRun:
    """One plan under way. Slot i of each list belongs to arrival i; a slot is written once."""

    def __init__(
        self,
        plan: Sequence[Arrival],
        payloads: Payloads,
        timeout_s: float,
        in_flight_max: int,
        on_progress: Callable[[float], None],
    ) -> None:
        self._plan, self._payloads = plan, payloads
        self._timeout_s, self._in_flight_max, self._on_progress = timeout_s, in_flight_max, on_progress
        self._sent_s = [0.0] * len(plan)
        self._answers: list[tuple[float, Status, str] | None] = [None] * len(plan)
        self._in_flight = 0
        self._changed = threading.Condition()
        self._start_s = 0.0
        self._start_unix_ns = 0
        self._next_progress_s = 0.0

    def against(self, url: str, interruption: Interruption) -> list[Outcome]:
        with triton.InferenceServerClient(url) as client:
            try:
                client.is_server_live()  # opens the connection
            except InferenceServerException as error:
                raise ServerError(f"the server at {url} is gone: {error.message()}") from None
            self._start_s = time.monotonic() + _LEAD_S
            self._start_unix_ns = time.time_ns() + round(_LEAD_S * 1e9)
            self._send(client, interruption)
            self._wait(interruption)
            if interruption.asked:  # what is still out gets an answer of the client's own, once that is closed
                raise LoadInterrupted(self._outcomes(unanswered=False))
            return self._outcomes(unanswered=True)

    def _send(self, client: Any, interruption: Interruption) -> None:
        for i, arrival in enumerate(self._plan):
            self._sleep_until(arrival.at_s, interruption)
            if interruption.asked:
                return
            self._sent_s[i] = self._now_s()
            if self._in_flight >= self._in_flight_max:
                self._answers[i] = (self._sent_s[i], "failed", f"not sent: {self._in_flight_max} are in flight already")
                continue
            self._send_one(client, i, arrival)

    def _wait(self, interruption: Interruption) -> None:
        """Waits for the answers still out, no longer than a request may take."""
        end_s = self._now_s() + self._timeout_s + _GRACE_S
        with self._changed:
            while self._in_flight and not interruption.asked and (left_s := end_s - self._now_s()) > 0:
                self._changed.wait(min(left_s, _NAP_S))
                self._tell_progress(self._now_s())

    def _outcomes(self, *, unanswered: bool) -> list[Outcome]:
        """Outcomes in the plan's order. unanswered: also of requests without an answer, which failed."""
        no_answer: tuple[float, Status, str] = (self._now_s(), "failed", "no answer")
        sent = zip(self._plan, self._sent_s, self._answers, strict=True)
        return [a.outcome(sent_s, *(answer or no_answer)) for a, sent_s, answer in sent if answer or unanswered]

    def _send_one(self, client: Any, i: int, arrival: Arrival) -> None:
        with self._changed:
            self._in_flight += 1
        parameters = {"priority_class": arrival.priority}
        headers = {"x-isochrone-priority": str(arrival.priority)}  # for a router, where there is one
        if arrival.slo_ms < NO_DEADLINE_MS:
            parameters["deadline_ns"] = self._start_unix_ns + round((arrival.at_s + arrival.slo_ms / 1e3) * 1e9)
            left_ms = arrival.slo_ms - (self._now_s() - arrival.at_s) * 1e3
            headers["x-isochrone-slo-ms"] = f"{max(left_ms, _LEFT_MS_MIN):.3f}"
        try:
            client.async_infer(
                arrival.model,
                self._payloads[arrival.model],
                partial(self._answered, i),
                client_timeout=self._timeout_s,
                parameters=parameters,
                headers=headers,
            )
        except InferenceServerException as error:
            self._answered(i, None, error)

    def _answered(self, i: int, result: Any, error: Exception | None) -> None:  # noqa: ARG002 - tritonclient's call
        answered_s = self._now_s()
        status: Status = "ok" if error is None else "rejected" if is_rejection(error) else "failed"
        with self._changed:
            self._answers[i] = (answered_s, status, str(error)[:_ERROR_CHARS_MAX] if error else "")
            self._in_flight -= 1
            if self._in_flight == 0:
                self._changed.notify()

    def _sleep_until(self, at_s: float, interruption: Interruption) -> None:
        self._tell_progress(self._now_s())
        interruption.sleep(at_s - self._now_s())

    def _tell_progress(self, now_s: float) -> None:
        if now_s >= self._next_progress_s:
            self._next_progress_s = now_s + _PROGRESS_S
            self._on_progress(max(0.0, now_s))

    def _now_s(self) -> float:
        return time.monotonic() - self._start_s


def is_rejection(error: Exception) -> bool:
    """Tells whether the server declined a request; one that is away is UNAVAILABLE as well."""
    return (
        isinstance(error, InferenceServerException)
        and str(error.status()).endswith("UNAVAILABLE")
        and any(words in error.message() for words in _REJECTIONS)
    )
