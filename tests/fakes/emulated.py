"""Specifications of emulated models, as plain data that a test may spoil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def spec(device: str = "emulated-test-0", solo_us: float = 2000.0, **constants: Any) -> dict[str, Any]:
    """A model `x` FP32 [4] → `y` FP32 [2] that batches up to 4; its batches keep the device busy for 0.8 of them."""
    features = {"compute": 0.5, "l2": 0.3, "dram": 0.2}
    return {
        "schema": 1,
        "device": {"name": device, **constants},
        "max_batch_size": 4,
        "inputs": [{"name": "x", "datatype": "TYPE_FP32", "shape": [4]}],
        "outputs": [{"name": "y", "datatype": "TYPE_FP32", "shape": [2]}],
        "batches": [
            {
                "batch_size": size,
                "solo_us": solo_us * (1 + size) / 2,
                "busy_share": 0.8,
                "work_per_kernel": 1.0,
                "features": features,
            }
            for size in (1, 2, 4)
        ],
        "source": "made up for a test",
    }


def several(fast_us: float = 2000.0, slow_us: float = 4000.0, **constants: Any) -> dict[str, Any]:
    """A model on two devices."""
    fast, slow = spec("emulated-fast-0", fast_us, **constants), spec("emulated-slow-0", slow_us, **constants)
    devices = [{key: one.pop(key) for key in ("device", "batches")} for one in (fast, slow)]
    return {**fast, "devices": devices}


def write_spec(repository: Path, name: str, content: dict[str, Any], config: str = 'backend: "isochrone"\n') -> Path:
    """Write `<repository>/<name>/config.pbtxt` and its specification, whose path is returned."""
    folder = repository / name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "config.pbtxt").write_text(config)
    file = folder / "model.emulated.json"
    file.write_text(json.dumps(content))
    return file
