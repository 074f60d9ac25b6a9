"""The gate before each load, and the pause while another process measures."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import InvalidExperiment, ProvesNothing
from pytest_llmchaos.evidence.journal import open_intents
from pytest_llmchaos.lab.reasons import WARM_UP_TAIL_S
from pytest_llmchaos.model import Undo
from pytest_llmchaos.runtime.abilities import grant

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pytest_llmchaos.lab.lab import Lab

TICK_S = 0.1
REST_WITHIN_S = 60.0
SCRAPED_AGAIN_S = 2.0  # a rate needs two samples
SCRAPED_WITHIN_S = 20.0
QUIET_DEADLINE_S = 150.0  # the alert on restarts looks back for two minutes


def require_clean(lab: Lab) -> None:
    """Wait until the stack is clean.

    Clean means that no fault of this run is open, every target is healthy, no other
    service ended with an error, every job is scraped and no alert on a service fires.
    Stopped and paused targets are started first, except in an attached stack. Raises
    InvalidExperiment if the stack does not become clean in time.
    """
    left = open_intents(lab.journal.path)
    if left.undos or left.unreadable:
        named = [f"{undo.op} {undo.service}" for undo in left.undos] + list(left.unreadable)
        raise InvalidExperiment(
            f"an earlier fault of this run is not reverted ({', '.join(named)}): run `llmchaos heal`"
        )
    gone = sorted(set(lab.subject.targets) - set(lab.runtime.states()))
    if gone:
        raise InvalidExperiment(
            f"{', '.join(gone)} was removed by another process, so the stack is incomplete: end the session and run again"
        )
    for service in lab.subject.targets:
        _put_right(lab, service)
    lab.runtime.wait_healthy(lab.subject.targets, 60.0)
    wait_until(lambda: _require_rest(lab), REST_WITHIN_S, "a replica still runs that the autoscaler has to stop")
    wait_until(lab.prometheus.ready, 20.0, "Prometheus is not ready")
    wait_until(lambda: _require_scraped(lab), SCRAPED_WITHIN_S, "Prometheus does not scrape every job yet")
    wait_until(lambda: is_quiet(lab), QUIET_DEADLINE_S, "an alert from before the trial is still firing")
    _require_none_ended(lab)
    lab.reasons.set_up()


def _require_none_ended(lab: Lab) -> None:
    """Raise InvalidExperiment if a service that no fault hits ended with an error.

    A failed job may leave the service without its model or its tables. The remediator
    is left out, because control arms stop it. So is an attached stack, which may have
    been used for days.
    """
    known = {*lab.subject.targets, *lab.subject.scaled, lab.subject.remediator, lab.subject.autoscaler}
    ended = [
        f"{name} ended with status {state.exit_code}"
        for name, state in sorted(lab.runtime.states().items())
        if name not in known and state.exit_code
    ]
    if ended and not lab.subject.attach:
        raise InvalidExperiment(
            f"{', '.join(ended)}, though no fault hit it, so the stack is not whole: see its log in the report's folder logs/, "
            "and mend it or put it into a profile that is off"
        )


def _put_right(lab: Lab, service: str) -> None:
    state = lab.runtime.state(service)
    if lab.subject.attach and (state.paused or not state.running):
        how, mend = ("is paused", "unpause") if state.paused else ("does not run", "start")
        raise InvalidExperiment(f"{service} {how}, and an attached stack is not changed: {mend} it yourself")
    if state.running and not state.paused:
        return
    with lab.reasons.during():
        lab.runtime.undo(Undo(op="ensure_unpaused" if state.paused else "ensure_running", service=service))


def _require_rest(lab: Lab) -> bool:
    """True if no replica runs that only the autoscaler starts. Raises with its name."""
    running = [name for name in lab.subject.spare if lab.runtime.state(name).running]
    if running:
        raise InvalidExperiment(f"{', '.join(running)} runs: see the log of {lab.subject.autoscaler}")
    return True


def _require_scraped(lab: Lab) -> bool:
    """Return True if every job is scraped. Raises InvalidExperiment with the causes."""
    if is_scraped(lab, 0.0):
        return True
    jobs, targets = lab.subject.scrape_jobs, lab.prometheus.targets()
    causes = [
        f"{one.job} at {one.url} ({one.last_error or 'not scraped yet'})"
        for one in targets
        if one.job in jobs and not (one.up and one.last_scrape_unix_s)
    ]
    causes += [f"{job} has no target" for job in jobs if job not in {one.job for one in targets}]
    key = "; check port and path in llmchaos_metrics" if lab.subject.own else ""
    raise InvalidExperiment(f"{', '.join(causes)}{key}")


def is_scraped(lab: Lab, since_unix_s: float, *, resting: Collection[str] | None = None) -> bool:
    """True if every target was scraped since then and was up.

    The first scrape comes 5 s after the start of Prometheus.

    Args:
        lab: The running stack.
        since_unix_s: Unix time in seconds.
        resting: Replicas that need not be up. None: those that only an autoscaler
            starts.
    """
    targets, jobs = lab.prometheus.targets(), set(lab.subject.scrape_jobs)
    excused = set(lab.subject.spare if resting is None else resting)
    good = [one for one in targets if one.up or one.service in excused]
    fresh = {one.job for one in good if one.last_scrape_unix_s > since_unix_s}
    return fresh >= jobs and not any(one.job in jobs for one in targets if one not in good)


def is_quiet(lab: Lab) -> bool:
    """True if no alert on a service fires.

    Alerts on burning budgets end within seconds of new clients. The steady gate waits
    for them.
    """
    alerts = lab.firing(of_services=True)
    if alerts:
        lab.say(f"waiting until {', '.join(alerts)} no longer fires")
    return not alerts


def not_routed(lab: Lab) -> list[str]:
    """Return the replicas to which the service routes no requests, sorted.

    A replica that the query does not name is unknown, and left out. Raises Inconclusive
    if Prometheus does not respond or its answer is unusable.
    """
    query = lab.subject.rotation_query
    if query is None:
        return []
    found = lab.prometheus.vector(query, time.time(), may_be_empty=True)
    routed = {dict(labels).get("service", ""): value for labels, value in found.items()}
    return sorted(name for name in lab.subject.replicas if routed.get(name, 1) != 1)


def wait_until(condition: Callable[[], bool], deadline_s: float, otherwise: str) -> None:
    """Wait for a condition. Raises InvalidExperiment with the last reason."""
    deadline = time.monotonic() + deadline_s
    while True:
        reason = otherwise
        try:
            if condition():
                return
        except ProvesNothing as error:
            reason = f"{otherwise}: {error}"
        if time.monotonic() > deadline:
            raise InvalidExperiment(f"{reason} (waited {deadline_s:g} s)")
        time.sleep(TICK_S)


@contextlib.contextmanager
def at_rest(lab: Lab) -> Iterator[None]:
    """Pause Prometheus and the remediator, to leave the CPU to another process.

    The remediator is paused first and resumed last, when every job has been scraped
    again. Otherwise it would take the gap in the metrics for an outage. An attached
    stack is not paused.
    """
    with lab.reasons.during(WARM_UP_TAIL_S, alerts_alone=True), _frozen(lab, lab.subject.remediator):
        with _frozen(lab, lab.subject.prometheus):
            yield
        since = time.time() + SCRAPED_AGAIN_S
        wait_until(
            lambda: is_scraped(lab, since, resting=lab.subject.scaled),
            SCRAPED_WITHIN_S,
            "Prometheus does not scrape every job again",
        )


@contextlib.contextmanager
def _frozen(lab: Lab, service: str | None) -> Iterator[None]:
    needs = frozenset({"pause", "unpause"})
    if (
        service is None
        or lab.subject.attach
        or not needs <= lab.runtime.abilities
        or not lab.runtime.state(service).running
    ):
        yield
        return
    grant(lab.runtime, needs, "a stack at rest").pause(service)
    try:
        yield
    finally:
        lab.runtime.undo(Undo(op="ensure_unpaused", service=service))
