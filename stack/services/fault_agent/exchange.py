"""One request and its answer, with the faults that may hit them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fault_agent.faults.base import AnswerFault, RequestFault, StreamFault
from fault_agent.faults.decide import is_chosen
from fault_agent.faults.hold import Hold

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
        held: bytes of a request whose model must be known before it is passed on.
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
        for lease in self.leases:
            if lease.active and isinstance(lease.fault, Hold) and lease.fault.match.matches(self.head, b""):
                lease.meet()
                if lease.counters["met"] == lease.fault.number:
                    self.hold = (lease, lease.fault)
        if any(isinstance(one.fault, RequestFault) and one.fault.match.needs_body for one in self.leases):
            self._body = bytearray()

    @property
    def waits_for_body(self) -> bool:
        """True if the whole request decides who answers it.

        A client that expects 100 sends no body before the service has agreed.
        """
        expects = self.head.header("expect") != ""
        return not expects and any(
            isinstance(one.fault, AnswerFault) and one.fault.match.needs_body for one in self.leases
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

    def choose_substitute(self) -> None:
        """Decide whether the agent answers by itself."""
        for lease in self.leases:
            if isinstance(lease.fault, AnswerFault) and self._is_hit(lease, lease.fault):
                self.substitute = (lease.fault.answer(self.head), lease)
                return

    def editors(self, answer: AnswerHead) -> list[tuple[Editor, Lease]]:
        """The editors of the answer, each with its fault."""
        found: list[tuple[Editor, Lease]] = []
        for lease in self.leases:
            fault = lease.fault
            if isinstance(fault, StreamFault) and self._is_edited(lease, fault):
                editor = fault.editor(answer, lease.hit)
                if editor is not None:
                    found.append((editor, lease))
        return found

    def _is_edited(self, lease: Lease, fault: StreamFault) -> bool:
        if isinstance(fault, Hold):
            return self.hold == (lease, fault) and lease.active and fault.event != "received"
        return self._is_hit(lease, fault)

    def _is_hit(self, lease: Lease, fault: RequestFault) -> bool:
        if not lease.active or not fault.match.matches(self.head, bytes(self._body or b"")):
            return False
        lease.meet()
        return is_chosen(lease.seed, fault.kind, self.id, self.nth, fault.share)
