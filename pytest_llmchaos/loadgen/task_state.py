"""State of a task, as its agent reports it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pytest_llmchaos.loadgen import classify

# Sums of such counts are exact as floats.
Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


class TaskState(msgspec.Struct, frozen=True):
    """The state of a task. An agent may drop all but the status."""

    status: Literal["running", "completed", "failed", "cancelled"]
    steps: Count | None = None
    tokens: Count | None = None
    model_calls: Count | None = None
    tool_calls: Count | None = None
    error: str | None = None


_decoder = msgspec.json.Decoder(TaskState)


def read_state(body: bytes) -> TaskState:
    """Read the state in an answer. Raises ValueError, which names the field."""
    return classify.parse(body, _decoder)
