"""An engine without progress while `/health` still returns 200."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lab_engine.faults.base import Fault, register

if TYPE_CHECKING:
    from lab_engine.effects import Effects


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class Hang(Fault):
    """The engine stops taking steps."""

    kind: ClassVar[str] = "hang"

    def effects(self, others: Effects) -> Effects:
        return replace(others, hung=True)
