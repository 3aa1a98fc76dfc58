"""Waiting in tests of asyncio code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; raises TimeoutError where it does not within 20 s."""
    async with asyncio.timeout(20.0):
        while not condition():
            await asyncio.sleep(0.002)
