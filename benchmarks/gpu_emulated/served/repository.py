"""A drawn GPU as model repositories of emulated models: for this backend, and for stock Triton.

The simulator's and the server's device are one: the same law and seed, every batch size of its own, the same profile.
Only the tensors are `SMALLER` times smaller, on a link that is as much slower: every copy takes as long as it should,
and two cores need not move images for it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backend.engines.emulated.spec import NAME as SPEC
from backend.engines.loading import load_engine
from backend.engines.protocol import EngineOptions
from benchmarks.emulated.stock import write_stock_repository
from benchmarks.gpu_emulated.drawn_gpu import (
    BATCH_MAX,
    COPIES,
    PROFILED,
    ROW_BYTES_IN,
    ROW_BYTES_OUT,
    DrawnGpu,
    DrawnModel,
)
from profiler.host import sha256_of
from profiler.profile_file import NAME as PROFILE
from profiler.profile_file import SCHEMA, FeatureShares, ProfileEntry, ProfileFile, write_profile

SMALLER = 16
INPUT = "x"
ROW_IN, ROW_OUT = ROW_BYTES_IN // SMALLER, ROW_BYTES_OUT // SMALLER
"""Bytes of a row's inputs and outputs, which are all tensors of UINT8."""


def write_ours(drawn: DrawnGpu, dilation: float, lanes: int, repository: Path) -> None:
    """Write the models for this backend, `on_miss: reject`, with profiles in dilated time."""
    config = (
        'backend: "isochrone"\ninstance_group [{ kind: KIND_CPU }]\n'
        f'parameters {{ key: "device_lanes" value {{ string_value: "{lanes}" }} }}\n'
        'parameters { key: "on_miss" value { string_value: "reject" } }\n'
    )
    for model in drawn.models:
        file = _write_spec(drawn, model, repository)
        file.parents[1].joinpath("config.pbtxt").write_text(config)
        write_profile(file.with_name(PROFILE), _profile(model, file, dilation))


def write_stock(drawn: DrawnGpu, repository: Path) -> None:
    """Write the models for stock Triton as it is by default: an instance of each, dynamic batching."""
    with tempfile.TemporaryDirectory() as folder:
        for model in drawn.models:
            _write_spec(drawn, model, Path(folder))
        write_stock_repository(Path(folder), repository)


def _write_spec(drawn: DrawnGpu, model: DrawnModel, repository: Path) -> Path:
    file = repository / model.name / "1" / SPEC
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(_spec(drawn, model)))
    return file


def _spec(drawn: DrawnGpu, model: DrawnModel) -> dict[str, Any]:
    law = drawn.law
    return {
        "schema": 1,
        "device": {
            "name": f"emulated-draw-{law.seed}",
            "pcie_gb_per_s": COPIES.bytes_per_ns / SMALLER,
            "copy_latency_us": COPIES.latency_ns / 1e3,
            "regime": law.regime.value,
            "saturation": law.saturation,
            "pair_sd": law.pair_sd,
            "seed": law.seed,
            **asdict(law.effects),
        },
        "max_batch_size": BATCH_MAX,
        "inputs": [{"name": INPUT, "datatype": "TYPE_UINT8", "shape": [ROW_IN]}],
        "outputs": [{"name": "y", "datatype": "TYPE_UINT8", "shape": [ROW_OUT]}],
        "batches": [_batch(model, rows) for rows in range(1, BATCH_MAX + 1)],
        "source": f"draw {law.seed} of benchmarks/gpu_emulated",
    }


def _batch(model: DrawnModel, rows: int) -> dict[str, Any]:
    demand, load = model.demand(rows), model.load(rows)
    return {
        "batch_size": rows,
        "solo_us": load.solo_ns / 1e3,
        "busy_share": demand.busy_share,
        "work_per_kernel": demand.work_per_kernel,
        "features": {"compute": load.compute, "l2": load.l2, "dram": load.dram},
    }


def _profile(model: DrawnModel, file: Path, dilation: float) -> ProfileFile:
    """Profile that measuring would find, without its noise; the work per kernel is not told, as in virtual time."""
    engine = load_engine(file, EngineOptions(None, 1, BATCH_MAX, time_dilation=dilation))
    identity = engine.identity
    engine.close()
    entries = tuple(_entry(model, rows, dilation) for rows in PROFILED)
    device = json.loads(file.read_text())["device"]["name"]
    return ProfileFile(SCHEMA, model.name, "1", device, identity, sha256_of(file), "the specification", entries)


def _entry(model: DrawnModel, rows: int, dilation: float) -> ProfileEntry:
    load = model.load(rows)
    solo_ns = round(dilation * load.solo_ns)
    shares = FeatureShares(load.compute, load.l2, load.dram)
    interval = (solo_ns, solo_ns)
    return ProfileEntry(rows, solo_ns, interval, solo_ns, interval, 1e9 * rows / solo_ns, shares, 1, 1, 0, True)
