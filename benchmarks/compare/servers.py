"""The servers that are compared, by name: how each one's model repository is written and how it is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from backend.load.arrivals import Traffic
from backend.scheduler_process import sample_log, scheduler_factory
from backend.server.embedded import EmbeddedServer
from benchmarks.harness.servers import temporary_server
from benchmarks.models.blocking_backend import write_stock
from benchmarks.models.model_repository import MAX_BATCH_SIZE, link_files, link_models, write_configs
from benchmarks.models.profiles import p95_ms
from benchmarks.rivals import NAME_VARIABLE, RIVALS, SAMPLES_VARIABLE
from profiler.profile_file import NAME, ProfileFile

OURS = "isochrone"
RECORDING = f"{OURS}, recording"
"""Ours once more, to look into: its batches tell the simulator of the device, its metrics where the time went. A server
of its own, for neither the writing nor the pauses that metrics take belong in a comparison."""
REFUSED = f"{OURS}, class 2 refused"
"""No rival but a bound: what the first class keeps where nothing of the other one is ever executed."""


@dataclass(frozen=True)
class ServerSetup:
    """Inputs of every server. sources: by the number of lanes, a repository of the models and their profiles on such a
    device, the most of which has a core to each; traffic: deadlines and classes by model, whatever the rates; on_miss:
    of this backend's.
    """

    sources: Mapping[int, Path]
    traffic: Sequence[Traffic]
    profiles: Mapping[str, ProfileFile]
    samples: Path | None = None
    on_miss: str = "reject"

    @property
    def lanes(self) -> int:
        return max(self.sources)

    @property
    def models(self) -> list[str]:
        return [t.model for t in self.traffic]


@dataclass(frozen=True)
class Stock:
    """A blocking Python model with ONNX Runtime (`benchmarks/models/blocking_model.py`), dynamic batching.

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
            "isochrone, no preemption",
            "isochrone, no prediction",
            "isochrone, gpulets",
            "isochrone, RLS",
            "strait",
        )
    },
    OURS: Ours("this backend"),
    RECORDING: Ours("the same, which also writes a sample of each batch, for the simulator"),
    REFUSED: Ours("the same, which refuses every request of class 2 as it comes", rival="isochrone, class 2 refused"),
}


@contextmanager
def running(name: str, setup: ServerSetup, record: Path | None = None) -> Iterator[EmbeddedServer]:
    """Serves by that name, with a scheduler that has learned nothing.

    record: a new file for the batches that the scheduler hears of.
    """
    kind = SERVERS[name]
    env = {} if record is None else {sample_log.VARIABLE: str(record.absolute())}
    extra: list[str] = []
    if isinstance(kind, Stock):
        write = partial(_write_stock, kind, setup)
        if kind.limited:
            extra = ["--rate-limit=execution_count", f"--rate-limit-resource=lane:{setup.lanes}"]
    else:
        write = partial(_write_ours, kind, setup, lanes_of(name, setup.lanes))
        if kind.rival is not None:
            env |= {scheduler_factory.VARIABLE: "benchmarks.rivals:scheduler_by_name", NAME_VARIABLE: kind.rival}
            env |= {} if setup.samples is None else {SAMPLES_VARIABLE: str(setup.samples.absolute())}
    with temporary_server(write, env=env, extra=extra) as server:
        yield server


def lanes_of(name: str, lanes: int) -> int:
    """Lanes of a server, on a device with so many."""
    kind = SERVERS[name]
    rival = None if isinstance(kind, Stock) or kind.rival is None else RIVALS[kind.rival]
    return lanes if rival is None else rival.lanes or lanes


def _write_ours(kind: Ours, setup: ServerSetup, lanes: int, repository: Path) -> None:
    source = setup.sources[lanes]
    for model in link_models(source, repository, setup.models):
        link_files(repository / model / "1", [source / model / "1" / NAME])
    aware = "true" if kind.aware else "false"
    write_configs(repository, {"interference_aware": aware, "on_miss": setup.on_miss, "device_lanes": str(lanes)})


def _write_stock(kind: Stock, setup: ServerSetup, repository: Path) -> None:
    link_models(setup.sources[setup.lanes], repository, setup.models)
    for t in setup.traffic:
        batching, limiter = "dynamic_batching {}", ""
        if kind.timeouts:
            assert t.slo_ms is not None
            left_us = max(1, round((t.slo_ms - p95_ms(setup.profiles[t.model])) * 1e3))
            batching = (
                "dynamic_batching { default_queue_policy { timeout_action: REJECT "
                f"default_timeout_microseconds: {left_us} }} }}"
            )
        if kind.limited:
            limiter = f'rate_limiter {{ resources [ {{ name: "lane" count: 1 }} ] priority: {t.priority_class} }}'
        instances = kind.instances or setup.lanes
        write_stock(repository / t.model, MAX_BATCH_SIZE, instances, batching=batching, limiter=limiter)
