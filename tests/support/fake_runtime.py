"""A runtime in memory, whose states, events and abilities behave as real ones."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from pytest_llmchaos.errors import HealFailed, NotReady
from pytest_llmchaos.model import (
    ABILITIES,
    REPLICA,
    Environment,
    EventGap,
    Flood,
    LeasedFaults,
    LeasedFaultState,
    Proof,
    RuntimeEvent,
    ServiceState,
    Undo,
    UndoOp,
    replica_name,
)
from pytest_llmchaos.runtime.docker.restrictions import RELEASES
from pytest_llmchaos.runtime.undo import UndoRegistry
from pytest_llmchaos.subject.environment import check_environment
from pytest_llmchaos.subject.lab import lab_subject


class FakeRuntime(UndoRegistry):
    """A runtime without processes.

    `deaf` drops events (no witness), `broken` refuses reverts, `touched` records every
    service that was acted on, `hit` every container.
    """

    name = "fake"
    project = "llmchaos-fake"
    services_run_as = "values"
    dashboards: str | None = None
    flood: Flood | None = None

    def __init__(
        self,
        services: Sequence[str] = ("api", "model-1", "model-2"),
        *,
        deaf: bool = False,
        broken: bool = False,
        scaled: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._clock = itertools.count(1000)
        self._states = {
            s: ServiceState(service=s, running=True, healthy=True, started_unix_s=1.0, identity=s) for s in services
        }
        self._events: list[RuntimeEvent] = []
        self.gaps: list[EventGap] = []
        self.deaf = deaf
        self.broken = broken
        self.touched: list[str] = []
        self.hit: list[str] = []
        self._scaled = dict(scaled or {})
        self._aimed = {service: numbers[0] for service, numbers in self._scaled.items()}
        self.abilities = frozenset(ABILITIES)
        self._restricted: dict[tuple[str, str], float] = {}
        self._engine_faults: dict[tuple[str, str], LeasedFaultState] = {}
        self._boot_faults: set[str] = set()
        self._floods: dict[str, float] = {}
        self.armed: set[str] = set()
        self.protocols: dict[str, dict[int, str]] = {}
        self._wire_faults: dict[tuple[str, str], LeasedFaultState] = {}
        self.audit_lines: Sequence[Mapping[str, Any]] | None = ()
        self.environment: Environment = {}

    def now(self) -> float:
        return float(next(self._clock))

    def targets(self) -> tuple[str, ...]:
        return tuple(self._states)

    def state(self, service: str) -> ServiceState:
        return self._states.get(service, ServiceState(service=service, running=False))

    def states(self) -> Mapping[str, ServiceState]:
        return dict(self._states)

    def events(self, since_unix_s: float, until_unix_s: float) -> Sequence[RuntimeEvent]:
        return [e for e in self._events if since_unix_s <= e.at_unix_s <= until_unix_s]

    def event_gaps(self, since_unix_s: float, until_unix_s: float) -> Sequence[EventGap]:
        return [g for g in self.gaps if g.from_unix_s <= until_unix_s and g.to_unix_s >= since_unix_s]

    def remove(self, service: str) -> None:
        """Remove the container from outside the instrument."""
        del self._states[service]

    def _change(self, service: str, action: str, attributes: Mapping[str, str] | None = None, **changes: Any) -> None:
        if service not in self._states:
            raise NotReady(f"no container for {service}")
        self.touched.append(service)
        self.hit.append(replica_name(service, self._aimed.get(service)))
        at = self.now()
        if "started_unix_s" in changes:
            changes["started_unix_s"] = at
        self._states[service] = replace(self._states[service], **changes)
        if not self.deaf:
            self._events.append(RuntimeEvent(at_unix_s=at, service=service, action=action, attributes=attributes or {}))

    def kill(self, service: str) -> None:
        self._change(service, "kill", {"signal": "9"})
        self._change(service, "die", {"exitCode": "137"}, running=False, paused=False, exit_code=137)

    def stop(self, service: str, grace_s: int) -> None:
        self._change(service, "kill", {"signal": "15"})
        self._change(service, "die", {"exitCode": "0"}, running=False, paused=False, exit_code=0)

    def crash(self, service: str) -> None:
        self._change(service, "die", {"exitCode": "137"}, running=False, paused=False, exit_code=137)

    def start(self, service: str) -> None:
        self._change(service, "start", running=True, exit_code=None, started_unix_s=0.0)
        if service in self._boot_faults:
            self._change(service, "die", {"exitCode": "1"}, running=False, exit_code=1)

    def restart(self, service: str) -> None:
        self.crash(service)
        self.start(service)

    def pause(self, service: str) -> None:
        self._change(service, "pause", paused=True)

    def unpause(self, service: str) -> None:
        self._change(service, "unpause", paused=False)

    def partition(self, service: str) -> None:
        self._restrict("partition", service, 0)

    def limit_cpu(self, service: str, cores: float) -> None:
        self._restrict("limit_cpu", service, cores)

    def limit_memory(self, service: str, mebibytes: int) -> None:
        self._restrict("limit_memory", service, mebibytes)

    def _restrict(self, kind: str, service: str, amount: float) -> None:
        self._change(service, kind)
        self._restricted[kind, service] = amount

    def restricted(self, kind: str, service: str, since_unix_s: float, amount: float = 0) -> Proof | None:
        for event in self._events:
            on = (event.service, event.action) == (service, kind) and event.at_unix_s >= since_unix_s
            if on and self._restricted.get((kind, service)) == amount:
                return Proof(step="injected", witness="the fake's own word", at_unix_s=event.at_unix_s)
        return None

    def released(self, kind: str, service: str) -> Proof | None:
        if (kind, service) in self._restricted or not self.state(service).running:
            return None
        return Proof(step="healed", witness="the fake's own word", at_unix_s=self.now())

    def engine_start(self, service: str, kind: str, *, lease_s: float, **options: Any) -> str:
        """Start a fault that Prometheus, or the runtime for a death, sees at once."""
        self._change(service, kind)
        died = options.get("then") == "die" or options.get("engine") == "dies"
        if died:
            self._change(service, "die", {"exitCode": "1"}, running=False, exit_code=1)
        elif kind == "crash_on_boot":
            self._boot_faults.add(service)
        else:
            counters = {"requests": 1.0, "bytes": 1.0}
            state = LeasedFaultState(
                id="f1", kind=kind, active=True, started_unix_s=self.now(), counters={} if self.deaf else counters
            )
            self._engine_faults[service, kind] = state
        return "f1"

    def end_lease(self, service: str, kind: str) -> None:
        """The engine ends a fault by itself, and lists it as ended."""
        self._engine_faults[service, kind] = replace(self._engine_faults[service, kind], active=False)

    def engine_faults(self, service: str) -> LeasedFaults | None:
        if not self.state(service).running:
            return None
        found = tuple(fault for (name, _), fault in self._engine_faults.items() if name == service)
        return LeasedFaults(at_unix_s=self.now(), faults=found)

    def engine_witness(self, kind: str, victim: str) -> str:
        return str(lab_subject("sim").witness_query(kind, victim))

    def engine_signal(self, query: str) -> float | None:
        shown = any(f'"{service}"' in query or "{outcome" in query for service, _ in self._engine_faults)
        return 1.0 if shown and not self.deaf else None

    def wire_arm(self, services: Sequence[str]) -> None:
        self.armed.update(services)

    def wire_disarm(self) -> None:
        self.armed.clear()

    def wire_protocols(self, service: str) -> dict[int, str]:
        return self.protocols.get(service, {8000: "HTTP/1"}) if service in self.armed else {}

    def wire_start(self, service: str, kind: str, *, lease_s: float, seed: int, **options: Any) -> str:
        """Start a fault that one of two requests meets at once."""
        if service not in self.armed:
            raise NotReady(f"{service} has no fault agent in its way")
        self._change(service, kind)
        counters = {"met": 2.0, "hit": 0.0 if self.deaf else 1.0}
        self._wire_faults[service, kind] = LeasedFaultState(
            id=f"w{len(self._wire_faults)}", kind=kind, active=True, started_unix_s=self.now(), counters=counters
        )
        return self._wire_faults[service, kind].id

    def wire_faults(self, service: str) -> LeasedFaults | None:
        if service not in self.armed:
            return None
        found = tuple(fault for (name, _), fault in self._wire_faults.items() if name == service)
        return LeasedFaults(at_unix_s=self.now(), faults=found)

    def wire_wait(self, service: str, id_: str, deadline_s: float) -> LeasedFaultState | None:
        """The third request comes at once, unless the fake is deaf."""
        found = next(fault for (name, _), fault in self._wire_faults.items() if name == service and fault.id == id_)
        return found if self.deaf else replace(found, hit_unix_s=self.now())

    def wire_end(self, service: str, id_: str) -> None:
        for key, fault in self._wire_faults.items():
            if key[0] == service and fault.id == id_:
                self._wire_faults[key] = replace(fault, active=False)

    def wire_open(self, service: str) -> str | None:
        return f"{service} accepts a connection from outside" if self.state(service).running else None

    def overload(self, service: str, times: float, max_tokens: int) -> None:
        self._change(service, "overload", {"times": f"{times:g}", "max_tokens": str(max_tokens)})
        self._floods[service] = self.now()

    def overload_seen(self, service: str, since_unix_s: float) -> Proof | None:
        at_unix_s = self._floods.get(service, 0.0)
        if at_unix_s < since_unix_s or not at_unix_s or self.deaf:
            return None
        return Proof(step="injected", witness="the fake's own word", at_unix_s=at_unix_s)

    def overload_report(self, service: str) -> str:
        return f"no request waits at {service}"

    def overload_gone(self, service: str) -> Proof | None:
        if service in self._floods:
            return None
        return Proof(step="healed", witness="the fake's own word", at_unix_s=self.now())

    def configure(self, environment: Environment) -> None:
        """Restart each service whose variables change."""
        wanted = check_environment("configure(environment)", environment, tuple(self._states))
        for service in sorted({*self.environment, *wanted}):
            if self.environment.get(service, {}) != wanted.get(service, {}):
                self.restart(service)
        self.environment = wanted

    @property
    def undo_ops(self) -> Mapping[str, UndoOp]:
        return {
            **super().undo_ops,
            **dict.fromkeys(RELEASES, self._release),
            "engine_end": self._end_engine_fault,
            "wire_end": self._end_wire_fault,
            "stop_overload": self._end_flood,
        }

    def aim(self, service: str, draw: Random, number: int | None = None) -> int | None:
        if service not in self._scaled:
            return super().aim(service, draw, number)
        self._aimed[service] = draw.choice(self._scaled[service]) if number is None else number
        return self._aimed[service]

    def undo(self, undo: Undo) -> None:
        number = undo.args.get(REPLICA)
        if isinstance(number, int):
            self._aimed[undo.service] = number
        if self.broken:
            raise HealFailed(f"the fake refuses {undo.op} {undo.service}")
        super().undo(undo)

    def _release(self, undo: Undo) -> None:
        if self._restricted.pop((RELEASES[undo.op], undo.service), None) is not None and undo.service in self._states:
            self._change(undo.service, undo.op)

    def _end_engine_fault(self, undo: Undo) -> None:
        if self._engine_faults.pop((undo.service, str(undo.args["kind"])), None) and undo.service in self._states:
            self._change(undo.service, undo.op)
        self._boot_faults.discard(undo.service)
        self._put_back(undo.service, start=True)

    def _end_wire_fault(self, undo: Undo) -> None:
        fault = self._wire_faults.get((undo.service, str(undo.args["kind"])))
        if fault and fault.active and undo.service in self._states:
            self.wire_end(undo.service, fault.id)
            self._change(undo.service, undo.op)

    def _end_flood(self, undo: Undo) -> None:
        if self._floods.pop(undo.service, None) and undo.service in self._states:
            self._change(undo.service, undo.op)

    # What has no meaning in memory.

    def prepare(self) -> None:
        return None

    def up(self, *, remediator: bool = True) -> None:
        return None

    def down(self) -> None:
        return None

    def images(self) -> Mapping[str, str]:
        return {}

    def logs(self, *, tail: int = 200) -> str:
        return ""

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:9/{service}"  # the discard port: no answer and no name lookup

    def wait_healthy(self, services: Sequence[str], deadline_s: float) -> None:
        return None

    def clock_offset_s(self) -> float | None:
        return None

    def audit(self) -> Sequence[Mapping[str, Any]] | None:
        return self.audit_lines

    def start_remediator(self) -> None:
        return None

    def stop_remediator(self) -> None:
        return None
