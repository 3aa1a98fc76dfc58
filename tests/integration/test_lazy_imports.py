"""Imports of a server without a GPU: nothing of NVIDIA's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_a_server_without_a_gpu_imports_nothing_of_nvidia() -> None:
    program = """
import sys
import backend.commands.main, backend.engines.loading, backend.commands.build, backend.commands.profile
import backend.engines.tensorrt.loading, backend.engines.onnxruntime.cuda_loading, backend.model_process.load_profile
import backend.scheduler_process.process, backend.commands.simulate
print([name for name in sys.modules if name.startswith(("cuda.", "pynvml", "tensorrt"))])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
