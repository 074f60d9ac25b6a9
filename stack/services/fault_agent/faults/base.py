"""Base of the agent's faults: their options, and what they do to an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from fault_agent.faults.match import Match
from lab_common.values import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.acts import Act
    from fault_agent.messages import AnswerHead, RequestHead

LONGEST_LEASE_S = 3600.0
LONGEST_DELAY_S = 3600.0
MOST_TOKENS = 10**9  # beyond any model's context


class Editor(Protocol):
    """Changes one answer. The service's body goes in, acts of the relay come out."""

    def feed(self, piece: bytes) -> list[Act]:
        """Acts for the next bytes of the body, in pieces of any size."""

    def end(self) -> list[Act]:
        """Acts at the end of the service's body."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Substitute:
    """An answer that the agent gives instead of the service.

    Attributes:
        status: HTTP status code.
        headers: without Content-Length, which the relay adds.
        body: the whole body.
        delay_s: seconds from the request to the answer.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    delay_s: float = 0.0

    @property
    def reason(self) -> str:
        """The reason phrase of the status line."""
        return reason_of(self.status)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One kind of fault. Its fields are its options.

    Attributes:
        kind: name of the kind.
        share: of the connections or requests that are hit, above 0 and at most 1.
    """

    kind: ClassVar[str]
    share: float = 1.0

    def __post_init__(self) -> None:
        """Check all options.

        Raises:
            InvalidValueError: an option is out of its bounds.
        """
        require("share", self.share, above=0, at_most=1)
        self.check()

    def check(self) -> None:
        """Check the options of this kind. Raises InvalidValueError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkFault(Fault):
    """A fault of connections. The relay performs it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestFault(Fault):
    """A fault of the requests that `match` selects."""

    match: Match = field(default_factory=Match)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerFault(RequestFault):
    """A fault that answers instead of the service. The request is not forwarded."""

    def answer(self, head: RequestHead) -> Substitute:
        """The answer to one request."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamFault(RequestFault):
    """A fault that changes answers of the service."""

    def editor(self, answer: AnswerHead, hit: Callable[[], None]) -> Editor | None:
        """An editor for one answer, or None if the fault cannot act on it.

        Args:
            answer: head of the answer.
            hit: called once, when the editor really acts.
        """
        raise NotImplementedError


def reason_of(status: int) -> str:
    """The reason phrase of a status code."""
    if status == 529:
        return "Overloaded"  # Anthropic's API and others, not registered
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


KINDS: dict[str, type[Fault]] = {}
SomeFault = TypeVar("SomeFault", bound=Fault)


def register(fault: type[SomeFault]) -> type[SomeFault]:
    KINDS[fault.kind] = fault
    return fault
