"""Further environment variables of services, set between two loads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario, InvalidExperiment, NotReady
from pytest_llmchaos.lab.reasons import WARM_UP_TAIL_S
from pytest_llmchaos.plan.experiment import with_policy
from pytest_llmchaos.runtime.abilities import grant
from pytest_llmchaos.subject.lab import AUTOSCALER

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.model import Environment
    from pytest_llmchaos.subject.lab import Subject

LOG_LINES = 40
READY_WITHIN_S = 20.0
# The longest times that the autoscaler accepts. No load of a trial lasts as long.
PASSIVE = {"LAB_REPAIR_S": "3600", "LAB_COLD_S": "7200"}
# What a runtime puts before a line of a service's log.
_BEFORE = re.compile(r"^[^|]*\|\s*(?:\d{4}-\d\d-\d\dT\S+\s+)?")


def configure(lab: Lab, environment: Environment) -> None:
    """Run services with these variables on top of their own, unless they do already.

    The remediator is stopped meanwhile, because a service that restarts looks like one
    that died. The next load starts it again, unless it runs without it.

    Args:
        lab: The running stack.
        environment: Services, each with its variables. Empty restores their own.

    Raises:
        Unsupported: The runtime cannot give services variables.
        BadScenario: A service may not be hit, or a variable is impossible.
        NotReady: A service does not become healthy.
    """
    present = lab.environment
    if present == environment:
        return
    able = grant(lab.runtime, {"configure"}, "environment variables of an arm")
    lab.say(f"settings: {', '.join(sorted({*environment, *(present or {})})) or 'as at the start'}")
    lab.environment = None  # until all services have the new ones
    # The remediator is down, so only alerts can be about the restarts.
    with lab.reasons.during(WARM_UP_TAIL_S, alerts_alone=True):
        if lab.remediator.running:
            lab.remediator.ensure(False)
        able.configure(environment)
    lab.environment = environment


def prepare(lab: Lab, environment: Environment, *, scales: bool) -> None:
    """Run services with these variables, and the autoscaler with its first replicas.

    Args:
        lab: The running stack.
        environment: As of `configure`.
        scales: As of `at_rest`.

    Raises:
        Unsupported: As by `configure`.
        BadScenario: As by `configure`.
        NotReady: A service does not become healthy.
    """
    configure(lab, at_rest(lab.subject, environment, scales=scales))
    name = lab.subject.autoscaler
    if name is not None and not lab.runtime.state(name).running:
        grant(lab.runtime, {"start"}, "an autoscaler").start(name)
        lab.runtime.wait_healthy([name], READY_WITHIN_S)


def at_rest(subject: Subject, environment: Environment, *, scales: bool) -> Environment:
    """Return variables with which the autoscaler keeps the first replicas.

    A stack without an autoscaler gets the same variables.

    Args:
        subject: The stack.
        environment: Variables of the load's services.
        scales: True if the load has a policy. For another load the autoscaler repairs
            and replaces no replica, as if the stack lacked it.
    """
    if subject.autoscaler is None:
        return environment
    resting = with_policy(environment, f"fixed({len(subject.scaled) - len(subject.spare)})")
    return resting if scales else {**resting, AUTOSCALER: {**resting[AUTOSCALER], **PASSIVE}}


def steer(lab: Lab, policy: str) -> None:
    """Let the autoscaler work by this policy until the next call of `configure`.

    It restarts for that, and counts from 0.

    Args:
        lab: The running stack.
        policy: Text of the policy, such as `slo()`.

    Raises:
        InvalidExperiment: The stack lacks an autoscaler.
        BadScenario: The autoscaler refuses the policy or another of its settings.
        Unsupported: The runtime cannot give services variables.
        NotReady: It does not become healthy.
    """
    name = lab.subject.autoscaler
    if name is None:
        raise InvalidExperiment(
            "a load with autoscaler=... needs the lab's autoscaler: the lab has one if an experiment of the session has "
            "autoscaler=..."
        )
    try:
        configure(lab, with_policy(lab.environment or {}, policy))
    except NotReady:
        if lab.runtime.state(name).running:
            raise
        raise BadScenario(f"the autoscaler refuses its settings: {_last_line(lab, name)}") from None


def _last_line(lab: Lab, service: str) -> str:
    """Return the last line of a service's log."""
    lines = [line for line in lab.runtime.logs(tail=LOG_LINES).splitlines() if line.startswith(service)]
    said = [text for line in lines if (text := _BEFORE.sub("", line).strip())]
    return said[-1] if said else f"its log is empty, see logs/{service}.txt in the report's folder"
