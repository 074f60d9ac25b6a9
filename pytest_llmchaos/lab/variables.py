"""Further environment variables of services, set between two loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.lab.reasons import WARM_UP_TAIL_S
from pytest_llmchaos.runtime.abilities import grant

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.model import Environment


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
        lab.autoscaler.ensure(False)
        able.configure(environment)
    lab.environment = environment
