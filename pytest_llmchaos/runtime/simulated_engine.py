"""The ability `engine`: faults on the admin port of a simulated engine, whichever runtime it runs in."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from pytest_llmchaos.errors import HealFailed, Inconclusive, NotReady
from pytest_llmchaos.host.http_client import request
from pytest_llmchaos.model import EngineFaultState, EngineOption, EngineReport
from pytest_llmchaos.prometheus.queries import Prometheus

if TYPE_CHECKING:
    from pytest_llmchaos.model import ServiceState, Undo, UndoOp
    from pytest_llmchaos.subject.lab import Subject

# What the engine keeps in its state folder for faults that strike at the next start, and the kinds that do.
BOOT_FILE = "boot-faults.json"
_AT_BOOT = frozenset({"crash_on_boot", "slow_load"})
ADMIN_PORT = 8081  # in the compose file's numbers: the engine's own port and one
_DEADLINE_S = 5.0


class ListedFault(TypedDict):
    """One fault in the admin port's answer to `list`."""

    id: str
    kind: str
    state: str
    lease_s: float
    left_s: float
    counters: Mapping[str, float]


class EngineAnswer(TypedDict, total=False):
    """What the admin port answers: `id` to `start`, `faults` to `list`."""

    id: str
    faults: list[ListedFault]


class EngineAbility:
    """What a runtime inherits to have the ability. It brings the way to the admin port, and to the engine's state folder."""

    subject: Subject

    def _ask_engine(self, service: str, verb: str, argument: str = "") -> EngineAnswer:
        """The admin port's answer to `start` (JSON), `list` or `end` (id).

        Raises NotReady with the port's own words, or saying that nobody listens.
        """
        raise NotImplementedError

    def _forget_boot_faults(self, service: str) -> None:
        """Empty the file of faults that strike at the next start, also where the service does not run."""
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
        """Only the simulated engine has an admin port: elsewhere its faults are skipped."""
        simulated = dict(self.subject.extra_env).get("LLMCHAOS_BACKEND") == "sim"
        return frozenset({"engine"} if simulated else ())

    @property
    def engine_undo_ops(self) -> Mapping[str, UndoOp]:
        return {"engine_end": self.undo_engine}

    def engine_start(self, service: str, kind: str, *, lease_s: float, **options: EngineOption) -> str:
        """Start a fault; its id."""
        asked = json.dumps({"kind": kind, "lease_s": lease_s, **options})
        return str(self._ask_engine(service, "start", asked)["id"])

    def engine_faults(self, service: str) -> EngineReport | None:
        """What the engine says of its faults; None where it does not run or does not answer yet."""
        try:
            told = self._ask_engine(service, "list")
        except NotReady:
            return None
        now = time.time()
        return EngineReport(at_unix_s=now, faults=tuple(_state(one, now) for one in told["faults"]))

    def engine_end(self, service: str, id_: str) -> None:
        """End one fault. Harmless for one that has ended."""
        self._ask_engine(service, "end", id_)

    def engine_signal(self, query: str) -> float | None:
        """The largest number that the query gives now; None if it matches nothing, or Prometheus does not answer."""
        try:
            found = Prometheus(self.url(self.subject.prometheus)).vector(query, time.time(), may_be_empty=True)
        except Inconclusive:
            return None
        return max(found.values(), default=None)

    def engine_witness(self, kind: str, victim: str) -> str:
        """The subject's query for a fault that its gateway can see."""
        query = self.subject.witness_query(kind, victim)
        if query is None:
            raise Inconclusive(f"the subject names no query that shows {kind}, so nothing could prove it")
        return query

    def undo_engine(self, undo: Undo) -> None:
        """End every fault of one kind, in force or due at the next start, and see that the service runs.

        Content with a service that is gone. Raises HealFailed as long as the engine does not answer, and for an undo
        without a kind.
        """
        if not isinstance(undo.args.get("kind"), str):
            raise HealFailed(
                f"{undo.op} {undo.service} names no kind of fault, got {dict(undo.args)!r:.80}: put it right by hand"
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
            raise HealFailed(f"cannot end {kind} on {service}: {error}; heal by hand with `llmchaos heal`") from None


def ask_admin_port(address: str, verb: str, argument: str) -> EngineAnswer:
    """What `lab_engine.fault` does inside a container, for an admin port that can be reached from here."""
    method, path, body = {
        "start": ("POST", "/faults", argument.encode()),
        "list": ("GET", "/faults", None),
        "end": ("DELETE", f"/faults/{argument}", None),
    }[verb]
    try:
        response = request(method, f"http://{address}{path}", content=body, timeout_s=_DEADLINE_S)
    except OSError as error:
        raise NotReady(f"no admin port answers at {address}: {error}") from None
    if response.status_code >= 400:
        raise NotReady(f"the engine at {address} refused `{verb}`: {response.text}")
    answer: EngineAnswer = response.json()
    return answer


def _state(told: ListedFault, now_unix_s: float) -> EngineFaultState:
    active = told["state"] == "active"
    age_s = float(told["lease_s"]) - float(told["left_s"]) if active else 0.0
    return EngineFaultState(
        id=str(told["id"]),
        kind=str(told["kind"]),
        active=active,
        started_unix_s=now_unix_s - age_s,
        counters={str(name): float(count) for name, count in told["counters"].items()},
    )
