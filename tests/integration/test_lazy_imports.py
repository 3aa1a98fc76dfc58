"""Imports of a server without a GPU: nothing of NVIDIA's, and nothing slow that a model need not have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def imported(modules: str, prefixes: tuple[str, ...]) -> list[str]:
    """Modules of these prefixes that a process has once it has imported these."""
    program = f"import sys, {modules}\nprint(*[name for name in sys.modules if name.startswith({prefixes})])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def test_a_server_without_a_gpu_imports_nothing_of_nvidia() -> None:
    modules = (
        "backend.commands.main, backend.engines.loading, backend.commands.build, backend.commands.profile, "
        "backend.engines.tensorrt.loading, backend.engines.onnxruntime.cuda_loading, "
        "backend.model_process.load_profile, backend.scheduler_process.process, backend.commands.simulate"
    )
    assert imported(modules, ("cuda.", "pynvml", "tensorrt")) == []


def test_a_model_process_imports_no_statistics() -> None:
    modules = "backend.model_process.load_profile, backend.model_process.placement, backend.scheduler_process.process"
    assert imported(modules, ("statistics",)) == []
    assert imported("statistics", ("statistics",)) == ["statistics"]
