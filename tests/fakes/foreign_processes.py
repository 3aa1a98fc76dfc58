"""Busy processes in a server's own container that are not the server's: started and ended by a model that it serves."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc

MODEL = "foreign_processes"


def write_foreign_process_model(repository: Path) -> None:
    """Adds `MODEL`, see `foreign_process_model`."""
    folder = repository / MODEL
    (folder / "1").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("foreign_process_model.py"), folder / "1" / "model.py")
    (folder / "config.pbtxt").write_text(
        'backend: "python"\ninput [{ name: "cores" data_type: TYPE_INT32 dims: [-1] }]\n'
        'output [{ name: "count" data_type: TYPE_INT32 dims: [-1] }]\n'
    )


def run_foreign_processes(client: Any, on_cores: Sequence[int]) -> None:
    """Replaces those that run on a server with `MODEL` by one per element: on that core, or on any (-1)."""
    wanted = triton_grpc.InferInput("cores", [len(on_cores)], "INT32")
    wanted.set_data_from_numpy(np.array(on_cores, np.int32))
    client.infer(MODEL, [wanted])
