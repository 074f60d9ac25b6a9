"""Passive health of one replica, from the results of its requests."""

from collections import deque
from enum import IntEnum, StrEnum

from lab_api.outcomes import ATTEMPT_FAILURES, REPLICA_FAILURES, Outcome
from lab_api.settings import Ejection, Patterns

_WEIGHT = 0.05  # of one request in the share of good ones: about the last 20 count
_GOOD_MIN = 0.25  # with one of two replicas broken, half are good


class Circuit(IntEnum):
    """Values of `llmlab_circuit_state`."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


class Cause(StrEnum):
    """Label of `llmlab_ejections_total`."""

    ERRORS = "errors"
    LATENCY = "latency"


class Breaker:
    """Circuit breaker of one replica.

    Opens by error ratio or by consecutive connection failures. After its timeout it
    lets single trials through, or closes if the pattern `half_open` is off.
    """

    def __init__(self, policy: Ejection, patterns: Patterns) -> None:
        self._policy = policy
        self._patterns = patterns
        self._results: deque[tuple[float, bool]] = deque()
        self._failures = 0  # within `_results`
        self._connect_failures = 0
        self._opened: tuple[float, float] | None = None  # opened at, and for how long
        self._trial_out = False
        self._trips = 0
        self.cause = Cause.ERRORS  # of the last ejection
        self.ejections = dict.fromkeys(Cause, 0)
        self.closed_at_s: float | None = None  # last close by a trial

    def state(self, now_s: float) -> Circuit:
        """The state now. An open circuit's state changes with time alone."""
        if self._opened is None:
            return Circuit.CLOSED
        since_s, open_s = self._opened
        if now_s < since_s + open_s:
            return Circuit.OPEN
        return Circuit.HALF_OPEN if self._patterns.half_open else Circuit.CLOSED

    def allows(self, now_s: float) -> bool:
        """True if one more request may be sent."""
        state = self.state(now_s)
        return state is Circuit.CLOSED or (state is Circuit.HALF_OPEN and not self._trial_out)

    def admit(self, now_s: float) -> bool:
        """Record that a request is being sent.

        True for the trial that decides on a half-open circuit.
        """
        if self.state(now_s) is not Circuit.HALF_OPEN or self._trial_out:
            return False
        self._trial_out = True
        return True

    def eject(self, now_s: float) -> None:
        """Open the circuit because first tokens come late."""
        if self.state(now_s) is Circuit.CLOSED:
            self._open(now_s, Cause.LATENCY)

    def record(self, now_s: float, outcome: Outcome, *, trial: bool, late: bool = False) -> None:
        """Record the result of an admitted request.

        A good trial with a late first token leaves the circuit open. A client that left
        late and without one counts as a failure: a hung replica may never fail a
        request, because its clients are less patient than the gateway.
        """
        failed = outcome in REPLICA_FAILURES
        if trial:
            self._trial_out = False
            if failed or (late and self.cause is Cause.LATENCY):
                self._open(now_s, Cause.ERRORS if failed else Cause.LATENCY)
            elif late and outcome is Outcome.CLIENT_CANCELLED:
                self._trips -= 1  # no proof of a failure: its time is not doubled
                self._open(now_s, Cause.ERRORS)
            elif outcome is Outcome.OK:
                self._close()
                self.closed_at_s = now_s
            return
        if self.state(now_s) is Circuit.CLOSED and self._opened is not None:
            self._close()  # its time is over
        failed = failed or (late and outcome is Outcome.CLIENT_CANCELLED)
        if self._opened is not None or not self._patterns.breaker or not (failed or outcome is Outcome.OK):
            return  # it started before the circuit opened, or is not the replica's doing
        self._connect_failures = self._connect_failures + 1 if outcome is Outcome.CONNECT_ERROR else 0
        self._results.append((now_s, failed))
        self._failures += failed
        self._forget_before(now_s - self._policy.window_s)
        enough = len(self._results) >= self._policy.min_requests
        if self._connect_failures >= self._policy.connect_failures or (
            enough and self._failures >= self._policy.error_ratio * len(self._results)
        ):
            self._open(now_s, Cause.ERRORS)

    def forget(self) -> None:
        """Close without a trial: a replica that was stopped on purpose starts anew."""
        self._close()

    def _open(self, now_s: float, cause: Cause) -> None:
        self.cause = cause
        self.ejections[cause] += 1
        open_s = min(self._policy.open_s * 2**self._trips, self._policy.open_max_s)
        self._trips = min(self._trips + 1, 30)
        self._opened = (now_s, open_s)

    def _close(self) -> None:
        self._opened = None
        self._trips = 0
        self._connect_failures = 0
        self._results.clear()
        self._failures = 0

    def _forget_before(self, then_s: float) -> None:
        while self._results and self._results[0][0] < then_s:
            self._failures -= self._results.popleft()[1]


class RetryBudget:
    """A fixed share of requests for retries, so failures cannot multiply the load.

    While nearly all requests fail, a retry only adds load, and none is earned.
    """

    def __init__(self, *, ratio: float, burst: int) -> None:
        self._ratio = ratio
        self._burst = burst
        self._saved = float(burst)
        self._good = 1.0  # share of the latest requests

    @property
    def saved_ratio(self) -> float:
        """Saved retries, 0-1. 0 if none can be saved."""
        return self._saved / self._burst if self._burst else 0.0

    def earn(self) -> None:
        """Add the share of one admitted request, unless nearly all fail."""
        if self._good >= _GOOD_MIN:
            self._saved = min(self._burst, self._saved + self._ratio)

    def ended(self, outcome: Outcome) -> None:
        """Record the end of a request. Only what replicas answered counts."""
        if outcome is Outcome.OK or outcome in ATTEMPT_FAILURES:
            self._good += _WEIGHT * ((outcome is Outcome.OK) - self._good)

    def spend(self) -> bool:
        """Take one retry. False if none is left."""
        # Ten times 0.1 is slightly less than 1.
        if self._saved < 1 - 1e-9:
            return False
        self._saved = max(0.0, self._saved - 1)
        return True
