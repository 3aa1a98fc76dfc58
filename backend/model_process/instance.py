"""Reads Triton's requests of one model and hands them to its dispatcher.

A request's way: execute → dispatcher → scheduler → lane → batch runner → engine → responder. Nobody calls back.
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

import msgspec

from backend.config.model_config import ModelConfig
from backend.engine_process.client.engine import EngineClient
from backend.engines.machine import machine_facts
from backend.engines.protocol import Engine
from backend.errors import RequestError
from backend.linux.sibling_processes import has_older_siblings
from backend.model_process import batch as batches
from backend.model_process.batch_runner import BatchRunner
from backend.model_process.devices.forecast import DeviceForecast
from backend.model_process.devices.group import DeviceGroup, Member
from backend.model_process.dispatcher import Dispatcher
from backend.model_process.exporter import Exporter, Exporters
from backend.model_process.load_profile import profile_at_load
from backend.model_process.loading.child_in_gaps import child_in_gaps
from backend.model_process.loading.profile_runs import ProfileRuns
from backend.model_process.metrics import Metrics
from backend.model_process.placement import lanes_of, pinned_cores, preemptible_lanes
from backend.model_process.request import Arrival, Due, Pending, read_due, read_tensor
from backend.model_process.responder import Responder, Sender
from backend.scheduler.messages import PROTOCOL, Join
from backend.trial.messages import Trial
from predictor.workload import ModelProfile

_log = logging.getLogger("isochrone")
_GATHER_S = 0.001
_ASK_CANCELLED_AFTER_NS = 100_000_000
_ASK_CANCELLED_AT_ONCE = 16


class Instance:
    """A model that takes requests. engine: closed by the instance; trial: the one of its file.

    warm_ups: calls of `execute` with Triton's own requests that come first. others: the same model on further devices,
    with engines that are closed as well. Raises IsochroneError where the model cannot be served.
    """

    def __init__(
        self,
        config: ModelConfig,
        engine: Engine,
        trial: Trial,
        warm_ups: int = 0,
        others: Sequence[tuple[ModelConfig, Engine]] = (),
    ) -> None:
        self._config, self._engines = config, [engine, *(each for _, each in others)]
        self._warm_ups = warm_ups
        self._specs = {spec.name: spec for spec in config.inputs}
        self._required = [spec.name for spec in config.inputs if not spec.optional]
        self._ids = itertools.count(1)
        self._closing = False
        self._last_asked = 0
        self._per_device = [Metrics() for _ in self._engines]
        self._metrics = self._per_device[0]
        self._responder = Responder(config.name, self._metrics)
        sole = not has_older_siblings()
        exporters, members = list[Exporter](), list[Member]()
        for (placed, its_engine), metrics in zip(((config, engine), *others), self._per_device, strict=True):
            members.append(self._member(placed, its_engine, trial, metrics))
            labels = (placed.name, placed.version, placed.device)
            exporters.append(Exporter(metrics, *labels, emulated=placed.emulated is not None, sole=sole))
        self._dispatcher = members[0].dispatcher if len(members) == 1 else DeviceGroup(members, warm_ups)
        self._responder.start(Exporters(exporters), self._drop_cancelled)

    def _member(self, config: ModelConfig, engine: Engine, trial: Trial, metrics: Metrics) -> Member:
        """Profile the model on a device, and join that one's scheduler."""
        found = profile_at_load(config, engine, trial, ProfileRuns, partial(child_in_gaps, config))
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
            slo_ns=parameters.slo_ns,
            machine=msgspec.json.encode(machine_facts(config.device, config.device_id)).decode(),
        )
        runner = BatchRunner(config, engine, self._responder.counting(metrics))
        dispatcher = Dispatcher(config.device, lanes_of(config), join, runner, metrics, pinned_cores(config))
        metrics.read_gauges = dispatcher.gauges
        return Member(dispatcher, DeviceForecast(_solo_ns(found.profile), lanes_of(config)), partial(_is_away, engine))

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
                self._responder.refuse(sender, self._full(), "UNAVAILABLE", "rejected")
                continue
            try:
                accepted.append(self._read(request, sender, arrival, warming))
            except RequestError as error:
                self._responder.refuse(sender, self._sentence(error), "INVALID_ARG", "failed")
            except MemoryError as error:
                what = str(error) or "no memory is left to read the request"
                self._responder.refuse(sender, self._sentence(what), "UNAVAILABLE", "failed")
            except Exception as error:
                self._broken([sender], "the request could not be read", error)
        if accepted:
            self._submit(accepted)
        if len(self._dispatcher) >= self._config.max_batch_size > 1:
            # A full batch waits already. What arrives meanwhile comes with the next call, together: each call costs
            # three processes more than the requests in it do.
            time.sleep(_GATHER_S)

    @property
    def ready(self) -> bool:
        """True while requests are served. Without a scheduler they are, in order of arrival; without an engine not."""
        return not self._closing and any(engine.lost is None for engine in self._engines)

    def close(self) -> None:
        """Stop, once Triton has seen every answer; whatever still waits is answered all the same."""
        self._closing = True
        for request in self._dispatcher.close():
            self._responder.refuse(request.sender, "the model is being unloaded", "UNAVAILABLE", "failed")
        for metrics in self._per_device:
            metrics.read_gauges = dict  # whatever became of its batches, its part is taken back
        self._responder.close()
        for engine in self._engines:
            engine.close()

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
        """Log a bug, of ours or of a library, and refuse the requests."""
        _log.error("isochrone: model '%s': %s", self._config.name, what, exc_info=error)
        for sender in senders:
            self._responder.refuse(sender, self._sentence(f"{what}: {error!r}"), "INTERNAL", "failed")

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

    # On the responder's thread

    def _drop_cancelled(self) -> None:
        """Ask Triton which of some old requests were cancelled, each time the next ones: asking takes some 34 µs."""
        old = time.monotonic_ns() - _ASK_CANCELLED_AFTER_NS
        asked = self._dispatcher.waiting_since(old, self._last_asked, _ASK_CANCELLED_AT_ONCE)
        self._last_asked = asked[-1].id if len(asked) == _ASK_CANCELLED_AT_ONCE else 0
        for request in asked:
            if request.sender.is_cancelled() and self._dispatcher.cancel(request):
                self._responder.refuse(request.sender, "the request was cancelled", "CANCELLED", "cancelled")

    def _full(self) -> str:
        limit = self._config.parameters.max_queue_size
        return self._sentence(f"{limit} requests are waiting already, which is its max_queue_size")

    def _sentence(self, what: object) -> str:
        return f"model '{self._config.name}': {what}"


def _solo_ns(profile: ModelProfile) -> list[tuple[int, int]]:
    """Latencies alone by rows, as far as they are known at load."""
    return [(size, profile.at(size).solo_ns) for size in profile.batch_sizes]


def _is_away(engine: Engine) -> bool:
    """True while a device's engine is gone, for good or until it is started again."""
    return engine.lost is not None or (isinstance(engine, EngineClient) and engine.away)
