"""Random generators of trials, derived from the run's seed."""

from __future__ import annotations

import hashlib
from random import Random

from pytest_llmchaos.errors import BadScenario

MAX_SEED = 2**63 - 1


def rng_for(seed: int, scenario: str, fault: str, trial: int) -> Random:
    """Return a trial's own generator. `-k`, `-n` and test order change no draw."""
    digest = hashlib.sha256(f"{seed}|{scenario}|{fault}|{trial}".encode()).digest()
    return Random(int.from_bytes(digest, "big"))  # noqa: S311 - repeatable draws, not secrets


def parse_seed(text: str) -> int:
    """Return the seed of a command line or ini file.

    Raises:
        BadScenario: It is not a whole number from 0 to 2**63 - 1.
    """
    try:
        seed = int(text, 10)
    except ValueError:
        seed = -1
    if not 0 <= seed <= MAX_SEED:
        raise BadScenario(
            f"--chaos-seed must be a whole number from 0 to {MAX_SEED}, got {text!r}: try --chaos-seed=42"
        )
    return seed
