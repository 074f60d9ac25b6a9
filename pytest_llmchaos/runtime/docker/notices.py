"""Lines to print before the first trial: what else restarts containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_llmchaos.runtime.docker import reach
from pytest_llmchaos.subject.lab import Subject

# Docker starts a container again by these policies.
_POLICIES = ("always", "unless-stopped", "on-failure")
# Names of `deploy.restart_policy.condition` that `restart` lacks.
_CONDITIONS = {"any": "always", "none": "no"}
# The variable of willfarrell/autoheal. It restarts what carries this label.
_FILTER = "AUTOHEAL_CONTAINER_LABEL"


@dataclass(frozen=True, kw_only=True)
class About:
    """Settings of one service.

    Attributes:
        restart: Its restart policy, such as `always` or `on-failure:3`.
        variables: Its environment.
        mounts: Paths of the machine that it sees.
    """

    restart: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[str] = ()


def of(subject: Subject, services: Mapping[str, About]) -> tuple[str, ...]:
    """Return the lines about these services."""
    targets = {name: services[name] for name in subject.targets if name in services}
    policies = [f"{name} ({about.restart})" for name, about in targets.items() if about.restart.startswith(_POLICIES)]
    lines = []
    if policies and (subject.attach or subject.keeps_restart):
        lines.append(
            f"Docker restarts {', '.join(policies)} after faults.crash and out of memory (trial.repaired_by is then "
            '"runtime"), and not after faults.kill and faults.stop, which count as an operator\'s'
        )
    elif policies:
        lines.append(
            f'the run starts {", ".join(policies)} with restart: "no", so Docker repairs nothing; '
            'llmchaos_restart = "keep" keeps the policies'
        )
    return (
        *lines,
        *(_remediator(name, services[name]) for name in sorted(services) if _may_reach(subject, name, services)),
    )


def _may_reach(subject: Subject, name: str, services: Mapping[str, About]) -> bool:
    """True for a remediator that can restart containers of other projects."""
    about = services[name]
    has_socket = any(path in reach.DOCKER_SOCKETS for path in about.mounts)
    return has_socket and (name == subject.remediator or _FILTER in about.variables)


def _remediator(name: str, about: About) -> str:
    if about.variables.get(_FILTER) == "all":
        return (
            f"{name} has Docker's socket and {_FILTER}=all, so it restarts every unhealthy container of this machine, those "
            "of other projects too: set it to a label that only this stack has"
        )
    return (
        f"{name} has Docker's socket, so only its own filter keeps it from restarting containers of other projects: let it "
        "act on a label that only this stack has"
    )


def in_file(config: reach.Config) -> dict[str, About]:
    """Return the settings of a compose file's services."""
    found = {}
    for name, service in config.services.items():
        policy = (service.deploy.restart_policy if service.deploy is not None else None) or {}
        condition = str(policy.get("condition", "any" if policy else ""))
        found[name] = About(
            restart=service.restart or _CONDITIONS.get(condition, condition),
            variables={key: str(value) for key, value in service.environment.items()},
            mounts=tuple(mount.source for mount in service.volumes),
        )
    return found
