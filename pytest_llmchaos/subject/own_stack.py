"""A user's own stack as the subject, read from ini keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.subject.lab import Subject

if TYPE_CHECKING:
    pass

ROLES = ("api", "prometheus", "pushgateway", "remediator", "targets", "model", "jobs", "tokens_per_s")
EXAMPLE = 'llmchaos_services = ["api: web", "prometheus: prometheus", "targets: web worker"]'
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def own_subject(
    *, compose: Sequence[str], services: Sequence[str], slo: str, attach: bool, folder: Path
) -> Subject | None:
    """The subject that the ini keys describe; None where `llmchaos_compose` is not set. Paths count from `folder`.

    Raises BadScenario naming the key.
    """
    if not compose:
        given = [name for name, value in (("services", services), ("slo", slo), ("attach", attach)) if value]
        if given:
            raise BadScenario(f"llmchaos_{given[0]} needs llmchaos_compose, the path of your compose file: add it")
        return None
    roles = _roles(services)
    for role in ("api", "prometheus", "targets"):
        if role not in roles:
            raise BadScenario(
                f"llmchaos_services must name {role!r}, it has {', '.join(roles) or 'nothing'}: {EXAMPLE}"
            )
    if not slo:
        raise BadScenario("llmchaos_slo must be the path of an OpenSLO file over your own metrics: add it")
    files = [_file("llmchaos_compose", folder / path) for path in compose]
    ported = tuple((roles[role], "", 0) for role in ("api", "prometheus", "pushgateway") if role in roles)
    return Subject(
        compose_files=tuple(files),
        targets=tuple(roles["targets"].split()),
        ports=ported,
        api=roles["api"],
        prometheus=roles["prometheus"],
        pushgateway=roles.get("pushgateway"),
        remediator=roles.get("remediator"),
        model=roles.get("model", "default"),
        check=None,
        slo_file=_file("llmchaos_slo", folder / slo),
        bootstrap=None,
        capacity_tokens_per_s=_capacity(roles.get("tokens_per_s", "1000")),
        scrape_jobs=tuple(roles.get("jobs", "").split()),
        own=True,
        attach=attach,
    )


def _roles(lines: Iterable[str]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for line in lines:
        role, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or role not in ROLES or role in roles:
            raise BadScenario(
                f"llmchaos_services: each line must be one of {', '.join(ROLES)}, a colon and a value, each role once; "
                f"got {line!r}: {EXAMPLE}"
            )
        words = value.split()
        if not words or (role not in {"targets", "jobs"} and len(words) > 1):
            raise BadScenario(f"llmchaos_services: {role} must be one name, got {value!r}: {EXAMPLE}")
        if role not in {"model", "tokens_per_s"} and not all(_NAME.fullmatch(word) for word in words):
            raise BadScenario(f"llmchaos_services: {role} must name services of the compose file, got {value!r}")
        roles[role] = " ".join(words)
    return roles


def _capacity(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise BadScenario(
            f"llmchaos_services: tokens_per_s must be a number above 0, got {text!r}: write 'tokens_per_s: 500'"
        )
    return value


def _file(key: str, path: Path) -> Path:
    if not path.is_file():
        raise BadScenario(f"{key}: no file at {path}: paths count from the folder of the ini file")
    return path.resolve()
