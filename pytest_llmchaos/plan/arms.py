"""Arms of an experiment: the settings under which it is performed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.model import Environment
from pytest_llmchaos.subject.environment import check_environment

Kind = TypeVar("Kind")
NO_VARIABLES: Environment = MappingProxyType({})
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Name and arguments, such as `hpa(target=0.7)`. The autoscaler checks the rest.
_ARGUMENT = r"""(?:[a-z][a-z0-9_]*\s*=\s*)?(?:[A-Za-z_]\w*|'\w+'|"\w+"|[+-]?[\d.][\w.+-]*)"""
_POLICY = re.compile(rf"[a-z][a-z0-9_]*(?:\(\s*(?:{_ARGUMENT}(?:\s*,\s*{_ARGUMENT})*)?\s*\))?")
_EXPECTED = 'such as arms={"on": arm(), "off": arm(environment={"api": {"LAB_BREAKER": "off"}})}'


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Settings of the system in one arm of an experiment, as `arm(...)` returns them.

    Attributes:
        environment: Further environment variables by service.
        remediator: False if the remediator does not run, None if the experiment
            decides.
        autoscaler: Policy of the autoscaler, None if the experiment decides.
    """

    environment: Environment = field(default_factory=dict)
    remediator: bool | None = None
    autoscaler: str | None = None


# Of an experiment without arms.
NO_ARM = Arm()


def arm(
    *,
    environment: Mapping[str, Mapping[str, str]] | None = None,
    remediator: bool | None = None,
    autoscaler: str | None = None,
) -> Arm:
    """Return the settings of one arm of an experiment, for `experiment(arms=...)`.

    Without arguments it is the system as it is.

    Args:
        environment: Environment variables that services get on top of their own, such
            as `{"api": {"LAB_BREAKER": "off"}}`. The runtime restarts a service whose
            variables change, before the trial's load. A runtime that cannot skips the
            trial.
        remediator: False performs the arm without the remediator. None leaves it to the
            experiment.
        autoscaler: Policy of the autoscaler, such as `hpa(target=0.7)`. None leaves it
            to the experiment.

    Returns:
        The settings, checked.

    Raises:
        BadScenario: An argument is wrong.
    """
    given: object = remediator
    if given is not None and not isinstance(given, bool):
        raise BadScenario(f"arm(remediator=...) must be True, False or None, got {remediator!r}")
    variables = {} if environment is None else check_environment("arm(environment=...)", environment)
    return Arm(environment=variables, remediator=remediator, autoscaler=check_policy("arm", autoscaler))


def check_policy(where: str, policy: object) -> str | None:
    """Return the text of an autoscaler's policy, such as `slo()`, None for None.

    Only its form is checked, a name with or without arguments. The autoscaler checks
    the rest when it starts.

    Args:
        where: Function with the argument, for the message.
        policy: The argument.

    Raises:
        BadScenario: It is not such a text.
    """
    if policy is None:
        return None
    if isinstance(policy, str) and _POLICY.fullmatch(policy.strip()):
        text = policy.strip()
        return text if text.endswith(")") else f"{text}()"
    raise BadScenario(
        f"{where}(autoscaler=...) must be a policy by name, such as 'slo', 'hpa(target=0.7)' or 'fixed(2)', got {policy!r}"
    )


def check_arms(arms: object) -> dict[str, Arm]:
    """Return the arms of an experiment by name, empty for None.

    Raises:
        BadScenario: They are not two or more arms with names.
    """
    if arms is None:
        return {}
    if not isinstance(arms, Mapping):
        raise BadScenario(f"experiment(arms=...) must map names to arms, {_EXPECTED}, got {arms!r}")
    if len(arms) < 2:
        raise BadScenario(
            f"experiment(arms=...) needs 2 or more arms to compare, {_EXPECTED}, got {len(arms)}: add one or drop arms"
        )
    for name, one in arms.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadScenario(
                f"experiment(arms=...) must name arms by lower-case words, such as 'on' or 'no_retry', got {name!r}"
            )
        if not isinstance(one, Arm):
            raise BadScenario(f"experiment(arms=...) must give {name!r} an arm, {_EXPECTED}, got {one!r}")
    return dict(arms)


def settings_words(environment: Environment) -> str:
    """Return variables of services as `api: LAB_BREAKER=off`."""
    return "; ".join(
        f"{service}: {' '.join(f'{name}={value}' for name, value in variables.items())}"
        for service, variables in environment.items()
    )


def with_fewest_changes(
    things: Sequence[Kind], environments: Sequence[Environment], present: Environment = NO_VARIABLES
) -> list[Kind]:
    """Return the things in an order that changes environments as rarely as possible.

    Those with the present environment come first, and equal ones stand together.
    Otherwise the order is kept.

    Args:
        things: Trials or arms of one pair.
        environments: The environment of each.
        present: The environment before the first.
    """

    def rank(at: int) -> tuple[bool, int, int]:
        return environments[at] != present, environments.index(environments[at]), at

    return [things[at] for at in sorted(range(len(things)), key=rank)]
