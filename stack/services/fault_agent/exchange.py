"""One request and its answer, with the faults that may hit them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fault_agent.faults.base import AnswerFault, RequestFault, StreamFault
from fault_agent.faults.decide import is_chosen
from fault_agent.faults.hold import Hold
from fault_agent.faults.stale import StaleAnswers
from fault_agent.faults.tool_answers import ToolRateLimited

if TYPE_CHECKING:
    from fault_agent.faults.editors import Editor
    from fault_agent.faults.substitute import Substitute
    from fault_agent.leases import Lease
    from fault_agent.messages import AnswerHead, RequestHead

# A longer body of a request is passed on unread: its model is unknown.
BODY_MAX_BYTES: Final = 4 << 20


@dataclass(eq=False, kw_only=True, slots=True)
class Exchange:
    """One request, from its head to the end of its answer.

    Attributes:
        leases: faults on requests that were in force when the head arrived.
        id: the request's id, for decisions.
        nth: how often the agent has seen that id, this time included.
        substitute: the answer that the agent gives itself.
        held: bytes of a request whose body must be known before it is passed on.
        begun: True once the substitute's delay runs.
        hold: the fault that holds a message of this request.
    """

    head: RequestHead
    leases: tuple[Lease, ...] = ()
    id: str = ""
    nth: int = 1
    substitute: tuple[Substitute, Lease] | None = None
    held: list[bytes] | None = None
    begun: bool = False
    is_read: bool = False
    hold: tuple[Lease, Hold] | None = field(default=None, init=False)
    _body: bytearray | None = field(default=None, init=False)
    _body_size: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._count_holds(of_bodies=False)
        if any(isinstance(one.fault, RequestFault) and one.fault.needs_body for one in self.leases):
            self._body = bytearray()

    @property
    def waits_for_body(self) -> bool:
        """True if the whole request decides who answers it, or whether it is held.

        A client that expects 100 sends no body before the service has agreed.
        """
        expects = self.head.header("expect") != ""
        return not expects and any(
            isinstance(one.fault, AnswerFault | Hold) and one.fault.match.needs_body for one in self.leases
        )

    def take_body(self, pieces: list[bytes]) -> None:
        """Collect the body if a fault reads it."""
        if self._body is None:
            return
        for piece in pieces:
            self._body += piece
        if len(self._body) > BODY_MAX_BYTES:
            self._body = None

    @property
    def wants_body(self) -> bool:
        return self._body is not None

    def choose_hold(self) -> None:
        """Decide by the body whether a message of this request is held."""
        self._count_holds(of_bodies=True)

    def _count_holds(self, *, of_bodies: bool) -> None:
        for lease in self.leases:
            fault = lease.fault
            if not isinstance(fault, Hold) or fault.match.needs_body != of_bodies or not lease.active:
                continue
            if fault.match.matches(self.head, self._read):
                lease.meet()
                if lease.counters["met"] == fault.number:
                    self.hold = (lease, fault)

    def held_by(self, event: str) -> Lease | None:
        """The fault in force that holds this message of the request."""
        if self.hold is None or self.hold[1].event != event or not self.hold[0].active:
            return None
        return self.hold[0]

    def choose_substitute(self) -> None:
        """Decide whether the agent answers by itself."""
        for lease in self.leases:
            fault = lease.fault
            if not isinstance(fault, AnswerFault) or not lease.active or not fault.answers(self.head, self._read):
                continue
            if isinstance(fault, ToolRateLimited):
                lease.come_back(fault.call_of(self._read))
            if self._is_hit(lease, fault):
                self.substitute = (fault.answer(self.head, self._read), lease)
                if isinstance(fault, ToolRateLimited):
                    lease.send_away(fault.call_of(self._read), fault.retry_after_s)
                return

    def editors(self, answer: AnswerHead) -> list[tuple[Editor, Lease]]:
        """The editors of the answer, each with its fault."""
        found: list[tuple[Editor, Lease]] = []
        for lease in self.leases:
            fault = lease.fault
            if isinstance(fault, StreamFault) and self._is_edited(lease, fault):
                editor = (
                    fault.replay(answer, self._read, lease.kept, lease.hit)
                    if isinstance(fault, StaleAnswers)
                    else fault.editor(answer, lease.hit)
                )
                if editor is not None:
                    found.append((editor, lease))
        return found

    def _is_edited(self, lease: Lease, fault: StreamFault) -> bool:
        if isinstance(fault, Hold):
            return self.hold == (lease, fault) and lease.active and fault.event != "received"
        return lease.active and fault.edits(self.head, self._read) and self._is_hit(lease, fault)

    @property
    def _read(self) -> bytes:
        return bytes(self._body or b"")

    def _is_hit(self, lease: Lease, fault: RequestFault) -> bool:
        lease.meet()
        return is_chosen(lease.seed, fault.kind, self.id, self.nth, fault.share)
