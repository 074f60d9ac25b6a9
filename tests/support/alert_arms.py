"""Disturbances that make each alert fire."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import time
from typing import TYPE_CHECKING, Any

from support.waiting import until

from pytest_llmchaos import faults
from pytest_llmchaos.generate.rules import LAB_SCALE, alert_name, alerts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pytest_llmchaos.slo.arithmetic import Slo

FIRES_WITHIN_S = 30.0
LONG = ("SlowBurn", "CreepingBurn")
QUIET_WITHIN_S = 130.0  # ServiceFlapping looks back for 2 minutes, longer than all others


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """A disturbance under load, without repair, and the alerts that it must raise."""

    says: str
    broken: Callable[[Any], contextlib.AbstractContextManager[object]]
    raises: tuple[str, ...]
    wire: tuple[str, ...] = ()  # services that need a fault agent


def both(make: Callable[..., Any], **options: object) -> Any:
    return faults.together(make("model-1", **options), make("model-2", **options))


def injected(fault: Any) -> Callable[[Any], contextlib.AbstractContextManager[object]]:
    return lambda lab: lab.inject(fault)


@contextlib.contextmanager
def no_pushgateway(lab: Any) -> Iterator[None]:
    """Not among what faults may hit: it belongs to the instrument."""
    lab.runtime.kill("pushgateway")
    try:
        yield
    finally:
        lab.runtime.start("pushgateway")


@contextlib.contextmanager
def frozen_prometheus(lab: Any) -> Iterator[None]:
    """It cannot fire an alert while it is frozen. It does when it goes on."""
    lab.runtime.pause("prometheus")
    try:
        lab.hold(7)
    finally:
        lab.runtime.unpause("prometheus")
    yield


@contextlib.contextmanager
def restarted_by_an_operator(lab: Any) -> Iterator[None]:
    """Four times, while the remediator counts and an operator's hold stops it."""
    with watched_on_hold(lab):
        for _ in range(2):
            counted(lab, "model-1", "external", lambda: lab.runtime.restart("model-1"))
            counted(lab, "model-1", "external", lambda: (lab.runtime.kill("model-1"), lab.runtime.start("model-1")))
        yield


@contextlib.contextmanager
def watched_on_hold(lab: Any) -> Iterator[None]:
    """The remediator runs under an operator's hold, and Prometheus has its counters."""
    ran = lab.remediator.running
    lab.remediator.ensure(True)
    hold = "/audit/hold"
    try:
        inside(lab, "remediator", "touch", hold)  # an empty one holds all
        until(
            lambda: lab.prometheus.vector(*restarts("model-1", "external"), may_be_empty=True),
            "the counters' scrape",
            20.0,
        )
        yield
    finally:
        inside(lab, "remediator", "rm", "-f", hold)
        lab.remediator.ensure(ran)


@contextlib.contextmanager
def restart_policy(lab: Any, service: str) -> Iterator[None]:
    """The lab's containers lack a policy: the remediator repairs."""
    container = f"{lab.runtime.project}-{service}-1"
    docker("update", "--restart=on-failure", container)
    try:
        yield
    finally:
        docker("update", "--restart=no", container)


def counted(lab: Any, service: str, reason: str, restart: Callable[[], object]) -> bool:
    """Restart once and wait until Prometheus has counted it, or fail."""

    def value() -> float:
        return float(lab.prometheus.value(*restarts(service, reason)))

    before = value()
    restart()
    return until(lambda: value() == before + 1, f"one restart of {service} counted as {reason}", 20.0)


def restarts(service: str, reason: str) -> tuple[str, float]:
    selector = f'service_container_restarts_total{{service="{service}",reason="{reason}"}}'
    return f"last_over_time({selector}[5s])", time.time()


def inside(lab: Any, service: str, *command: str) -> None:
    docker("exec", f"{lab.runtime.project}-{service}-1", *command)


def docker(*command: str) -> None:
    done = subprocess.run(["docker", *command], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def arms(slos: Sequence[Slo]) -> tuple[Arm, ...]:
    def burns(*names: str) -> tuple[str, ...]:
        of = [slo for slo in slos if slo.name in names]
        return tuple(alert_name(slo, one.alert) for slo in of for one in alerts_of(slo, LAB_SCALE))

    return (
        Arm(
            says="answers are garbage",
            broken=injected(both(faults.corrupted_output)),
            raises=burns("stream-completeness"),
        ),
        Arm(
            says="a GPU reports an error of which every request dies, another is hot",
            broken=injected(
                faults.together(
                    faults.xid("model-1", code=43, engine="errors"),
                    faults.thermal_throttling("model-2", clock_ratio=0.9),
                )
            ),
            raises=("GpuXid", "ReplicaEjected", "GpuHot"),
        ),
        Arm(says="an engine hangs", broken=injected(faults.hang("model-2")), raises=("EngineStalled", "RequestStuck")),
        Arm(
            says="no room is left in the caches",
            broken=injected(both(faults.gpu_exhaustion, what="kv_cache", ratio=1)),
            raises=("KvCacheFull",),
        ),
        Arm(
            says="the engines compute on the CPU, far below the load",
            # An answer waits 5 s and takes 3 s: late, and within its clients' 10 s.
            broken=injected(both(faults.cpu_fallback, slowdown=60)),
            raises=("LatencyP95High", "TimeToFirstTokenP95High", "QueueBacklog", "LatencyP99FastBurn"),
        ),
        Arm(
            says="both replicas are killed",
            broken=injected(both(faults.kill)),
            raises=("ServiceDown", "ApiErrorsHigh", *burns("availability", "latency-p95", "latency-p99", "ttft-p95")),
        ),
        Arm(says="the push gateway is killed", broken=no_pushgateway, raises=("PushgatewayDown",)),
        Arm(
            says="Prometheus is frozen for 7 s",
            broken=frozen_prometheus,
            raises=("PrometheusMissingRuleEvaluations",),
        ),
        Arm(
            says="a replica is restarted again and again", broken=restarted_by_an_operator, raises=("ServiceFlapping",)
        ),
        Arm(
            says="a replica fails a third of its requests, and the network of the other is slow",
            broken=injected(
                faults.together(
                    faults.flaky("model-1", status=503, share=0.3), faults.latency("model-2", delay_s=0.4, jitter_s=0.1)
                )
            ),
            raises=("UpstreamErrorsHigh", "ProbeSlow"),
            wire=("model-1", "model-2"),
        ),
    )


def fired_in(lab: Any, arm: Arm) -> set[str]:
    """The arm's alerts that fired by it, once all have or the deadline is over.

    Every alert must be silent when the arm begins, except those of LONG. Their short
    windows are as long as all arms together, so earlier arms contribute to them.
    """
    until(lambda: not others_firing(lab, arm), f"silence before {arm.says!r}", QUIET_WITHIN_S)
    started = time.time()
    fired: set[str] = set()

    def all_fired() -> bool:
        fired.update(alert.name for alert in lab.prometheus.firing_spells(started, time.time()))
        return fired >= set(arm.raises)

    with arm.broken(lab):
        lab.hold_until(all_fired, deadline_s=FIRES_WITHIN_S, what=arm.says)
    return fired


def others_firing(lab: Any, arm: Arm) -> set[str]:
    found = lab.prometheus.vector('ALERTS{alertstate="firing"}', time.time(), may_be_empty=True)
    names = {dict(labels)["alertname"] for labels in found}
    return {name for name in names if not name.endswith(LONG) and (name != "ServiceFlapping" or name in arm.raises)}


def without_arm(alerts: Iterable[str], table: Sequence[Arm]) -> list[str]:
    """Alerts that nothing here makes fire, and names that no rule has."""
    raised = {name for arm in table for name in arm.raises}
    known = set(alerts)
    return [f"{name} has no experiment" for name in sorted(known - raised)] + [
        f"{name} is no alert" for name in sorted(raised - known)
    ]


def not_fired(arm: Arm, fired: Mapping[str, set[str]]) -> list[str]:
    return sorted(set(arm.raises) - fired[arm.says])
