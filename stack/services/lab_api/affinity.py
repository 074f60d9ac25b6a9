"""Prefix affinity: requests with the same start go to the same replica."""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol, Self


class Loaded(Protocol):
    """A replica with its load."""

    name: str
    in_flight: int


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The start of a prompt, and how far its replica may be above the mean load.

    Rendezvous hashing: each pair of prefix and replica has a score, the same in every
    process, and the highest wins. A replica that leaves moves its own prefixes only.
    """

    digest: bytes
    factor: float

    @classmethod
    def of(cls, messages: Sequence[dict[str, Any]], *, chars: int, factor: float) -> Self:
        """The prefix of valid messages: all up to the first of the user, then cut.

        Later turns of a conversation do not change it.
        """
        said = ""
        for message in messages:
            content = message.get("content")
            said += json.dumps([message["role"], content[:chars] if isinstance(content, str) else content])
            if message["role"] == "user":
                break
        return cls(digest=hashlib.blake2b(said[:chars].encode(), digest_size=16).digest(), factor=factor)

    def order(self, candidates: Collection[Loaded]) -> Callable[[Loaded], tuple[int, int]]:
        """A sort key of replicas for one more request: the least is the one to take.

        Bounded loads: a replica may have `factor` times the mean of the candidates.
        Above that it comes after all others. Source: Mirrokni, Thorup, Zadimoghaddam,
        "Consistent Hashing with Bounded Loads", 2018.
        """
        bound = ceil(self.factor * (sum(one.in_flight for one in candidates) + 1) / len(candidates))
        return lambda one: (max(0, one.in_flight + 1 - bound), -self._score(one.name))

    def _score(self, name: str) -> int:
        return int.from_bytes(hashlib.blake2b(name.encode(), key=self.digest, digest_size=8).digest())
