"""Another model's name in the answer."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fault_agent.acts import Act, Send
from fault_agent.faults.base import StreamFault, register
from fault_agent.faults.dialects import Fields, dump, parse
from fault_agent.faults.editors import EachEvent, Editor, Whole
from lab_common.values import require_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_agent.faults.events import Stream

_NAME = b'"model"'
_FIELD = re.compile(rb'("model"\s*:\s*)"(?:[^"\\]|\\.)*"')


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class WrongModel(StreamFault):
    """Each event names another model. Other bytes stay.

    TGI's own events name no model, so they are never hit. The load generator sees
    `corrupted` if it has the expected answer, else `ok`.

    Attributes:
        model: the name.
    """

    kind: ClassVar[str] = "wrong_model"
    model: str = "another-model"

    def check(self) -> None:
        """Check the options. Raises InvalidValueError."""
        require_text("model", self.model)

    def edit_stream(self, stream: Stream, hit: Callable[[], None]) -> Editor:
        """An editor for a stream."""

        def change(raw: bytes, data: bytes, _meaning: int, fields: Fields) -> bytes:
            renamed = self._rename(data, fields)
            return raw if renamed is None else stream.with_data(raw, renamed)

        return EachEvent(stream, change, hit)

    def edit_whole(self, hit: Callable[[], None]) -> Editor:
        """An editor for a JSON body."""
        return Whole(self._rename_whole, hit)

    def _rename_whole(self, body: bytes) -> list[Act] | None:
        renamed = self._rename(body, parse(body))
        return None if renamed is None else [Send(renamed)]

    def _rename(self, data: bytes, fields: Fields) -> bytes | None:
        named = fields.get("model")
        if not isinstance(named, str) or named == self.model:
            return None
        if data.count(_NAME) == 1 and (found := _FIELD.search(data)):
            return data[: found.end(1)] + json.dumps(self.model).encode() + data[found.end() :]
        return dump(fields | {"model": self.model})
