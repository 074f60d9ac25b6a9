"""Owners of scaled replicas, as the autoscaler publishes them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

POLL_S = 0.5
EXPIRES_S = 30.0  # an autoscaler silent for this long owns no ready replica
FRESH_S = 3.0
_ASK_TIMEOUT_S = 0.5
REMEDIATOR = "remediator"


@dataclass(frozen=True, kw_only=True)
class Word:
    """The autoscaler's last answer, and its age.

    Attributes:
        owners: Owner by replica. Empty before the first answer.
        replicas: The replicas that it may own.
        silent_s: Seconds since its last answer, or since the start without one.
        is_new: The last question was answered.
    """

    owners: Mapping[str, str] = field(default_factory=dict)
    replicas: Collection[str] = ()
    silent_s: float = 0.0
    is_new: bool = False

    def refusal(self, service: str) -> str | None:
        """The reason not to act on a service, or None."""
        if service not in self.owners and service not in self.replicas:
            return None
        owner = self.owners.get(service)
        if not self.is_new and self.silent_s < EXPIRES_S:
            return f"the autoscaler has not answered for {self.silent_s:.1f} s, it may own {service}: no repair yet"
        if owner in (REMEDIATOR, None):
            return None  # without any answer in all that time there is no other owner
        return f"the autoscaler owns {service}"

    def elsewhere(self) -> frozenset[str]:
        """Services that the remediator does not look at.

        Their owner is another, or unknown for now. A lost answer makes none unknown.
        """
        word = replace(self, is_new=bool(self.owners) and self.silent_s < FRESH_S)
        return frozenset(name for name in {*self.owners, *self.replicas} if word.refusal(name) is not None)


class Owners:
    """The word of an autoscaler, kept current, if there is one."""

    def __init__(self, session: aiohttp.ClientSession, url: str, replicas: Collection[str]) -> None:
        self._session, self._url = session, url
        self._replicas = replicas if url else ()
        self._owners: Mapping[str, str] = {}
        self._heard_s, self._is_new = time.monotonic(), False

    @property
    def word(self) -> Word:
        return Word(
            owners=self._owners,
            replicas=self._replicas,
            silent_s=time.monotonic() - self._heard_s,
            is_new=self._is_new,
        )

    def silent_s(self) -> dict[str, float]:
        """Seconds since the last answer. Empty without an autoscaler."""
        return {"autoscaler": round(self.word.silent_s, 3)} if self._url else {}

    async def run(self) -> None:
        """Poll until cancelled. Returns at once without an autoscaler."""
        while self._url:
            await self.ask()
            await asyncio.sleep(POLL_S)

    async def ask(self) -> Word:
        """The current word, from a new answer."""
        if self._url:
            answer = await self._answer()
            self._is_new = answer is not None
            if answer is not None:
                self._owners, self._heard_s = answer, time.monotonic()
        return self.word

    async def _answer(self) -> Mapping[str, str] | None:
        try:
            timeout = aiohttp.ClientTimeout(total=_ASK_TIMEOUT_S)
            async with self._session.get(f"{self._url}/replicas", timeout=timeout, allow_redirects=False) as response:
                return owners_of(await response.json(content_type=None)) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError):
            return None


def owners_of(body: Any) -> dict[str, str] | None:
    """The owners of an answer by replica. None for an answer of another shape."""
    replicas = body.get("replicas") if isinstance(body, dict) else None
    if not isinstance(replicas, list) or not all(isinstance(one, dict) for one in replicas):
        return None
    found = {one.get("name"): one.get("owner") for one in replicas}
    if not all(isinstance(name, str) and isinstance(owner, str) for name, owner in found.items()):
        return None
    return {str(name): str(owner) for name, owner in found.items()}
