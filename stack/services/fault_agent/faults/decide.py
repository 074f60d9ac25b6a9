"""Decision by seed and request, the same for the same schedule."""

from __future__ import annotations

from hashlib import blake2b

_BYTES = 8
_RANGE = 2.0 ** (8 * _BYTES)


def is_chosen(seed: int, kind: str, request_id: str, nth: int, share: float) -> bool:
    """True for a share of all requests.

    Args:
        seed: seed of the fault.
        kind: kind of the fault. Faults of two kinds decide independently.
        request_id: identity of the request.
        nth: how often this identity was seen, from 1. A retry is decided anew.
        share: of the requests, above 0 and at most 1.
    """
    identity = f"{seed}\x1f{kind}\x1f{request_id}\x1f{nth}"
    digest = blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
    return int.from_bytes(digest, "big") < share * _RANGE
