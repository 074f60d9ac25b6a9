"""The ability `engine`: faults through a simulated engine's admin port."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from pytest_llmchaos.errors import HealFailed, Inconclusive, NotReady
from pytest_llmchaos.host.http_client import request
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.runtime.leased_faults import ListedFault, read_faults

if TYPE_CHECKING:
    from pytest_llmchaos.model import EngineOption, LeasedFaults, ServiceState, Undo, UndoOp
    from pytest_llmchaos.subject.lab import Subject

# File in the engine's state folder for faults due at its next start, and their kinds.
BOOT_FILE = "boot-faults.json"
_AT_BOOT = frozenset({"crash_on_boot", "slow_load"})
ADMIN_PORT = 8081  # in the compose file's numbers: the engine's own port plus one
_DEADLINE_S = 5.0


class EngineAnswer(TypedDict, total=False):
    """Answer of the admin port: `id` to `start`, `faults` to `list`."""

    id: str
    faults: list[ListedFault]


class EngineAbility:
    """Mixin for runtimes, which supply access to admin port and state folder."""

    subject: Subject

    def _ask_engine(self, service: str, verb: str, argument: str = "") -> EngineAnswer:
        """Return the admin port's answer to `start` (JSON), `list` or `end` (id).

        Raises NotReady with the port's error text, or if the port does not answer.
        """
        raise NotImplementedError

    def _forget_boot_faults(self, service: str) -> None:
        """Empty the file of faults due at the next start, even of a stopped service."""
        raise NotImplementedError

    def url(self, service: str) -> str:
        raise NotImplementedError

    def state(self, service: str) -> ServiceState:
        raise NotImplementedError

    def start(self, service: str) -> None:
        raise NotImplementedError

    def unpause(self, service: str) -> None:
        raise NotImplementedError

    @property
    def engine_abilities(self) -> frozenset[str]:
        """Return `engine` for the simulated engine only: others lack an admin port."""
        simulated = dict(self.subject.extra_env).get("LLMCHAOS_BACKEND") == "sim"
        return frozenset({"engine"} if simulated else ())

    @property
    def engine_undo_ops(self) -> Mapping[str, UndoOp]:
        return {"engine_end": self.undo_engine}

    def engine_start(self, service: str, kind: str, *, lease_s: float, **options: EngineOption) -> str:
        """Start a fault for at most `lease_s` seconds and return its id."""
        asked = json.dumps({"kind": kind, "lease_s": lease_s, **options})
        return str(self._ask_engine(service, "start", asked)["id"])

    def engine_faults(self, service: str) -> LeasedFaults | None:
        """List the engine's faults. None if the engine does not run or answer yet."""
        try:
            listed = self._ask_engine(service, "list")["faults"]
        except NotReady:
            return None
        return read_faults(listed, time.time())

    def engine_end(self, service: str, id_: str) -> None:
        """End one fault. Does nothing if it has ended."""
        self._ask_engine(service, "end", id_)

    def engine_signal(self, query: str) -> float | None:
        """Return the largest value of a query now.

        None if the query matches nothing or Prometheus does not answer.
        """
        try:
            found = Prometheus(self.url(self.subject.prometheus)).vector(query, time.time(), may_be_empty=True)
        except Inconclusive:
            return None
        return max(found.values(), default=None)

    def engine_witness(self, kind: str, victim: str) -> str:
        """Return the query that shows a fault at the subject's gateway.

        Raises:
            Inconclusive: the subject has no such query.
        """
        query = self.subject.witness_query(kind, victim)
        if query is None:
            raise Inconclusive(f"the subject has no witness query for {kind}, so the fault cannot be proven")
        return query

    def undo_engine(self, undo: Undo) -> None:
        """End all active or due faults of one kind and start a stopped service.

        Does nothing for a removed service. Raises HealFailed while the engine does not
        answer, and for an undo without a kind.
        """
        if not isinstance(undo.args.get("kind"), str):
            raise HealFailed(
                f"{undo.op} {undo.service} must name a kind of fault, got {dict(undo.args)!r:.80}: revert it by hand"
            )
        service, kind = undo.service, str(undo.args["kind"])
        state = self.state(service)
        if not state.identity:
            return
        try:
            if kind in _AT_BOOT:
                self._forget_boot_faults(service)
            if state.paused:
                self.unpause(service)
            if not state.running:
                self.start(service)
                return
            for fault in self._ask_engine(service, "list")["faults"]:
                if fault["kind"] == kind and fault["state"] == "active":
                    self.engine_end(service, str(fault["id"]))
        except NotReady as error:
            raise HealFailed(f"cannot end {kind} on {service}: {error}; run `llmchaos heal`") from None


def ask_admin_port(address: str, verb: str, argument: str) -> EngineAnswer:
    """Send one request to an admin port that can be reached from here.

    `lab_engine.fault` does the same inside a container.
    """
    method, path, body = {
        "start": ("POST", "/faults", argument.encode()),
        "list": ("GET", "/faults", None),
        "end": ("DELETE", f"/faults/{argument}", None),
    }[verb]
    try:
        response = request(method, f"http://{address}{path}", content=body, timeout_s=_DEADLINE_S)
    except OSError as error:
        raise NotReady(f"the engine's admin port at {address} did not answer `{verb}`: {error}") from None
    if response.status_code >= 400:
        raise NotReady(f"the engine at {address} refused `{verb}`: {response.text}")
    answer: EngineAnswer = response.json()
    return answer
