"""Opens a `model.onnx` on a GPU with the real ONNX Runtime and CUDA, which is not imported before."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import onnxruntime

from backend.engines.gpu.device import Stream
from backend.engines.onnxruntime.bound_session import BoundSession
from backend.engines.onnxruntime.cuda_engine import OnnxCudaEngine
from backend.engines.onnxruntime.session import CPU
from backend.engines.protocol import DEFAULT_ONNX_OPTIONS, EngineOptions, OnnxOptions
from backend.errors import ConfigError

_CUDA = "CUDAExecutionProvider"


def open_onnx_on_gpu(file: Path, options: EngineOptions) -> OnnxCudaEngine:
    """Load a model file on a GPU. Raises IsochroneError, also where ONNX Runtime's CUDA, the driver or the GPU are
    missing.
    """
    device_id = options.device_id
    assert device_id is not None
    available = onnxruntime.get_available_providers()
    if _CUDA not in available:
        raise ConfigError(
            f"KIND_GPU on GPU {device_id} needs ONNX Runtime with CUDA, but the installed one has "
            f"{', '.join(available)}; install onnxruntime-gpu or use KIND_CPU"
        )
    from backend.engines.gpu.cuda_device import CudaDevice  # noqa: PLC0415 - imports CUDA

    device = CudaDevice(device_id, "KIND_GPU")
    onnxruntime.preload_dlls()  # CUDA and cuDNN where pip put them, which the loader does not look for
    open_session = partial(open_cuda_session, file, device_id, onnx_options=options.onnx)
    return OnnxCudaEngine(open_session, device, file, options, version=onnxruntime.__version__)


def open_cuda_session(
    path: Path, device_id: int, stream: Stream, onnx_options: OnnxOptions = DEFAULT_ONNX_OPTIONS
) -> BoundSession:
    """Open a session that runs on this stream of a GPU. Raises ConfigError."""
    options = {
        "device_id": device_id,
        "user_compute_stream": stream,
        "arena_extend_strategy": "kSameAsRequested",  # by powers of two, many sessions would hold twice what they need
        "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive one is done anew by each lane and for each batch size
    }
    session = BoundSession(path, [(_CUDA, options), CPU], "cuda", device_id, onnx_options)
    if session.provider != _CUDA:
        session.close()
        raise ConfigError(
            f"KIND_GPU on GPU {device_id} needs CUDA and cuDNN as ONNX Runtime {onnxruntime.__version__} was built for "
            f"them, but its {_CUDA} does not load here; its error is in the log above"
        )
    return session
