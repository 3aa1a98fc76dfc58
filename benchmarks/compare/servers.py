"""The servers that are compared, by name: how each one's model repository is written and how it is started."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.scheduler_process import sample_log
from backend.scheduler_process import scheduler_factory as variant
from backend.server.embedded import EmbeddedServer
from benchmarks.harness.blocking_backend import write_stock
from benchmarks.harness.model_repository import MAX_BATCH_SIZE, link_models, short_temporary_folder, write_configs
from benchmarks.rivals import NAME_VARIABLE, RIVALS, SAMPLES_VARIABLE
from profiler.profile_file import NAME

OURS = "isochrone"
RECORDING = f"{OURS}, recording"
"""Ours once more, to look into: its batches tell the simulator of the device, its metrics where the time went. A server
of its own, for neither the writing nor the pauses that metrics take belong in a comparison."""
REFUSED = f"{OURS}, class 2 refused"
"""No rival but a bound: what the first class keeps where nothing of the other one is ever executed."""
READY_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class ServerSetup:
    """What a server is set up for. sources: by the number of lanes, a repository of the models and their profiles on
    such a device; the rest: per model.
    """

    sources: Mapping[int, Path]
    classes: Mapping[str, int]
    slo_ms: Mapping[str, float]
    solo_ms: Mapping[str, float]
    lanes: int
    samples: Path | None = None


@dataclass(frozen=True)
class Stock:
    """A blocking Python model with ONNX Runtime (`benchmarks/stock_model.py`), dynamic batching.

    instances: per model; None: one per lane. limited: Triton's rate limiter lets as many run at once as there are
    lanes, high classes first. timeouts: a request that waited until its deadline is out of reach is refused.
    """

    what: str
    instances: int | None = None
    limited: bool = False
    timeouts: bool = False


@dataclass(frozen=True)
class Ours:
    """This backend. rival: of `RIVALS`, in place of the scheduler. aware: `interference_aware`."""

    what: str
    rival: str | None = None
    aware: bool = True


SERVERS: dict[str, Stock | Ours] = {
    "stock, 1 instance": Stock("Triton's default: dynamic batching, one instance per model", instances=1),
    "stock, an instance per lane": Stock("dynamic batching, as many instances per model as lanes"),
    "stock, rate limiter": Stock("an instance per lane, at most as many at once as lanes, by class", limited=True),
    "stock, queue timeouts": Stock("the same, and refusal of what waited too long", limited=True, timeouts=True),
    "in order": Ours("this backend with interference_aware off", aware=False),
    **{
        name: Ours(RIVALS[name].what, rival=name)
        for name in (
            "one at a time",
            "edf",
            "naive",
            "no preemption",
            "ours, no prediction",
            "ours, gpulets",
            "ours, RLS",
            "strait",
        )
    },
    OURS: Ours("this backend"),
    RECORDING: Ours("the same, which also writes a sample of each batch, for the simulator"),
    REFUSED: Ours("the same, which refuses every request of class 2 as it comes", rival="class 2 refused"),
}


@contextmanager
def running(name: str, asked: ServerSetup, record: Path | None = None) -> Iterator[EmbeddedServer]:
    """A server of its own, with a scheduler that has learned nothing; nothing of it is left after.

    record: a new file for the batches that the scheduler hears of.
    """
    kind, folder, extra = SERVERS[name], short_temporary_folder(), []
    env = {} if record is None else {sample_log.VARIABLE: str(record.absolute())}
    try:
        if isinstance(kind, Stock):
            _write_stock(folder, kind, asked)
            if kind.limited:
                extra = ["--rate-limit=execution_count", f"--rate-limit-resource=lane:{asked.lanes}"]
        else:
            _write_ours(folder, kind, asked, lanes_of(name, asked.lanes))
            if kind.rival is not None:
                env |= {variant.VARIABLE: "benchmarks.rivals:scheduler_by_name", NAME_VARIABLE: kind.rival}
                env |= {} if asked.samples is None else {SAMPLES_VARIABLE: str(asked.samples.absolute())}
        with EmbeddedServer(folder, env=env, extra=extra, ready_timeout_s=READY_TIMEOUT_S) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lanes_of(name: str, lanes: int) -> int:
    """Of a server, on a device with so many."""
    kind = SERVERS[name]
    rival = None if isinstance(kind, Stock) or kind.rival is None else RIVALS[kind.rival]
    return lanes if rival is None else rival.lanes or lanes


def _write_ours(repository: Path, kind: Ours, asked: ServerSetup, lanes: int) -> None:
    source = asked.sources[lanes]
    for model in link_models(source, repository, asked.classes):
        profile = source / model / "1" / NAME
        (repository / model / "1" / NAME).symlink_to(profile.absolute())
    aware = "true" if kind.aware else "false"
    write_configs(repository, {"interference_aware": aware, "on_miss": "reject", "device_lanes": str(lanes)})


def _write_stock(repository: Path, kind: Stock, asked: ServerSetup) -> None:
    for model in link_models(asked.sources[asked.lanes], repository, asked.classes):
        batching, limiter = "dynamic_batching {}", ""
        if kind.timeouts:
            left_us = max(1, round((asked.slo_ms[model] - asked.solo_ms[model]) * 1e3))
            batching = (
                "dynamic_batching { default_queue_policy { timeout_action: REJECT "
                f"default_timeout_microseconds: {left_us} }} }}"
            )
        if kind.limited:
            limiter = f'rate_limiter {{ resources [ {{ name: "lane" count: 1 }} ] priority: {asked.classes[model]} }}'
        instances = kind.instances or asked.lanes
        write_stock(repository / model, MAX_BATCH_SIZE, instances, batching=batching, limiter=limiter)
