"""One replica as the gateway sees it."""

from enum import Enum

from lab_api.breaker import Breaker
from lab_api.outcomes import ATTEMPT_FAILURES, Outcome
from lab_api.outliers import FirstTokens
from lab_api.settings import Ejection, Patterns, Probing
from lab_api.tally import Tally


class Probed(Enum):
    """Result of the shallow probe."""

    GOOD = "good"
    BAD = "bad"  # no answer in time, or a bad one: broken or busy
    REFUSED = "refused"  # connection refused: certainly not serving


class Duty(Enum):
    """Use of the replica by the autoscaler."""

    SERVING = "serving"  # also without an autoscaler
    DRAINING = "draining"  # it finishes what it has, and gets nothing new
    STOPPED = "stopped"  # on purpose: no failure


class Replica:
    """One replica: its health, its places and the results of its requests."""

    def __init__(
        self, name: str, url: str, *, concurrency: int, probing: Probing, ejection: Ejection, patterns: Patterns
    ) -> None:
        self.name = name
        self.url = url
        self.in_flight = 0
        self.breaker = Breaker(ejection, patterns)
        self.first_tokens = FirstTokens(ejection)
        self.heard_s = float("-inf")  # time of its last first token, for any request
        self.last_probe: Probed | None = None
        self.healthy = False  # by the shallow probe
        self.duty = Duty.SERVING
        self.is_spare = False  # never in service since it was last stopped, so not missed
        self.probe_s: float | None = None  # duration of the last good probe
        self.failures = dict.fromkeys((one for one in Outcome if one in ATTEMPT_FAILURES), 0)
        self.tally = Tally()
        self._bad_probes = 0
        self._concurrency = concurrency
        self._probing = probing
        self._slow_start_s = ejection.slow_start_s if patterns.slow_start else 0.0
        self._recovered_at_s = float("-inf")
        self.turn = 0

    def probed(self, verdict: Probed, now_s: float, *, took_s: float) -> None:
        """Record one result of the shallow probe, which took `took_s` seconds.

        A draining replica that refuses has been stopped, and the news is on its way.
        """
        if verdict is Probed.GOOD:
            self.probe_s = took_s
            if not self.healthy and self.last_probe is not None:
                self._recovered_at_s = now_s
            self.healthy = True
            self.is_spare = False
            self._bad_probes = 0
        else:
            self._bad_probes += 1
            if verdict is Probed.REFUSED or self._bad_probes >= self._probing.fall:
                self.healthy = False
            if verdict is Probed.REFUSED and self.duty is Duty.DRAINING:
                self.is_spare = True
        self.last_probe = verdict

    def assign(self, duty: Duty) -> None:
        """Change its duty. A stopped replica counts as one that refuses."""
        self.duty = duty
        if duty is Duty.STOPPED:
            self.healthy, self.is_spare = False, True
            self.last_probe = Probed.REFUSED
            self.breaker.forget()

    @property
    def refuses(self) -> bool:
        """True if connections are refused, so that even a last attempt is pointless."""
        return self.last_probe is Probed.REFUSED

    def usable(self, now_s: float) -> bool:
        """True if active and passive health allow one more request."""
        return self.healthy and self.duty is Duty.SERVING and self.breaker.allows(now_s)

    def has_room(self, now_s: float) -> bool:
        """True if one more request may be in flight there."""
        return self.in_flight < self.places(now_s)

    def places(self, now_s: float) -> int:
        """Requests that may be in flight there.

        A recovered replica regains its places step by step (slow start).
        """
        since_s = now_s - max(self._recovered_at_s, self.breaker.closed_at_s or float("-inf"))
        share = 1.0 if since_s >= self._slow_start_s else since_s / self._slow_start_s
        return max(1, int(self._concurrency * share))
