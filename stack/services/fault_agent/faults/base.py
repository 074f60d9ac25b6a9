"""Base of the agent's faults: their options, and what they do to an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeVar

from fault_agent.faults.editors import Editor
from fault_agent.faults.events import STREAMS, Stream, format_of
from fault_agent.faults.match import Match
from lab_common.values import require, require_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.substitute import Substitute
    from fault_agent.messages import AnswerHead, RequestHead

LONGEST_LEASE_S = 3600.0
LONGEST_DELAY_S = 3600.0
MOST_TOKENS = 10**9  # beyond any model's context


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

    @property
    def needs_body(self) -> bool:
        """True if the fault reads the bodies of requests."""
        return self.match.needs_body


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerFault(RequestFault):
    """A fault that answers instead of the service. The request is not forwarded."""

    def answers(self, head: RequestHead, body: bytes) -> bool:
        """True if the fault may answer this request."""
        return self.match.matches(head, body)

    def answer(self, head: RequestHead, body: bytes) -> Substitute:
        """The answer to one request. Its body is empty unless `match` needs it."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamFault(RequestFault):
    """A fault that changes answers of the service.

    Attributes:
        takes_head: True if the head waits for the first byte of the edited body.
    """

    takes_head: ClassVar[bool] = False

    def edits(self, head: RequestHead, body: bytes) -> bool:
        """True if the fault may change the answer to this request."""
        return self.match.matches(head, body)

    def editor(self, answer: AnswerHead, hit: Callable[[], None]) -> Editor | None:
        """An editor for one answer, or None if the fault cannot act on it.

        Args:
            answer: head of the answer.
            hit: called once, when the editor really acts.
        """
        found = format_of(answer)
        if found is None:
            return None
        if found == "whole":
            return self.edit_whole(hit)
        return self.edit_stream(STREAMS[found](), hit)

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""
        raise NotImplementedError

    def edit_whole(self, hit: Callable[[], None]) -> Editor | None:  # noqa: ARG002 - for subclasses
        """An editor for a JSON body, or None if the fault acts on streams only."""
        return None


def require_tokens(after_tokens: object) -> None:
    """Check the number of tokens before a fault. Raises InvalidValueError."""
    require_whole("after_tokens", after_tokens, at_least=0, at_most=MOST_TOKENS)


KINDS: dict[str, type[Fault]] = {}
SomeFault = TypeVar("SomeFault", bound=Fault)


def register(fault: type[SomeFault]) -> type[SomeFault]:
    KINDS[fault.kind] = fault
    return fault
