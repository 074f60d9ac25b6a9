"""Environment variables that an experiment gives to services."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from pytest_llmchaos.errors import BadScenario

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Variables with this prefix identify the processes and projects of a run.
RESERVED = "LLMCHAOS_"


def check_environment(
    where: str, environment: object, services: Collection[str] | None = None
) -> dict[str, dict[str, str]]:
    """Return the variables of each service, without services that get none.

    Args:
        where: Argument with the value, for the error, such as `experiment(arms=...)`.
        environment: Services, each with its variables and their values.
        services: Services that may be restarted. None leaves their names unchecked, as
            when an experiment is made.

    Raises:
        BadScenario: It is not a mapping of such services to variables, or a variable
            has an impossible name or value.
    """
    found = _mapping(where, "services to their variables, such as {'api': {'LAB_RETRIES': '0'}}", environment)
    checked: dict[str, dict[str, str]] = {}
    for service, variables in found.items():
        if not isinstance(service, str) or not service or (services is not None and service not in services):
            known = (
                "services by their names" if services is None else f"services that may be hit ({', '.join(services)})"
            )
            raise BadScenario(f"{where} must name {known}, got {service!r}")
        of = _mapping(f"{where} of {service!r}", "names to values, such as {'LAB_RETRIES': '0'}", variables)
        if of:
            checked[service] = {_name(where, service, name): _value(where, service, name, of[name]) for name in of}
    return checked


def _mapping(where: str, expected: str, value: object) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise BadScenario(f"{where} must map {expected}, got {value!r}")
    return value


def _name(where: str, service: str, name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadScenario(
            f"{where} must name variables by letters, digits and '_', not first a digit, got {name!r} for {service!r}"
        )
    if name.startswith(RESERVED):
        raise BadScenario(f"{where} must not name variables of the instrument ({RESERVED}...), got {name!r}: drop it")
    return name


def _value(where: str, service: str, name: object, value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise BadScenario(
            f"{where} must give {name} of {service!r} a text without line breaks and control characters, "
            f"such as '0', got {value!r}"
        )
    return value
