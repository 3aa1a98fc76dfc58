"""`model.emulated.json`: a model of emulated GPUs, with its tensors, and its solo latencies on each device it runs on.

Every value is checked at load; docs/how-to/emulate.md has the file's keys.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import msgspec

from backend.engines.protocol import ModelSpecs
from backend.errors import ConfigError, quoted
from backend.simulation.gpu_law import KERNEL_US, PAIR_SD, SATURATION, GpuEffects, GpuLaw, KernelDemand, Regime
from backend.simulation.virtual_gpu import CopyEngines
from backend.tensors import BY_CONFIG, TensorSpec
from predictor.bounded_file import read_at_most
from predictor.workload import Load, ModelProfile
from profiler.brief import batch_sizes

NAME = "model.emulated.json"
SCHEMA = 1
BATCH_SIZE_MAX = 1024
_BYTES_MAX = 1 << 20
DEVICES_MAX = 16
_NS_PER_US = 1000
_PER_DEVICE = ("device", "batches")
"""Keys of a file for one device, and of each of `devices` in one for several."""
_NAME = r"^emulated-[a-z0-9][a-z0-9-]{0,39}\Z"
_HALF = re.compile("[\ud800-\udfff]")
"""Half a character, which JSON can spell."""
_DATATYPES = ", ".join(name for name in BY_CONFIG if name != "TYPE_STRING")


_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_Dimension = Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]
_Watts = Annotated[float, msgspec.Meta(ge=0.0, le=1e4)]


class DeviceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The emulated device and its law's constants, equal in all files that name it.

    pcie_gb_per_s: of a copy alone on its way; copy_latency_us: of each copy beside its bytes; seed: draws the factors
    per ordered pair of models, whose logarithms have the standard deviation pair_sd. From noise_sd on: `GpuEffects`.
    """

    name: Annotated[str, msgspec.Meta(pattern=_NAME)]
    pcie_gb_per_s: Annotated[float, msgspec.Meta(gt=0.0, le=1e4)] = 11.4
    copy_latency_us: Annotated[float, msgspec.Meta(ge=0.0, le=1e6)] = 49.0
    regime: Regime = Regime.SHARED
    saturation: Annotated[float, msgspec.Meta(ge=1.0, le=100.0)] = SATURATION
    pair_sd: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = PAIR_SD
    seed: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)] = 0
    noise_sd: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = GpuEffects.noise_sd
    tail_sd: Annotated[float, msgspec.Meta(ge=0.0, le=3.0)] = GpuEffects.tail_sd
    launch_gap_us: Annotated[float, msgspec.Meta(ge=0.0, le=1e3)] = GpuEffects.launch_gap_us
    priority_relief: _Share = GpuEffects.priority_relief
    mhz_per_w: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] = GpuEffects.mhz_per_w
    boost_mhz: Annotated[float, msgspec.Meta(ge=1.0, le=1e4)] = GpuEffects.boost_mhz
    power_cap_w: _Watts = GpuEffects.power_cap_w

    @property
    def law(self) -> GpuLaw:
        """Law of how batches slow each other down there."""
        effects = GpuEffects(**{each.name: getattr(self, each.name) for each in fields(GpuEffects)})
        return GpuLaw(self.seed, self.pair_sd, self.saturation, self.regime, effects)

    @property
    def copy_engines(self) -> CopyEngines:
        """Copy engines that move inputs and outputs."""
        return CopyEngines(self.pcie_gb_per_s, self.copy_latency_us * _NS_PER_US)


class TensorJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input or output; shape: of one row where the model batches."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    datatype: str
    shape: Annotated[tuple[_Dimension, ...], msgspec.Meta(min_length=1, max_length=8)]


class CounterShares(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shares of the device's peak throughput in a solo run, as a profiler of a GPU would count them."""

    compute: _Share
    l2: _Share
    dram: _Share


class BatchSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Solo runs of one batch size. busy_share: u, the share of the time that kernels run; work_per_kernel: w, the mean
    kernel's work relative to one of 65 µs; features: what the scheduler's predictor is given; power_w: drawn above the
    idle GPU's, 0 where nobody knows.
    """

    batch_size: Annotated[int, msgspec.Meta(ge=1, le=BATCH_SIZE_MAX)]
    solo_us: Annotated[float, msgspec.Meta(ge=1.0, le=6e7)]
    busy_share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
    work_per_kernel: Annotated[float, msgspec.Meta(gt=0.0, le=1e3)]
    features: CounterShares
    power_w: _Watts = 0.0


class EmulatedSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file as it is for one of its devices.

    max_batch_size: 0 where the model does not batch; batches: of 1, of each power of two up to max_batch_size and of
    itself; sizes between are interpolated. source: where the figures come from.
    """

    schema: int
    device: DeviceSpec
    max_batch_size: Annotated[int, msgspec.Meta(ge=0, le=BATCH_SIZE_MAX)]
    inputs: Annotated[tuple[TensorJson, ...], msgspec.Meta(min_length=1)]
    outputs: Annotated[tuple[TensorJson, ...], msgspec.Meta(min_length=1)]
    batches: Annotated[tuple[BatchSpec, ...], msgspec.Meta(min_length=1)]
    source: str = ""

    @property
    def specs(self) -> ModelSpecs:
        """Inputs and outputs as other model files declare them."""
        return ModelSpecs(self._tensors(self.inputs), self._tensors(self.outputs), self.max_batch_size or None)

    @property
    def profile(self) -> ModelProfile:
        """Solo latencies, features and kernel times as the file states them."""
        loads = (
            Load(
                round(b.solo_us * _NS_PER_US),
                *(b.features.compute, b.features.l2, b.features.dram),
                round(b.work_per_kernel * KERNEL_US * _NS_PER_US),
            )
            for b in self.batches
        )
        return ModelProfile(tuple(b.batch_size for b in self.batches), tuple(loads))

    def demand(self, model: str, rows: int, share: float = 1.0, priority: int = 1) -> tuple[float, KernelDemand]:
        """Solo latency in nanoseconds and demand of a batch of `rows`, at most the largest of `batches`.

        share: of the multiprocessors; priority: class of its stream; the latency is that on the whole GPU.
        """
        below = max((b for b in self.batches if b.batch_size <= rows), key=lambda b: b.batch_size)
        above = min((b for b in self.batches if b.batch_size >= rows), key=lambda b: b.batch_size)
        part = (rows - below.batch_size) / max(1, above.batch_size - below.batch_size)

        def between(low: float, high: float) -> float:
            return low + part * (high - low)

        solo_ns = between(below.solo_us, above.solo_us) * _NS_PER_US
        busy_share = between(below.busy_share, above.busy_share)
        work_per_kernel = between(below.work_per_kernel, above.work_per_kernel)
        power_w = between(below.power_w, above.power_w)
        return solo_ns, KernelDemand(model, rows, busy_share, work_per_kernel, share, priority, power_w)

    def _tensors(self, tensors: tuple[TensorJson, ...]) -> tuple[TensorSpec, ...]:
        lead = (-1,) if self.max_batch_size else ()
        return tuple(TensorSpec(t.name, BY_CONFIG[t.datatype], (*lead, *t.shape)) for t in tensors)


def is_emulated(file: Path) -> bool:
    """True for a model file of an emulated GPU."""
    return file.name.endswith(".emulated.json")


def read_spec(file: Path, device: str | None = None) -> EmulatedSpec:
    """Read and check a file: what it says for a device, None for its first. Raises ConfigError, naming the key, its
    value and what is allowed.
    """
    specs = read_specs(file)
    found = specs[0] if device is None else next((spec for spec in specs if spec.device.name == device), None)
    if found is None:
        raise ConfigError(f"'{file}' has no device '{device}', but {', '.join(spec.device.name for spec in specs)}")
    return found


def read_specs(file: Path) -> tuple[EmulatedSpec, ...]:
    """Read and check a file: what it says for each of its devices, in their order. Raises ConfigError."""
    try:
        content = read_at_most(file, _BYTES_MAX)
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"the model file '{quoted(str(file))}' cannot be read: {why}") from None
    try:
        raw = json.loads(content)  # which reads NaN and Infinity, so that the checks below can name their key
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the model file '{file}' is not JSON: {error}") from None
    for key, value in _values(raw, "$"):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"'{file}': {key} is {value}, but must be a finite number")
        if isinstance(value, str) and _HALF.search(value):
            raise ConfigError(f"'{file}': {key} is {json.dumps(value)[:80]}, but must be whole characters")
    if not isinstance(raw, Mapping) or "devices" not in raw:
        return (_checked(file, raw, ""),)
    entries = _entries(file, raw)
    common = {key: value for key, value in raw.items() if key != "devices"}
    specs = tuple(_checked(file, {**common, **entry}, f"devices[{i}].") for i, entry in enumerate(entries))
    names = [spec.device.name for spec in specs]
    for i, name in enumerate(names):
        if names.index(name) != i:
            raise ConfigError(
                f"'{file}': devices[{i}].device.name is '{name}', but must be a name that no other device has"
            )
    return specs


def _entries(file: Path, raw: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    """The devices of a file that names several. Raises ConfigError."""
    for key in _PER_DEVICE:
        if key in raw:
            raise ConfigError(f"'{file}' has both keys 'devices' and '{key}'; put '{key}' into each of devices")
    entries = raw["devices"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= DEVICES_MAX:
        found = f"{len(entries)} devices" if isinstance(entries, list) else json.dumps(entries)[:80]
        raise ConfigError(f"'{file}': devices is {found}, but must be a list of 1 to {DEVICES_MAX} devices")
    for i, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise ConfigError(f"'{file}': devices[{i}] is {json.dumps(entry)[:80]}, but must be an object")
        for key in _PER_DEVICE:
            if key not in entry:
                raise ConfigError(f"'{file}': devices[{i}] lacks key `{key}`")
        for key in entry:
            if key not in (*_PER_DEVICE, "source"):
                raise ConfigError(f"'{file}': devices[{i}] has no key `{key}`")
    return entries


def _checked(file: Path, raw: object, within: str) -> EmulatedSpec:
    """Convert what is said for one device. within: what its keys begin with in sentences. Raises ConfigError."""
    try:
        spec = msgspec.convert(raw, EmulatedSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(f"'{file}': {_sentence(raw, str(error), within)}") from None
    for key, stated, allowed in _contradictions(spec):
        raise ConfigError(f"'{file}': {_path(key, within)} is {stated}, but must be {allowed}")
    return spec


def _path(key: str, within: str) -> str:
    return f"{within}{key}" if key.startswith(_PER_DEVICE) else key


def _values(raw: object, path: str) -> Iterator[tuple[str, object]]:
    """Every text, of a key too, and every number, each with its place."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            yield f"a key of {path.removeprefix('$').removeprefix('.') or 'the file'}", key
            yield from _values(value, f"{path}.{key}")
    elif isinstance(raw, list):
        for index, value in enumerate(raw):
            yield from _values(value, f"{path}[{index}]")
    else:
        yield path.removeprefix("$."), raw


def _sentence(raw: object, error: str, within: str) -> str:
    """Key, value and what is allowed, from msgspec's "Expected `float` <= 1.0 - at `$.batches[0].busy_share`"."""
    said, _, path = error.partition(" - at `$.")
    path = path.rstrip("`")
    for words, meaning in (("Object missing required field ", "lacks"), ("Object contains unknown field ", "has no")):
        if said.startswith(words):
            return f"{_path(path, within) or 'the file'} {meaning} key {said.removeprefix(words)}"
    found: object = raw
    for key in path.replace("[", ".").replace("]", "").split("."):
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal():
            found = found[int(key)]
    if said == "Number out of range":
        said = "a number that 64 bits hold"
    allowed = said.removeprefix("Expected ").replace(f"matching regex {_NAME!r}", "such as emulated-a100-0")
    return f"{_path(path, within) or 'the file'} is {json.dumps(found)[:80]}, but must be {allowed}"


def _contradictions(spec: EmulatedSpec) -> Iterator[tuple[str, object, str]]:
    """Key, value and what is allowed, of what no type can check."""
    if spec.schema != SCHEMA:
        yield "schema", spec.schema, str(SCHEMA)
    for kind, tensors in (("inputs", spec.inputs), ("outputs", spec.outputs)):
        names = [tensor.name for tensor in tensors]
        for index, tensor in enumerate(tensors):
            if tensor.datatype not in BY_CONFIG or tensor.datatype == "TYPE_STRING":
                yield f"{kind}[{index}].datatype", f"'{tensor.datatype}'", f"one of {_DATATYPES}"
            if names.index(tensor.name) != index:
                yield f"{kind}[{index}].name", f"'{tensor.name}'", "a name that no other tensor has"
    sizes = [batch.batch_size for batch in spec.batches]
    if sizes != sorted(set(sizes)):
        yield "batches[...].batch_size", sizes, "ascending, each size once"
    required = batch_sizes(max(1, spec.max_batch_size))
    for size in required:
        if size not in sizes:
            yield "batches[...].batch_size", sizes, f"at least {required}; {size} is missing"
    if sizes[-1] > required[-1]:
        yield "batches[...].batch_size", sizes, f"at most max_batch_size, {required[-1]}"
