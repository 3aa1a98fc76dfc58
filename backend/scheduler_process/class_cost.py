"""Share of a higher class's deadlines that lower classes may cost it, as the device's user has set it."""

from __future__ import annotations

import os

from backend.errors import ConfigError
from backend.scheduler.class_prices import CLASS_COST

VARIABLE = "ISOCHRONE_CLASS_COST_PERCENT"


def class_cost() -> float:
    """0.0 to 1.0, from the environment's percentage; 2 % by default. Raises ConfigError."""
    text = os.environ.get(VARIABLE)
    if text is None or not text.strip():
        return CLASS_COST
    try:
        percent = float(text)
    except ValueError:
        percent = -1.0
    if "_" in text or not 0.0 <= percent <= 100.0:  # NaN is not
        raise ConfigError(f'{VARIABLE} is "{text}"; it must be a number from 0 to 100')
    return percent / 100.0
