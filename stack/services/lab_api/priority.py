"""Classes of requests, by a header or a field of the request."""

from enum import StrEnum

from lab_api.outcomes import GatewayError, Outcome

HEADER = "x-llmlab-priority"


class Priority(StrEnum):
    """Class of a request. Label of the metrics by priority."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """Place in the order of classes. 0 is the first."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


def requested(header: str | None, field: int) -> Priority:
    """The class of the header, else of vLLM's field `priority`, where lower is earlier.

    Raises:
        GatewayError: the header names no class.
    """
    if header is None:
        return Priority.NORMAL if field == 0 else (Priority.HIGH if field < 0 else Priority.LOW)
    try:
        return Priority(header.strip().lower())
    except ValueError as error:
        message = f"the header {HEADER} must be high, normal or low, got {header[:40]!r}"
        raise GatewayError(outcome=Outcome.INVALID_REQUEST, message=message, status=400) from error
