"""A user's own stack as the subject, read from ini keys."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.subject.lab import AUDIT_FILE, Subject

DEFAULT_TOKENS_PER_S = 1000.0
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a field name of RFC 9110
_ADDRESS = re.compile(r"[0-9A-Za-z.:_-]+")
_LISTS = ("compose", "targets", "jobs", "allow", "replicas")
_NEEDED = {
    "api": ("the service that takes the clients' requests", "web"),
    "prometheus": ("the service that judges", "prometheus"),
    "targets": ("the services that faults may hit", "web worker"),
}


@dataclass(frozen=True, kw_only=True)
class OwnKeys:
    """The ini keys that describe a user's own stack.

    Field `api` is the key `llmchaos_api`, and so on.
    """

    compose: tuple[str, ...] = ()
    api: str = ""
    prometheus: str = ""
    targets: tuple[str, ...] = ()
    pushgateway: str = ""
    remediator: str = ""
    audit_file: str = ""
    model: str = ""
    jobs: tuple[str, ...] = ()
    replicas: tuple[str, ...] = ()
    replica_header: str = ""
    busy_query: str = ""
    rotation_query: str = ""
    ready_path: str = ""
    tokens_per_s: float | None = None
    slo: str = ""
    attach: bool = False
    project: str = ""
    allow: tuple[str, ...] = ()
    published_on: str = ""


def own_subject(keys: OwnKeys, folder: Path, *, toml: bool = False) -> Subject | None:
    """Return the subject that the ini keys describe, or None if no key is set.

    Args:
        keys: Values of the ini keys.
        folder: Folder of the ini file, to which paths are relative.
        toml: True for examples in TOML.

    Raises:
        BadScenario: A key is missing or wrong. The message names it, with an example in
            the ini file's own format.
    """
    given = [one.name for one in fields(keys) if getattr(keys, one.name) not in ("", (), None, False)]
    if not given:
        return None
    if not keys.compose:
        raise BadScenario(f"llmchaos_{given[0]} needs llmchaos_compose, the path of your compose file: add it")
    for name, (what, example) in _NEEDED.items():
        if name not in given:
            line = f"llmchaos_{name} = {_as_ini_line(name, example, toml=toml)}"
            raise BadScenario(f"llmchaos_{name} is missing, {what}: add it, such as {line}")
    _check_names(keys)
    _check_project(keys)
    _check_address(keys)
    if not keys.slo:
        raise BadScenario("llmchaos_slo must be the path of an OpenSLO file over your own metrics: add it")
    tokens_per_s = DEFAULT_TOKENS_PER_S if keys.tokens_per_s is None else keys.tokens_per_s
    if not 0 < tokens_per_s < 1e9:
        raise BadScenario(f"llmchaos_tokens_per_s must be a number above 0 and below 1e9, got {tokens_per_s:g}")
    return Subject(
        compose_files=tuple(_file("llmchaos_compose", folder / path) for path in keys.compose),
        targets=keys.targets,
        ports=tuple((name, "", 0) for name in (keys.api, keys.prometheus, keys.pushgateway) if name),
        api=keys.api,
        prometheus=keys.prometheus,
        pushgateway=keys.pushgateway or None,
        remediator=keys.remediator or None,
        audit_file=keys.audit_file or AUDIT_FILE,
        model=keys.model or "default",
        check=None,
        slo_file=_file("llmchaos_slo", folder / keys.slo),
        bootstrap=None,
        capacity_tokens_per_s=tokens_per_s,
        scrape_jobs=keys.jobs,
        replicas=keys.replicas,
        replica_header=keys.replica_header or None,
        busy_query=keys.busy_query or None,
        rotation_query=keys.rotation_query or None,
        own=True,
        attach=keys.attach,
        project=keys.project,
        allow=keys.allow,
        published_on=keys.published_on,
        ready_path=keys.ready_path or None,
    )


def services_by_key(subject: Subject) -> dict[str, str]:
    """Return the services of the keys, each with the first key that names it."""
    pairs = [(subject.api, "api"), (subject.prometheus, "prometheus"), (subject.pushgateway, "pushgateway")]
    pairs += [(subject.remediator, "remediator"), *((target, "targets") for target in subject.targets)]
    pairs += [(replica, "replicas") for replica in subject.replicas]
    return {name: f"llmchaos_{key}" for name, key in reversed(pairs) if name is not None}


def refuse_services(lines: Sequence[str], *, toml: bool) -> None:
    """Refuse the former key `llmchaos_services`, with the lines to write instead.

    Raises:
        BadScenario: The key is set.
    """
    if lines:
        known = {one.name for one in fields(OwnKeys)}
        pairs = [(role.strip(), value.strip()) for role, _, value in (line.partition(":") for line in lines)]
        if not all(role in known and value for role, value in pairs):
            pairs = [(role, example) for role, (_, example) in _NEEDED.items()]
        written = "\n".join(f"llmchaos_{role} = {_as_ini_line(role, value, toml=toml)}" for role, value in pairs)
        raise BadScenario(f"llmchaos_services is not an ini key: each role has its own, so write\n{written}")


def _as_ini_line(role: str, value: str, *, toml: bool) -> str:
    if not toml or role in ("tokens_per_s", "attach"):
        return value
    return json.dumps(value.split() if role in _LISTS else value)


def _check_names(keys: OwnKeys) -> None:
    for key in ("api", "prometheus", "pushgateway", "remediator"):
        name = getattr(keys, key)
        if name and not _NAME.fullmatch(name):
            raise BadScenario(f"llmchaos_{key} must be the name of one service of the compose file, got {name!r}")
    for key in ("targets", "replicas"):
        for name in getattr(keys, key):
            if not _NAME.fullmatch(name):
                raise BadScenario(f"llmchaos_{key} must be names of services of the compose file, got {name!r}")
    if keys.replica_header and not _HEADER.fullmatch(keys.replica_header):
        raise BadScenario(
            f"llmchaos_replica_header must be the name of a response header, such as x-replica, got {keys.replica_header!r}"
        )
    if keys.audit_file and not (keys.remediator and keys.audit_file.startswith("/")):
        raise BadScenario(
            f"llmchaos_audit_file must be a path such as {AUDIT_FILE}, in the container of the service that "
            f"llmchaos_remediator names, got {keys.audit_file!r}"
            + ("" if keys.remediator else " and no llmchaos_remediator: add it")
        )
    if keys.ready_path and not keys.ready_path.startswith("/"):
        raise BadScenario(f"llmchaos_ready_path must be a path such as /readyz, got {keys.ready_path!r}")
    if keys.attach and keys.allow:
        raise BadScenario(
            "llmchaos_allow has no effect with llmchaos_attach: it permits what a stack started by the instrument shares with "
            "others, and this one runs already; drop llmchaos_allow, and label what faults may hit with llmchaos.allow=true"
        )
    for entry in keys.allow:
        if not all(entry.partition(":")):
            raise BadScenario(f"llmchaos_allow must be entries such as volume:models or privileged:web, got {entry!r}")


def _check_address(keys: OwnKeys) -> None:
    if keys.published_on and not _ADDRESS.fullmatch(keys.published_on):
        raise BadScenario(
            f"llmchaos_published_on must be an address or a host name, such as docker or 0.0.0.0, got {keys.published_on!r}"
        )


def _check_project(keys: OwnKeys) -> None:
    if keys.project and not keys.attach:
        raise BadScenario(
            "llmchaos_project has an effect only with llmchaos_attach, because a run starts the stack as a project of its "
            "own: remove it, or add llmchaos_attach"
        )
    if keys.project and not _PROJECT.fullmatch(keys.project):
        raise BadScenario(
            "llmchaos_project must be the name of a Compose project, which consists of a-z, 0-9, '_' and '-', got "
            f"{keys.project!r}: `docker compose ls` lists those that run"
        )


def _file(key: str, path: Path) -> Path:
    if not path.is_file():
        raise BadScenario(f"{key}: no file at {path}: give a path from the folder of the ini file")
    return path.resolve()
