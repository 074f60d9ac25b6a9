"""Decision by seed and request, the same for the same schedule."""

from __future__ import annotations

import re
from hashlib import blake2b

_BYTES = 8
_RANGE = 2.0 ** (8 * _BYTES)
# Ids of the load generator: name of one load, and the request's place in its schedule.
_OF_SCHEDULE = re.compile(r"llmchaos-[0-9a-f]{8}-([0-9]{1,9})")


def identity_of(request_id: str) -> str:
    """The part of a request's id that decides about it.

    The load generator's ids differ from load to load. The place in the schedule does
    not, so the same schedule is hit alike.
    """
    found = _OF_SCHEDULE.fullmatch(request_id)
    return f"llmchaos-{found[1]}" if found else request_id


def is_chosen(seed: int, kind: str, request_id: str, nth: int, share: float) -> bool:
    """True for a share of all requests.

    Args:
        seed: seed of the fault.
        kind: kind of the fault. Faults of two kinds decide independently.
        request_id: identity of the request, of `identity_of`.
        nth: how often this identity was seen, from 1. A retry is decided anew.
        share: of the requests, above 0 and at most 1.
    """
    identity = f"{seed}\x1f{kind}\x1f{request_id}\x1f{nth}"
    digest = blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
    return int.from_bytes(digest, "big") < share * _RANGE
