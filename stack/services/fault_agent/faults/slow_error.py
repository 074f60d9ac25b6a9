"""Errors after a wait, without the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.faults.base import LONGEST_DELAY_S, AnswerFault, register
from fault_agent.faults.substitute import Substitute, error_answer
from lab_common.values import require, require_whole

if TYPE_CHECKING:
    from fault_agent.messages import RequestHead


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class SlowError(AnswerFault):
    """A share of the requests fails after a wait.

    Attributes:
        status: HTTP status code, from 400 to 599.
        delay_s: seconds from the request to the error.
    """

    kind: ClassVar[str] = "slow_error"
    status: int = 500
    delay_s: float

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_whole("status", self.status, at_least=400, at_most=599)
        require("delay_s", self.delay_s, above=0, at_most=LONGEST_DELAY_S)

    def answer(self, head: RequestHead, body: bytes) -> Substitute:  # noqa: ARG002 - the same for each request
        """The error."""
        return error_answer(self.status, delay_s=self.delay_s)
