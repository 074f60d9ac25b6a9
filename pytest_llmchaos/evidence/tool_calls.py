"""File of the calls that a tool server received, one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from pytest_llmchaos.evidence.redaction import redact

NAME = "calls.jsonl"


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call as the effect ledger has it.

    Times are seconds since the start of the load, on the trial's clock.
    """

    tool: str
    """The tool, such as `refund`."""
    order: int
    """The order number of its argument."""
    received_s: float
    """Second at which the tool server had the call."""
    applied_s: float | None = None
    """Second at which its effect was applied, null without an effect."""
    answered_s: float | None = None
    """Second at which the first byte of its answer left, null without an answer."""
    effect: int | None = None
    """Id of its effect, null without one."""
    key: str | None = None
    """Idempotency key, null without one."""

    @property
    def step(self) -> str:
        """The step that it performs, such as `refund 17`."""
        return f"{self.tool} {self.order}"


_encoder = msgspec.json.Encoder()


def write(folder: Path, calls: Iterable[ToolCall]) -> None:
    """Write the calls of a trial into its folder, without secrets in their keys."""
    (folder / NAME).write_bytes(b"".join(_encoder.encode(call) + b"\n" for call in _redacted(tuple(calls))))


def _redacted(calls: Sequence[ToolCall]) -> Iterable[ToolCall]:
    keys = "\n".join(call.key for call in calls if call.key is not None)
    if redact(keys) == keys:  # a look at each of many keys would take seconds
        return calls
    return (call if call.key is None else msgspec.structs.replace(call, key=redact(call.key)) for call in calls)
