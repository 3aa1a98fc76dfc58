"""One model in its process: connects Triton's calls with the queue, the engine, the scheduler and the answers.

A request's way: execute → dispatcher → scheduler → lane → runner → engine → voice. Nothing here decides anything.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import triton_python_backend_utils as pb_utils

from backend.config.model_config import ModelConfig
from backend.engines.protocol import Engine
from backend.errors import RequestError
from backend.model_process import batch as batches
from backend.model_process.batch import Answered, Batch
from backend.model_process.batch_runner import BatchRunner
from backend.model_process.dispatcher import Dispatcher, Handlers
from backend.model_process.exporter import Exporter
from backend.model_process.load_profile import profile_at_load
from backend.model_process.metrics import Metrics
from backend.model_process.placement import lanes_of, pinned_cores, preemptible_lanes
from backend.model_process.request import Arrival, Due, Pending, read_due, read_tensor
from backend.model_process.responder import Answer, Voice, cancelled
from backend.model_process.sender import Sender
from backend.scheduler.messages import PROTOCOL, Decided, Join, Launch, Reject
from backend.trial.messages import Trial

_log = logging.getLogger("isochrone")
_GATHER_S = 0.001
_ASK_CANCELLED_AFTER_NS = 100_000_000
_ASK_CANCELLED_AT_ONCE = 16


class Instance:
    """A model that takes requests. engine: its own from now on; trial: what is known of its file.

    warm_ups: so many calls of `execute` come first with Triton's own requests. Raises IsochroneError where it cannot be
    served.
    """

    def __init__(self, config: ModelConfig, engine: Engine, trial: Trial, warm_ups: int = 0) -> None:
        self._config, self._engine = config, engine
        self._warm_ups = warm_ups
        self._specs = {spec.name: spec for spec in config.inputs}
        self._required = [spec.name for spec in config.inputs if not spec.optional]
        self._ids = itertools.count(1)
        self._last_asked = 0
        self._metrics = Metrics()
        found = profile_at_load(config, engine, trial)
        parameters = config.parameters
        join = Join(
            protocol=PROTOCOL,
            model=config.name,
            version=config.version,
            max_batch_size=config.max_batch_size if trial.splits else min(1, config.max_batch_size),
            lanes=parameters.device_lanes,
            profile=found.profile,
            profiled_group=found.group,
            interference_aware=parameters.interference_aware,
            rejects=parameters.on_miss == "reject",
            preemptible_lanes=preemptible_lanes(config),
        )
        runner = BatchRunner(config, engine, lambda: self._dispatcher.limit_batches(1))
        handlers = Handlers(runner.run, self._done, self._ended, self._rejected, self._decided)
        self._dispatcher = Dispatcher(config.device, lanes_of(config), join, handlers, pinned_cores(config))
        exporter = Exporter(self._metrics, config.name, config.version, config.emulated)
        self._voice = Voice(config.name, exporter, self._drop_cancelled)

    def execute(self, requests: Sequence[Any]) -> None:
        """Queue what Triton hands over. Answers follow through each request's response sender.

        Whatever is wrong with one request, the others are served: Triton would fail them all if this raised.
        """
        arrival = Arrival(time.monotonic_ns(), time.time_ns())
        warming = self._warm_ups > 0
        self._warm_ups -= warming
        accepted: list[Pending] = []
        room = len(requests) if warming else self._config.parameters.max_queue_size - len(self._dispatcher)
        for request in requests:
            sender = Sender(request)
            if len(accepted) >= room:
                self._refuse(sender, self._full(), pb_utils.TritonError.UNAVAILABLE, "rejected")
                continue
            try:
                accepted.append(self._read(request, sender, arrival, warming))
            except RequestError as error:
                self._refuse(sender, self._sentence(error), pb_utils.TritonError.INVALID_ARG, "failed")
            except MemoryError as error:
                said = str(error) or "no memory is left to read the request"
                self._refuse(sender, self._sentence(said), pb_utils.TritonError.UNAVAILABLE, "failed")
            except Exception as error:
                self._broken([sender], "the request could not be read", error)
        if accepted:
            self._submit(accepted)
        if len(self._dispatcher) >= self._config.max_batch_size > 1:
            # A full batch waits already. What arrives meanwhile comes with the next call, together: each call costs
            # three processes more than the requests in it do.
            time.sleep(_GATHER_S)

    def close(self) -> None:
        """Called once Triton has seen every answer; whatever still waits is answered all the same."""
        for request in self._dispatcher.close():
            self._refuse(request.sender, "the model is being unloaded", pb_utils.TritonError.UNAVAILABLE, "failed")
        self._voice.close()
        self._engine.close()

    def _submit(self, accepted: Sequence[Pending]) -> None:
        try:
            self._dispatcher.submit(accepted)
        except Exception as error:
            for request in accepted:
                with suppress(Exception):
                    self._dispatcher.cancel(request)
            # Those that run all the same have had this answer when theirs comes, which is dropped.
            self._broken([request.sender for request in accepted], "the request could not be queued", error)

    def _broken(self, senders: Sequence[Sender], what: str, error: Exception) -> None:
        """A bug, of ours or of a library: all of it is in the log."""
        _log.error("isochrone: model '%s': %s", self._config.name, what, exc_info=error)
        for sender in senders:
            self._refuse(sender, self._sentence(f"{what}: {error!r}"), pb_utils.TritonError.INTERNAL, "failed")

    def _read(self, request: Any, sender: Sender, arrival: Arrival, warming: bool) -> Pending:
        batching = self._config.max_batch_size > 0
        inputs = {}
        for tensor in request.inputs():
            spec = self._specs.get(tensor.name())
            if spec is None:
                raise RequestError(f"unknown input '{tensor.name()}'")
            inputs[spec.name] = read_tensor(spec, tensor.as_numpy(), batching)
        for name in self._required:
            if name not in inputs:
                raise RequestError(f"input '{name}' is missing")
        due = Due(None, self._config.parameters.priority)
        if not warming:  # else Triton's own, which must not fail the load
            given = json.loads(text) if (text := request.parameters()) else {}
            due = read_due(given, request.timeout(), self._config.parameters, arrival)
        rows = {a.shape[0] for a in inputs.values()} if batching else {1}
        if len(rows) != 1:
            raise RequestError(f"the inputs have different batch dimensions: {sorted(rows)}")
        if 0 in rows:
            raise RequestError("the batch dimension is 0; it must be 1 or more")
        lead = 1 if batching else 0
        group = batches.group_of({name: array.shape[lead:] for name, array in inputs.items()})
        wanted = tuple(dict.fromkeys(request.requested_output_names()))
        return Pending(
            next(self._ids),
            sender,
            inputs,
            wanted,
            rows.pop(),
            group,
            arrival.monotonic_ns,
            due.deadline_ns,
            due.priority,
        )

    # On a lane's thread

    def _done(self, batch: Batch, answers: list[Answered]) -> None:
        say = self._voice.say_now if batch.leased else self._voice.say
        for request, answer in zip(batch.requests, answers, strict=True):
            if isinstance(answer, Exception):
                self._refuse(request.sender, self._sentence(answer), pb_utils.TritonError.INTERNAL, "failed")
            else:
                say(Answer(request.sender, answer, told=partial(self._told, request)))

    def _ended(self, batch: Batch, answers: list[Answered]) -> None:
        if batch.launch is None:
            self._metrics.count("isochrone_fail_open_total")
        if batch.rerun:
            self._metrics.count("isochrone_batches_rerun_total")
        for request in batch.requests:
            self._metrics.observe("isochrone_queue_us", (batch.launched_ns - request.arrival_ns) / 1e3)
        if not all(isinstance(answer, Exception) for answer in answers):
            self._metrics.batch_ended(batch)

    def _told(self, request: Pending, now_ns: int, sent: bool) -> None:
        if not sent:
            self._metrics.count("isochrone_requests_total", "failed")
            return
        met = request.deadline_ns is None or now_ns <= request.deadline_ns
        self._metrics.count("isochrone_requests_total", "met" if met else "missed")
        self._metrics.observe("isochrone_request_latency_us", (now_ns - request.arrival_ns) / 1e3)

    # On the link's thread

    def _decided(self, decided: Decided) -> None:
        if decided.samples_lost:
            self._metrics.count("isochrone_samples_lost_total", by=decided.samples_lost)
        if any(isinstance(command, Launch | Reject) for command in decided.commands):
            self._metrics.observe("isochrone_decision_us", decided.took_ns / 1e3)
        for command in decided.commands:
            if isinstance(command, Launch):
                self._metrics.count("isochrone_decisions_total", command.decision)
                if command.holds:
                    self._metrics.count("isochrone_decisions_total", "hold", command.holds)
            elif isinstance(command, Reject):
                self._metrics.count("isochrone_decisions_total", "reject")

    def _rejected(self, request: Pending, reject: Reject) -> None:
        sentence = (
            f"the request cannot meet its deadline: {reject.predicted_ns / 1e6:.1f} ms predicted from arrival "
            f"to answer, {reject.allowed_ns / 1e6:.1f} ms allowed"
        )
        self._refuse(request.sender, self._sentence(sentence), pb_utils.TritonError.UNAVAILABLE, "rejected")

    # On a voice's thread

    def _drop_cancelled(self) -> None:
        """Asks of some that have waited long, each time of the next ones: a question costs some 34 µs."""
        old = time.monotonic_ns() - _ASK_CANCELLED_AFTER_NS
        asked = self._dispatcher.waiting_since(old, self._last_asked, _ASK_CANCELLED_AT_ONCE)
        self._last_asked = asked[-1].id if len(asked) == _ASK_CANCELLED_AT_ONCE else 0
        for request in cancelled(asked):
            if self._dispatcher.cancel(request):
                self._refuse(request.sender, "the request was cancelled", pb_utils.TritonError.CANCELLED, "cancelled")

    def _refuse(self, sender: Sender, sentence: str, code: int, outcome: str) -> None:
        def told(_now_ns: int, _sent: bool) -> None:
            self._metrics.count("isochrone_requests_total", outcome)

        self._voice.say(Answer(sender, error=sentence, code=code, told=told))

    def _full(self) -> str:
        limit = self._config.parameters.max_queue_size
        return self._sentence(f"{limit} requests are waiting already, which is its max_queue_size")

    def _sentence(self, what: object) -> str:
        return f"model '{self._config.name}': {what}"
