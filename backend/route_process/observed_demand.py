"""Demand and machines for a placement, from what devices published over a while. Pure.

A model's figures on a machine are those that were measured on a machine of the same name, else those that
`MachineFigures` predicts from the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from backend.errors import ConfigError
from backend.fleet.machine_figures import MachineFigures
from backend.fleet.placement import MachineSpace, ModelDemand
from backend.fleet.snapshot import DeviceSnapshot

_UNLIMITED_BYTES = 1 << 62


class StatedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Demand for a model as its owner states it. rate_per_s: null: as observed. memory_mb: on a device."""

    model: str
    rate_per_s: float | None = None
    memory_mb: float = 0.0
    replicas: int = 1


class DemandFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Models that `isochrone place` is told more of than it can observe."""

    models: tuple[StatedModel, ...]


@dataclass
class ObservedServer:
    """One server. repository: models that it could load. first, last: of the snapshots, by device."""

    name: str
    repository: Collection[str]
    first: dict[str, DeviceSnapshot] = field(default_factory=dict)
    last: dict[str, DeviceSnapshot] = field(default_factory=dict)

    def observe(self, snapshot: DeviceSnapshot) -> None:
        """Take in a snapshot."""
        self.first.setdefault(snapshot.device, snapshot)
        self.last[snapshot.device] = snapshot

    @property
    def machine(self) -> str:
        """Name of its hardware."""
        return " + ".join(sorted(one.machine.name for one in self.last.values()))

    def models(self) -> set[str]:
        """Names of the models that it holds."""
        return {state.name for snapshot in self.last.values() for state in snapshot.models}

    def arrived(self, model: str) -> int:
        """Requests for a model between the first and the last snapshot."""
        return sum(_arrivals(last, model) - self._before(last, model) for last in self.last.values())

    def space(self) -> MachineSpace:
        """Describe it for a placement: a kind of its own, since what it can load is its own."""
        bytes_known = [one.machine.memory_bytes for one in self.last.values()]
        known = [count for count in bytes_known if count is not None]
        memory_bytes = sum(known) if len(known) == len(bytes_known) else _UNLIMITED_BYTES
        lanes = sum(one.lanes for one in self.last.values())
        return MachineSpace(self.name, self.name, memory_bytes, lanes, tuple(sorted(self.models())))

    def _before(self, last: DeviceSnapshot, model: str) -> int:
        first = self.first[last.device]
        return _arrivals(first, model) if first.publisher == last.publisher else 0


def _arrivals(snapshot: DeviceSnapshot, model: str) -> int:
    return sum(state.arrivals for state in snapshot.models if state.name == model)


def read_demand(path: Path) -> dict[str, StatedModel]:
    """Read a file of stated demand, by model. Raises ConfigError."""
    try:
        models = msgspec.json.decode(path.read_bytes(), type=DemandFile).models
    except OSError as error:
        raise ConfigError(f"--demand {path} cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"--demand {path}: {error}") from None
    for one in models:
        for name, value, least in (
            ("replicas", one.replicas, 1),
            ("memory_mb", one.memory_mb, 0),
            ("rate_per_s", one.rate_per_s or 0.0, 0),
        ):
            if value < least:
                raise ConfigError(
                    f"--demand {path}: {name} of model '{one.model}' is {value:g}; it must be {least} or more"
                )
    return {one.model: one for one in models}


def demand(
    servers: Sequence[ObservedServer], seconds: float, stated: Mapping[str, StatedModel], figures: MachineFigures
) -> tuple[ModelDemand, ...]:
    """Demand for each model that some server holds. figures: which have been told of these servers.

    Raises ConfigError where a model is stated that no server holds.
    """
    held = {name for server in servers for name in server.models()}
    for name in stated:
        if name not in held:
            raise ConfigError(f"the demand names model '{name}', which no server holds, so that nothing is known of it")
    return tuple(_demand(name, servers, seconds, stated.get(name, StatedModel(name)), figures) for name in sorted(held))


def _demand(
    name: str, servers: Sequence[ObservedServer], seconds: float, stated: StatedModel, known: MachineFigures
) -> ModelDemand:
    able = [server for server in servers if name in server.repository or name in server.models()]
    figures = {s.name: found for s in able if (found := known.figures(name, s.machine)) is not None}
    rate_per_s = sum(server.arrived(name) for server in servers) / seconds
    if stated.rate_per_s is not None:
        rate_per_s = stated.rate_per_s
    return ModelDemand(name, rate_per_s, round(stated.memory_mb * 1e6), figures, stated.replicas)


def figures_of(servers: Sequence[ObservedServer], known: MachineFigures | None = None) -> MachineFigures:
    """Tell `known`, or new figures, of what servers have measured."""
    found = MachineFigures() if known is None else known
    for server in servers:
        found.observe(server.machine, list(server.last.values()))
    return found
