"""ONNX Runtime reports to its vendor unless told not to before its import. Tests tell it so for their own process only:
the servers that they start must see to it themselves, or leave a file behind.
"""

import os

_VARIABLE = "ORT_DISABLE_TELEMETRY"
_before = os.environ.get(_VARIABLE)
os.environ[_VARIABLE] = "1"
import onnxruntime  # noqa: E402, F401 - that it is imported here and now is the point

if _before is None:
    del os.environ[_VARIABLE]
