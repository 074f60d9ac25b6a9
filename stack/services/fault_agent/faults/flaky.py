"""Errors at once, without the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.faults.base import AnswerFault, register
from fault_agent.faults.substitute import Substitute, error_answer
from lab_common.values import require_whole

if TYPE_CHECKING:
    from fault_agent.messages import RequestHead

LONGEST_RETRY_S = 86_400


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Flaky(AnswerFault):
    """A share of the requests fails at once.

    Attributes:
        status: HTTP status code, from 400 to 599.
        retry_after_s: whole seconds of the header Retry-After, None without it.
    """

    kind: ClassVar[str] = "flaky"
    status: int = 503
    retry_after_s: int | None = None

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_whole("status", self.status, at_least=400, at_most=599)
        if self.retry_after_s is not None:
            require_whole("retry_after_s", self.retry_after_s, at_least=0, at_most=LONGEST_RETRY_S)

    def answer(self, head: RequestHead, body: bytes) -> Substitute:  # noqa: ARG002 - the same for each request
        """The error."""
        return error_answer(self.status, retry_after_s=self.retry_after_s)
