"""What libraries read once, at their import, told to them for the tests' own process only.

ONNX Runtime reports to its vendor unless told not to; servers that tests start must see to that themselves, or leave a
file behind.
"""

import os

from backend import numerical_threads  # noqa: F401 - before whatever else imports numpy

_SETTINGS = {"ORT_DISABLE_TELEMETRY": "1"}
_before = {name: os.environ.get(name) for name in _SETTINGS}
os.environ.update(_SETTINGS)
import onnxruntime  # noqa: E402, F401 - that it is imported here and now, with numpy, is the point

for _name, _value in _before.items():
    if _value is None:
        del os.environ[_name]
    else:
        os.environ[_name] = _value
