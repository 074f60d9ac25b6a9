"""A user's own stack as the subject, read from ini keys."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.model import TLS_SYSTEM, TLS_UNVERIFIED, is_header_name
from pytest_llmchaos.subject.headers import PROMETHEUS_KEY, headers_of
from pytest_llmchaos.subject.lab import AUDIT_FILE, ENGINES, PACKAGE, Endpoint, Subject
from pytest_llmchaos.subject.request_body import Body, model_of
from pytest_llmchaos.subject.requests import (
    DIALECTS,
    PATHS,
    Requests,
    check_path,
)

DEFAULT_TOKENS_PER_S = 1000.0
DEFAULT_STARTUP_S = 120.0
# Services that a run adds to a user's stack: the judge, and the clients' counters.
JUDGE, PUSHGATEWAY = "llmchaos-prometheus", "llmchaos-pushgateway"
# Objectives over the clients' counters, for a stack without an SLO file.
CLIENTS_SLO_FILE = PACKAGE / "subject" / "clients.slo.yaml"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
# A container that is no service of the project, by its name or a label.
_SELECTED = re.compile(
    rf"(?P<selector>container:(?P<name>{_NAME.pattern})|label:[A-Za-z0-9][A-Za-z0-9./_-]*=(?P<value>{_NAME.pattern}))"
    r"(?P<rest>[:/].*)?"
)
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_ENDPOINT = re.compile(rf"(?P<service>{_NAME.pattern})(?::(?P<port>[0-9]{{1,5}}))?(?P<path>/[\x21-\x7e]*)?")
_ADDRESS = re.compile(r"[0-9A-Za-z.:_-]+")
_SERVER = re.compile(rf"({_NAME.pattern})\s*:\s*([a-z0-9][a-z0-9-]*)")
# Requests that arrive at the engines, which all end or add to those that run.
_ARRIVING = (
    f"sum(rate(llmchaos:requests_done_total{ENGINES}[3s])) + "
    f"(sum(rate(llmchaos:requests_failed_total{ENGINES}[3s])) or vector(0)) + "
    f"(sum(rate(llmchaos:requests_aborted_total{ENGINES}[3s])) or vector(0)) + "
    f"(sum(delta(llmchaos:requests_running{ENGINES}[3s])) / 3 or vector(0))"
)
_LISTS = (
    "compose",
    "targets",
    "metrics",
    "profiles",
    "allow",
    "replicas",
    "prometheus_headers",
    "headers",
    "servers",
    "queries",
)
_NEEDED = {
    "api": ("the service that takes the clients' requests", "web"),
    "targets": ("the services that faults may hit", "web worker"),
}


@dataclass(frozen=True, kw_only=True)
class OwnKeys:
    """The ini keys that describe a user's own stack.

    Field `api` is the key `llmchaos_api`, and so on.
    """

    compose: tuple[str, ...] = ()
    api: str = ""
    targets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    prometheus: str = ""
    agent: str = ""
    ledger: str = ""
    profiles: tuple[str, ...] = ()
    restart: str = ""
    remediator: str = ""
    audit_file: str = ""
    model: str = ""
    replicas: tuple[str, ...] = ()
    replica_header: str = ""
    busy_query: str = ""
    rotation_query: str = ""
    ready_path: str = ""
    tokens_per_s: float | None = None
    slo: str = ""
    startup_s: float | None = None
    attach: bool = False
    project: str = ""
    allow: tuple[str, ...] = ()
    published_on: str = ""
    prometheus_headers: tuple[str, ...] = ()
    dialect: str = ""
    path: str = ""
    headers: tuple[str, ...] = ()
    tls: str = ""
    request: str = ""


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
    keys, selectors = _selected(keys) if keys.attach else (keys, {})
    if not keys.compose and not (keys.attach and (keys.project or _is_all(keys, selectors))):
        raise BadScenario(f"llmchaos_{given[0]} needs llmchaos_compose, the path of your compose file: add it")
    for name, (what, example) in _NEEDED.items():
        if name not in given:
            line = f"llmchaos_{name} = {_as_ini_line(name, example, toml=toml)}"
            raise BadScenario(f"llmchaos_{name} is missing, {what}: add it, such as {line}")
    _check_names(keys)
    _check_project(keys)
    _check_address(keys)
    _check_start(keys)
    tokens_per_s = DEFAULT_TOKENS_PER_S if keys.tokens_per_s is None else keys.tokens_per_s
    if not 0 < tokens_per_s < 1e9:
        raise BadScenario(f"llmchaos_tokens_per_s must be a number above 0 and below 1e9, got {tokens_per_s:g}")
    startup_s = DEFAULT_STARTUP_S if keys.startup_s is None else keys.startup_s
    if not 0 < startup_s < 1e6:
        raise BadScenario(f"llmchaos_startup_s must be seconds above 0 and below 1e6, got {startup_s:g}")
    api = _endpoint("api", keys.api)
    alerts = _endpoint("prometheus", keys.prometheus) if keys.prometheus else None
    agent = _endpoint("agent", keys.agent) if keys.agent else None
    ledger = _endpoint("ledger", keys.ledger) if keys.ledger else None
    if ledger is not None and agent is None:
        raise BadScenario("llmchaos_ledger has no effect without llmchaos_agent, the service that takes tasks: add it")
    roles = [api, alerts, agent, ledger]
    _check_ports(api=api, agent=agent, ledger=ledger)
    scrapes = tuple(_endpoint("metrics", one) for one in keys.metrics)
    requests, model = _requests(keys, folder)
    named = _servers(keys.servers, list(dict.fromkeys(one.service for one in scrapes)))
    return Subject(
        compose_files=tuple(_file("llmchaos_compose", folder / path) for path in keys.compose),
        targets=keys.targets,
        ports=tuple(dict.fromkeys((one.service, "", one.port or 0) for one in roles if one is not None)),
        api=api.service,
        api_port=api.port,
        prometheus=JUDGE,
        pushgateway=PUSHGATEWAY,
        remediator=keys.remediator or None,
        audit_file=keys.audit_file or AUDIT_FILE,
        model=model,
        requests=requests,
        check=None,
        slo_file=_file("llmchaos_slo", folder / keys.slo) if keys.slo else CLIENTS_SLO_FILE,
        bootstrap=None,
        capacity_tokens_per_s=tokens_per_s,
        scrape_jobs=(*dict.fromkeys(one.service for one in scrapes), PUSHGATEWAY),
        replicas=keys.replicas,
        replica_header=keys.replica_header or None,
        busy_query=keys.busy_query or None,
        rotation_query=keys.rotation_query or None,
        requests_query=_ARRIVING if scrapes else None,
        own=True,
        attach=keys.attach,
        startup_s=startup_s,
        project=keys.project,
        selectors=tuple(selectors.items()),
        allow=keys.allow,
        published_on=keys.published_on,
        prometheus_headers=headers_of(keys.prometheus_headers, PROMETHEUS_KEY),
        ready_path=keys.ready_path or None,
        brings_judge=True,
        scrapes=scrapes,
        servers=named,
        query_files=tuple(_file("llmchaos_queries", folder / path) for path in keys.queries),
        alerts=alerts,
        agents=agent,
        ledger=ledger,
        profiles=keys.profiles,
        keeps_restart=keys.restart == "keep",
    )


def _check_ports(**roles: Endpoint | None) -> None:
    """Check that the run reaches one port of a service. Raises BadScenario."""
    ports: dict[str, tuple[str, int | None]] = {}
    for key, one in roles.items():
        if one is None:
            continue
        other, port = ports.setdefault(one.service, (key, one.port))
        if port != one.port:
            raise BadScenario(
                f"llmchaos_{other} and llmchaos_{key} name two ports of {one.service!r}, and a run reaches one of a service: "
                "give both the same port, or put them into two services"
            )


def _requests(keys: OwnKeys, folder: Path) -> tuple[Requests, str]:
    """The clients' requests, and the name of their model. Raises BadScenario."""
    found = next((one for one in DIALECTS if one == (keys.dialect or "chat")), None)
    if found is None:
        raise BadScenario(f"llmchaos_dialect must be one of {', '.join(DIALECTS)}, got {keys.dialect!r}")
    path = keys.path or PATHS[found]
    check_path("llmchaos_path", path)
    template = _file("llmchaos_request", folder / keys.request) if keys.request else None
    requests = Requests(
        dialect=found,
        path=path,
        headers=headers_of(keys.headers),
        tls=keys.tls if keys.tls in ("", TLS_SYSTEM, TLS_UNVERIFIED) else str(_file("llmchaos_tls", folder / keys.tls)),
        template=template,
    )
    named = model_of(template) if template is not None else ""
    if named and keys.model and named != keys.model:
        raise BadScenario(
            f"llmchaos_model is {keys.model!r} and the model in {template} is {named!r}: give one of them"
        )
    model = keys.model or named or "default"
    Body(requests, model)  # raises for a template that cannot become a request
    return requests, model


def _selected(keys: OwnKeys) -> tuple[OwnKeys, dict[str, str]]:
    """Replace each `container:NAME` by NAME and each `label:KEY=VALUE` by VALUE.

    Returns:
        The keys, and the selector of each such name.
    """
    selectors: dict[str, str] = {}

    def name_of(key: str, text: str) -> str:
        match = _SELECTED.fullmatch(text)
        if match is None:
            return text
        name = match["name"] or match["value"]
        other = selectors.setdefault(name, match["selector"])
        if other != match["selector"]:
            raise BadScenario(
                f"llmchaos_{key} has {match['selector']!r}, and {other!r} has the same name {name!r} in evidence: "
                "name the containers by container:NAME"
            )
        return name + (match["rest"] or "")

    resolved = replace(
        keys,
        api=name_of("api", keys.api),
        prometheus=name_of("prometheus", keys.prometheus),
        agent=name_of("agent", keys.agent),
        ledger=name_of("ledger", keys.ledger),
        remediator=name_of("remediator", keys.remediator),
        targets=tuple(name_of("targets", text) for text in keys.targets),
        replicas=tuple(name_of("replicas", text) for text in keys.replicas),
        metrics=tuple(name_of("metrics", text) for text in keys.metrics),
        servers=tuple(name_of("servers", text) for text in keys.servers),
    )
    for text in resolved.metrics:
        selector = selectors.get(re.split("[:/]", text)[0], "")
        if selector.startswith("label:"):
            raise BadScenario(
                f"llmchaos_metrics names {selector!r}, and Prometheus reaches a container by its name: write container:NAME"
            )
    return resolved, selectors


def _is_all(keys: OwnKeys, selectors: Collection[str]) -> bool:
    """True if no key names a service of a Compose project."""
    endpoints = (keys.api, keys.prometheus, keys.agent, keys.ledger, *keys.metrics)
    named = {re.split("[:/]", text)[0] for text in endpoints} | {keys.remediator, *keys.targets, *keys.replicas}
    return bool(selectors) and named <= {*selectors, ""}


_ENDPOINT_EXAMPLES = {"api": "web or web:8080", "agent": "agent or agent:8200", "ledger": "desk:8100/ledger"}


def _endpoint(key: str, text: str) -> Endpoint:
    """Parse `service[:port][/path]`. Raises BadScenario."""
    match = _ENDPOINT.fullmatch(text)
    port = int(match["port"]) if match and match["port"] else None
    path = (match["path"] or "") if match else ""
    if match is None or port == 0 or (port or 0) > 65535 or (key in ("api", "agent") and path):
        wanted = _ENDPOINT_EXAMPLES.get(key, "web:8080/metrics")
        raise BadScenario(
            f"llmchaos_{key} must be a service of the compose file, with its container's port if needed, such as "
            f"{wanted}, got {text!r}"
        )
    return Endpoint(service=match["service"], port=port, path=path)


def _servers(entries: Sequence[str], scraped: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return each service of `llmchaos_servers` with its model server.

    Args:
        entries: the key's value, such as `model: sglang`.
        scraped: services of `llmchaos_metrics`.

    Raises:
        BadScenario: An entry is wrong.
    """
    found: dict[str, str] = {}
    for entry in entries:
        match = _SERVER.fullmatch(entry)
        if match is None:
            raise BadScenario(f"llmchaos_servers must be entries SERVICE: SERVER, such as model: sglang, got {entry!r}")
        service, name = match.groups()
        if service not in scraped:
            raise BadScenario(
                f"llmchaos_servers names the service {service!r}, which has no endpoint in llmchaos_metrics: "
                f"add it there, such as {service}:PORT/metrics{_near(service, scraped)}"
            )
        if service in found:
            raise BadScenario(
                f"llmchaos_servers names {service!r} twice, as {found[service]} and {name}: remove one of the entries"
            )
        found[service] = name
    return tuple(found.items())


def _near(name: str, names: Collection[str]) -> str:
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def _check_start(keys: OwnKeys) -> None:
    """Check the keys about how a stack is started. A running one cannot obey them."""
    for name in ("profiles", "restart", "startup_s") if keys.attach else ():
        if getattr(keys, name):
            raise BadScenario(
                f"llmchaos_{name} has no effect with llmchaos_attach, because the stack runs already: remove it"
            )
    if keys.restart not in ("", "no", "keep"):
        raise BadScenario(
            f'llmchaos_restart must be "no" (Docker restarts nothing) or "keep" (the compose file decides), got {keys.restart!r}'
        )
    for one in keys.profiles:
        if not _NAME.fullmatch(one):
            raise BadScenario(f"llmchaos_profiles must be names of profiles of the compose file, got {one!r}")


def services_by_key(subject: Subject) -> dict[str, str]:
    """Return the services of the keys, each with the first key that names it."""
    pairs = [(subject.api, "api"), (subject.remediator, "remediator")]
    if subject.alerts is not None:
        pairs += [(subject.alerts.service, "prometheus")]
    pairs += [
        (one.service, key) for one, key in ((subject.agents, "agent"), (subject.ledger, "ledger")) if one is not None
    ]
    pairs += [(one, "targets") for one in subject.targets] + [(one.service, "metrics") for one in subject.scrapes]
    pairs += [(replica, "replicas") for replica in subject.replicas]
    return {name: f"llmchaos_{key}" for name, key in reversed(pairs) if name is not None}


def reached(subject: Subject) -> tuple[tuple[Endpoint, str], ...]:
    """Return the services that the run itself reaches, each with its key."""
    pairs = (
        (Endpoint(service=subject.api, port=subject.api_port), "llmchaos_api"),
        (subject.alerts, "llmchaos_prometheus"),
        (subject.agents, "llmchaos_agent"),
        (subject.ledger, "llmchaos_ledger"),
    )
    return tuple((one, key) for one, key in pairs if one is not None)


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


def require_local(subject: Subject) -> None:
    """Check that a user's stack can run as processes.

    Raises:
        BadScenario: A key needs Docker.
    """
    given = {
        "attach": subject.attach,
        "prometheus": subject.alerts is not None,
        "profiles": subject.profiles,
        "restart": subject.keeps_restart,
        "remediator": subject.remediator,
        "allow": subject.allow,
        "published_on": subject.published_on,
    }
    for name, value in given.items():
        if value:
            raise BadScenario(
                f"llmchaos_{name} needs the compose runtime, and the runtime is local: remove the key, or set the runtime to compose"
            )


def _as_ini_line(role: str, value: str, *, toml: bool) -> str:
    if not toml or role in ("tokens_per_s", "startup_s", "attach"):
        return value
    return json.dumps(value.split() if role in _LISTS else value)


def _check_names(keys: OwnKeys) -> None:
    if keys.remediator and not _NAME.fullmatch(keys.remediator):
        raise BadScenario(
            f"llmchaos_remediator must be the name of one service of the compose file, got {keys.remediator!r}"
        )
    for key in ("targets", "replicas"):
        for name in getattr(keys, key):
            if not _NAME.fullmatch(name):
                raise BadScenario(f"llmchaos_{key} must be names of services of the compose file, got {name!r}")
    if keys.replica_header and not is_header_name(keys.replica_header):
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
        others = f', "{TLS_SYSTEM}" or "{TLS_UNVERIFIED}"' if key == "llmchaos_tls" else ""
        raise BadScenario(f"{key}: no file at {path}: give a path from the folder of the ini file{others}")
    return path.resolve()
