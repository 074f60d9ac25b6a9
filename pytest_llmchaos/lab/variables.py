"""Further environment variables of services, set between two loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.runtime.abilities import grant

if TYPE_CHECKING:
    from pytest_llmchaos.lab.lab import Lab
    from pytest_llmchaos.model import Environment


def configure(lab: Lab, environment: Environment) -> None:
    """Run services with these variables on top of their own, unless they do already.

    The remediator is stopped meanwhile, because a service that restarts looks like one
    that died. Each load starts it again.

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
    changed = sorted({*environment, *(present or {})})
    lab.say(f"settings: {', '.join(changed)}")
    lab.environment = None  # until all services have the new ones
    with lab.reasons.during():
        if lab.remediator.running and lab.subject.remediator not in changed:
            lab.remediator.ensure(False)
        able.configure(environment)
    lab.environment = environment
