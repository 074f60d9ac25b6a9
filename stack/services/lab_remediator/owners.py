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
FRESH_S = 1.0  # as the autoscaler waits before it stops a replica of ours
_ASK_TIMEOUT_S = 0.5
REMEDIATOR = "remediator"


@dataclass(frozen=True, kw_only=True)
class Word:
    """The autoscaler's last answer, and its age.

    Attributes:
        owners: Owner by replica. Empty before the first answer.
        replicas: The replicas that it may own, as long as it has not answered.
        silent_s: Seconds since its last answer, or since the start without one.
        is_new: The last question was answered.
        has_ended: It announced its end, so its answer stays true.
        running_s: The silence at which a replica was last seen running.
    """

    owners: Mapping[str, str] = field(default_factory=dict)
    replicas: Collection[str] = ()
    silent_s: float = 0.0
    is_new: bool = False
    has_ended: bool = False
    running_s: Mapping[str, float] = field(default_factory=dict)

    def refusal(self, service: str) -> str | None:
        """The reason not to act on a service, or None."""
        if service not in (self.owners or self.replicas):
            return None
        may_act = self.has_ended or not self.owners  # no autoscaler is there, or none was yet
        if not self.is_new and not may_act and self.silent_s < EXPIRES_S:
            return f"the autoscaler has not answered for {self.silent_s:.1f} s, it may own {service}: no repair yet"
        if self.owners.get(service) == REMEDIATOR:
            return None
        if not self.is_new and self.running_s.get(service, -1.0) >= (0.0 if may_act else EXPIRES_S):
            return None  # another program has started it since
        return f"the autoscaler owns {service}" if service in self.owners else f"{service} was never seen running"

    def elsewhere(self) -> frozenset[str]:
        """Services that the remediator does not look at.

        Their owner is another, or unknown for now. A lost answer makes none unknown.
        """
        word = replace(self, is_new=bool(self.owners) and not self.has_ended and self.silent_s < FRESH_S)
        return frozenset(name for name in {*self.owners, *self.replicas} if word.refusal(name) is not None)


class Owners:
    """The word of an autoscaler, kept current, if there is one."""

    def __init__(self, session: aiohttp.ClientSession, url: str, replicas: Collection[str]) -> None:
        self._session, self._url = session, url
        self._word = Word(replicas=replicas if url else ())
        self._heard_s = time.monotonic()

    @property
    def word(self) -> Word:
        return replace(self._word, silent_s=time.monotonic() - self._heard_s)

    def silent_s(self) -> dict[str, float]:
        """Seconds of a silence that nothing explains. Empty without an autoscaler."""
        is_explained = self._word.has_ended or not self._word.owners
        return {"autoscaler": 0.0 if is_explained else round(self.word.silent_s, 3)} if self._url else {}

    def saw_running(self, service: str) -> None:
        """Note that a service runs now."""
        self._word = replace(self._word, running_s={**self._word.running_s, service: self.word.silent_s})

    async def run(self) -> None:
        """Poll until cancelled. Returns at once without an autoscaler."""
        while self._url:
            await self.ask()
            await asyncio.sleep(POLL_S)

    async def ask(self) -> Word:
        """The current word, from a new answer."""
        if self._url:
            body = await self._answer()
            owners = owners_of(body)
            self._word = replace(self._word, is_new=owners is not None)
            if owners is not None:
                self._word = Word(
                    owners=owners,
                    replicas=self._word.replicas,
                    is_new=True,
                    has_ended=body.get("ended") is True,
                )
                self._heard_s = time.monotonic()
        return self.word

    async def _answer(self) -> Any:
        try:
            timeout = aiohttp.ClientTimeout(total=_ASK_TIMEOUT_S)
            async with self._session.get(f"{self._url}/replicas", timeout=timeout, allow_redirects=False) as response:
                return await response.json(content_type=None) if response.status == 200 else None
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
