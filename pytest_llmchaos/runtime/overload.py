"""The ability `overload`, with clients that the lab provides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.errors import InvalidExperiment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmchaos.model import Flood, Proof, Undo, UndoOp


class OverloadAbility:
    """Mixin for runtimes. The lab sets `flood` while faults are injected."""

    flood: Flood | None = None

    def overload(self, service: str, times: float, max_tokens: int) -> None:
        self._lent(service).start(service, times, max_tokens)

    def overload_seen(self, service: str, since_unix_s: float) -> Proof | None:
        return self._lent(service).seen(service, since_unix_s)

    def overload_report(self, service: str) -> str:
        return self._lent(service).report(service)

    def overload_gone(self, service: str) -> Proof | None:
        return self._lent(service).gone()

    def _lent(self, service: str) -> Flood:
        if self.flood is None:
            raise InvalidExperiment(f"{service} can be overloaded only inside `with lab.inject(...)`")
        return self.flood

    @property
    def overload_undo_ops(self) -> Mapping[str, UndoOp]:
        return {"stop_overload": self._stop_overload}

    def _stop_overload(self, _: Undo) -> None:
        """Stop the flood. Cleanup ends a dead run's by the pid in its journal."""
        if self.flood is not None:
            self.flood.stop()
