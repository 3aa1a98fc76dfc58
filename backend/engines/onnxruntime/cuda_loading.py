"""Opens a `model.onnx` on a GPU with the real ONNX Runtime and CUDA, which is not imported before."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import onnxruntime

from backend.config.engine_options import EngineOptions
from backend.engines.onnxruntime.bound_lane import CUDA, on_cuda
from backend.engines.onnxruntime.cuda_engine import OnnxCudaEngine
from backend.errors import ConfigError


def open_onnx_on_gpu(file: Path, options: EngineOptions) -> OnnxCudaEngine:
    """Raises IsochroneError, also where ONNX Runtime's CUDA, the driver or the GPU are missing."""
    device_id = options.device_id
    assert device_id is not None
    available = onnxruntime.get_available_providers()
    if CUDA not in available:
        raise ConfigError(
            f"KIND_GPU on GPU {device_id} needs ONNX Runtime with CUDA, but the installed one has "
            f"{', '.join(available)}; install onnxruntime-gpu or use KIND_CPU"
        )
    from backend.engines.gpu.cuda_device import CudaDevice  # noqa: PLC0415 - imports CUDA

    device = CudaDevice(device_id, "KIND_GPU")
    onnxruntime.preload_dlls()  # CUDA and cuDNN where pip put them, which the loader does not look for
    return OnnxCudaEngine(
        partial(on_cuda, file, device_id, asked=options.onnx),
        device,
        file,
        options,
        version=onnxruntime.__version__,
    )
