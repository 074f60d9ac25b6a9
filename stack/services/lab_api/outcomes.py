"""Outcomes of a request, and the error that the client gets."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Label of `llmlab_requests_total`. Each request ends in exactly one."""

    OK = "ok"
    INVALID_REQUEST = "invalid_request"
    UPSTREAM_4XX = "upstream_4xx"
    UPSTREAM_429 = "upstream_429"
    REJECTED_QUEUE_FULL = "rejected_queue_full"
    REJECTED_PREDICTED = "rejected_predicted"
    QUEUE_TIMEOUT = "queue_timeout"
    NO_REPLICA = "no_replica"
    DRAINING = "draining"
    CONNECT_ERROR = "connect_error"
    UPSTREAM_5XX = "upstream_5xx"
    TTFT_TIMEOUT = "ttft_timeout"
    STALL_TIMEOUT = "stall_timeout"
    REQUEST_TIMEOUT = "request_timeout"
    TRUNCATED = "truncated"
    CORRUPTED = "corrupted"
    INBAND_ERROR = "inband_error"
    CLIENT_CANCELLED = "client_cancelled"
    INTERNAL_ERROR = "internal_error"


class Migrated(StrEnum):
    """Label of `llmlab_migrations_total`. Each cut stream has one, if clients stay."""

    CONTINUED = "continued"  # another replica sent a token of the rest
    ENDED = "ended"  # only the end was missing
    FAILED = "failed"  # no other replica sent a token
    REFUSED = "refused"  # the answer cannot be continued faithfully
    DENIED = "denied"  # no attempt, budget or replica was left


class Hedged(StrEnum):
    """Label of `llmlab_hedges_total`. Each hedge ends in exactly one."""

    WON = "won"  # the first attempt was cancelled
    LOST = "lost"
    FAILED = "failed"
    CANCELLED = "cancelled"  # the request ended without a first token


# Outcomes that count against a replica. A 429 and a client's own doing do not.
REPLICA_FAILURES = frozenset(
    {
        Outcome.CONNECT_ERROR,
        Outcome.UPSTREAM_5XX,
        Outcome.TTFT_TIMEOUT,
        Outcome.STALL_TIMEOUT,
        Outcome.TRUNCATED,
        Outcome.CORRUPTED,
        Outcome.INBAND_ERROR,
    }
)
# Outcomes of an attempt that failed at a replica. A busy one's 429 is a failed attempt.
ATTEMPT_FAILURES = REPLICA_FAILURES | {Outcome.UPSTREAM_429}
# Outcomes to retry elsewhere, before the client has received anything.
RETRYABLE = (REPLICA_FAILURES - {Outcome.STALL_TIMEOUT}) | {Outcome.UPSTREAM_429}
# Outcomes of a replica that reported an error after its first token, or sent garbage.
REPORTED = frozenset({Outcome.INBAND_ERROR, Outcome.CORRUPTED})
# Outcomes of a started stream whose rest another replica may send.
MIGRATABLE = REPORTED | {Outcome.TRUNCATED, Outcome.STALL_TIMEOUT}

_STATUS = {
    Outcome.INVALID_REQUEST: 400,
    Outcome.UPSTREAM_429: 429,
    Outcome.REJECTED_QUEUE_FULL: 429,
    Outcome.REJECTED_PREDICTED: 503,
    Outcome.QUEUE_TIMEOUT: 503,
    Outcome.NO_REPLICA: 503,
    Outcome.DRAINING: 503,
    Outcome.TTFT_TIMEOUT: 504,
    Outcome.REQUEST_TIMEOUT: 504,
    Outcome.INTERNAL_ERROR: 500,
}
_ASKS_TO_RETRY = frozenset(
    {
        Outcome.UPSTREAM_429,
        Outcome.REJECTED_QUEUE_FULL,
        Outcome.REJECTED_PREDICTED,
        Outcome.QUEUE_TIMEOUT,
        Outcome.NO_REPLICA,
        Outcome.DRAINING,
        Outcome.CONNECT_ERROR,
    }
)


@dataclass(kw_only=True)
class GatewayError(Exception):
    """A request without a good answer: its outcome and the client's error."""

    outcome: Outcome
    message: str
    status: int = 0
    code: str = ""
    param: str | None = None
    retry_after_s: int | None = None  # in place of the setting

    def __post_init__(self) -> None:
        super().__init__(self.message)
        self.status = self.status or _STATUS.get(self.outcome, 502)
        self.code = self.code or self.outcome.value

    @property
    def asks_to_retry(self) -> bool:
        """True if the answer carries Retry-After."""
        return self.outcome in _ASKS_TO_RETRY

    def body(self, request_id: str) -> dict[str, object]:
        """The error object of the OpenAI API, for HTTP and for streams."""
        kind = "invalid_request_error" if 400 <= self.status < 500 and self.status != 429 else "server_error"
        return {
            "error": {
                "message": self.message,
                "type": "rate_limit_error" if self.status == 429 else kind,
                "param": self.param,
                "code": self.code,
                "request_id": request_id,
            }
        }
