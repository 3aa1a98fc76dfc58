"""Dilation of an emulated GPU's time, by which a machine of few cores can drive a fast device."""

from __future__ import annotations

import os

from backend.errors import ConfigError

VARIABLE = "ISOCHRONE_EMULATED_TIME"
_MAX = 1000.0


def time_dilation() -> float:
    """Real time per time of the emulated device, from the environment; 1.0 by default. Raises ConfigError."""
    text = os.environ.get(VARIABLE, "1").strip()
    try:
        dilation = float(text)
    except ValueError:
        dilation = 0.0
    if "_" in text or not 1.0 <= dilation <= _MAX:  # NaN is not
        raise ConfigError(f'{VARIABLE} is "{text}"; it must be a number from 1 to {_MAX:g}')
    return dilation
