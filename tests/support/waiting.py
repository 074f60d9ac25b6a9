"""Waiting for a condition with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    condition: Callable[[], T],
    what: str = "the condition",
    within_s: float = 10.0,
    *,
    every_s: float = 0.01,
    seen: Callable[[], object] | None = None,
) -> T:
    """The condition's first true value.

    Fails at the deadline, and names what was waited for and what was `seen` instead.
    """
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, _too_late(what, within_s, seen)
        time.sleep(every_s)
    return value


async def until_async(
    condition: Callable[[], T],
    what: str = "the condition",
    within_s: float = 10.0,
    *,
    every_s: float = 0.002,
    seen: Callable[[], object] | None = None,
) -> T:
    """`until` for a test that runs in an event loop."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, _too_late(what, within_s, seen)
        await asyncio.sleep(every_s)
    return value


def _too_late(what: str, within_s: float, seen: Callable[[], object] | None) -> str:
    return f"not within {within_s:g} s: {what}" + (f"; seen: {seen()}" if seen is not None else "")
