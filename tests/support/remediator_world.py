"""A lab on a virtual clock, as the remediator sees it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lab_remediator.decide import decide, finished
from lab_remediator.load import load_policy
from lab_remediator.model import Container, Decision, Observations, Reading, State

if TYPE_CHECKING:
    from lab_remediator.rules import Policy

RULES = """
schema: llmlab-remediation/1
replicas: [model-1, model-2]
guards: {startup_grace_s: 20, cooldown_s: 2, backoff: 2, cooldown_max_s: 10, glitch_s: 1.5, max_attempts: 3, healthy_s: 15,
         recovered_s: 1, max_actions: 6, window_s: 600, verify_s: 15, stale_s: 3, evidence_wait_s: 5}
signals:
  scrape: {query: up, fires: "< 1"}
  probe: {query: health, by: replica, fires: "< 1"}
  second: {query: second, fires: "< 1"}
  steps: {query: steps, fires: "> 0"}
rules:
  - {name: api-exited, services: [api], signal: [{signal: scrape}], evidence: [{container: [exited, dead]}], action: start}
  - {name: api-unresponsive, services: [api], signal: [{signal: scrape, for_s: 4, share: 0.8}],
     evidence: [{signal: second, for_s: 4, share: 0.8}], action: kill}
  - {name: replica-exited, services: [model-1, model-2], signal: [{signal: probe}],
     evidence: [{container: [exited, dead]}], action: start}
  - {name: replica-hung, services: [model-1, model-2], signal: [{signal: probe, for_s: 4}],
     evidence: [{signal: second}], unless: [{signal: steps}], action: kill}
"""


SERVICES = ("api", "model-1", "model-2")


START = 1_000_000.0


def policy(*, dry_run: bool = False) -> Policy:
    return load_policy(RULES, SERVICES, dry_run=dry_run)


def running(service: str, *, since_s: float = START - 100, seen_s: float = START) -> Container:
    return Container(
        id=f"id-{service}",
        state="running",
        health="healthy",
        started_at=since_s,
        restart_count=0,
        exit_code=0,
        seen_at=seen_s,
    )


@dataclass
class World:
    """A lab that is good until a test changes it. Each tick observes all of it."""

    policy: Policy = field(default_factory=policy)
    now: float = START
    state: State = field(default_factory=State)
    values: dict[tuple[str, str], float | None] = field(default_factory=dict)
    containers: dict[str, Container | None] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    log: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = {("scrape", "api"): 1.0, **{("probe", name): 1.0 for name in ("model-1", "model-2")}}
        self.containers = {name: running(name) for name in SERVICES}

    def dies(self, service: str) -> None:
        """End the process, and let every signal show it."""
        self.becomes(service, state="exited", exit_code=137)
        self.values["scrape" if service == "api" else "probe", service] = 0.0

    def becomes(self, service: str, **changes: object) -> None:
        container = self.containers[service]
        assert container is not None
        self.containers[service] = replace(container, **changes)  # type: ignore[arg-type]

    def lives(self, service: str) -> None:
        self.becomes(service, state="running", started_at=self.now, exit_code=0)
        self.values["scrape" if service == "api" else "probe", service] = 1.0

    def tick(self, seconds: float = 0.25) -> list[Decision]:
        self.now += seconds
        observed = Observations(
            readings={k: Reading(at=self.now, value=v) for k, v in self.values.items() if v is not None},
            containers={k: replace(c, seen_at=self.now) for k, c in self.containers.items() if c is not None},
            held=self.held,
            elsewhere=self.elsewhere,
        )
        decisions, self.state = decide(self.policy, observed, self.state, self.now)
        self.log.extend(decisions)
        return list(decisions)

    def run(self, seconds: float) -> list[Decision]:
        return [decision for _ in range(round(seconds / 0.25)) for decision in self.tick()]

    def finish(self, service: str) -> None:
        self.state = finished(self.state, service, self.now)

    def acts(self) -> list[tuple[str, str | None]]:
        return [(decision.service, decision.action) for decision in self.log if decision.event == "act"]

    def results(self) -> list[str]:
        return [decision.result for decision in self.log if decision.event in ("suppressed", "escalated")]
