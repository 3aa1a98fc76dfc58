"""Engines, which run batches of arrays. They know nothing of requests, Triton, or the scheduler."""

import os

# Since 1.29 ONNX Runtime reports each session to its vendor, from the moment of its import, unless told not to before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
