"""A user's own stack as the subject: read from four ini keys, examined before anything starts. It starts and stops nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.subject.lab import Subject

if TYPE_CHECKING:
    from pytest_llmchaos.slo.arithmetic import Slo

ROLES = ("api", "prometheus", "pushgateway", "remediator", "targets", "model", "jobs", "tokens_per_s")
EXAMPLE = 'llmchaos_services = ["api: web", "prometheus: prometheus", "targets: web worker"]'
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)[^}]*\}")
METRICS_DEADLINE_S = 20.0  # a Prometheus scrapes for the first time 5 to 6 s after its start


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


def examined(subject: Subject) -> Subject:
    """The subject with what its compose file says: project name, and the variables through which ports are published.

    Raises BadScenario listing everything in the compose file that would go wrong later, InvalidSlo for the SLO file.
    """
    from pytest_llmchaos.slo.openslo import slos_of  # noqa: PLC0415 - yaml, which the import of the plugin must not pay for

    slos_of(subject.slo_file)
    docker_cli.require_engine()
    command = ["docker", "compose"]
    for file in subject.compose_files:
        command += ["-f", str(file)]
    config = json.loads(docker_cli.run([*command, "config", "--no-interpolate", "--format", "json"]))
    services: dict[str, Any] = config["services"]
    named = [subject.api, subject.prometheus, subject.pushgateway, subject.remediator, *subject.targets]
    problems = [
        f"llmchaos_services names {name!r}, which the compose file has not; it has {', '.join(sorted(services))}"
        for name in dict.fromkeys(named)
        if name is not None and name not in services
    ]
    if subject.attach:
        _complain(subject, problems)
        return replace(subject, project=str(config["name"]))
    ports = []
    for name, about in sorted(services.items()):
        if "container_name" in about:
            problems.append(
                f"service {name!r} sets container_name {about['container_name']!r}: two runs could not stand side by side; remove it"
            )
        for port in about.get("ports") or []:
            host, variable, inside = _published(port)
            if host and not variable:
                problems.append(
                    f"service {name!r} publishes the fixed port {host}: two runs could not stand side by side; "
                    f'write "127.0.0.1:${{{_variable_for(name)}:-{host}}}:{inside}"'
                )
            elif variable:
                ports.append((name, variable, int(inside) if inside.isdigit() else 0))
    for name, _, _ in subject.ports:
        if name in services and name not in {one for one, _, _ in ports} and not _fixed(services[name]):
            problems.append(
                f"service {name!r} publishes no port, and is reached from outside the stack: "
                f'add ports: ["127.0.0.1:${{{_variable_for(name)}:-0}}:CONTAINER_PORT"]'
            )
    _complain(subject, problems)
    wanted = [next(port for port in ports if port[0] == name) for name, _, _ in subject.ports]
    # The last port of a service is the one that its address is made of.
    return replace(subject, ports=(*(port for port in ports if port not in wanted), *wanted))


def _complain(subject: Subject, problems: Sequence[str]) -> None:
    if problems:
        raise BadScenario(f"{subject.compose_files[0]}: " + "; ".join(problems))


def _published(port: Any) -> tuple[str, str, str]:
    """(host port, variable that it comes from, port inside) of one entry; nothing published gives an empty host port."""
    if isinstance(port, dict):
        host, inside = str(port.get("published") or ""), str(port["target"])
    else:
        # A variable's default may hold a colon itself: hide the variables while the text is taken apart.
        held = _VARIABLE.findall(str(port)), re.split(r":", _VARIABLE.sub("$", str(port)).partition("/")[0])
        parts = held[1]
        inside, host = parts[-1], parts[-2] if len(parts) > 1 else ""
        if host == "$":
            return "$", held[0][-2 if inside == "$" else -1], inside
    match = _VARIABLE.search(host)
    return host, match[1] if match else "", inside


def _fixed(service: dict[str, Any]) -> bool:
    return any(_published(port)[0] for port in service.get("ports") or [])


def _variable_for(service: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", service.upper()) + "_PORT"


def require_metrics(url: str, slos: Sequence[Slo], *, pushed: bool) -> None:
    """Every metric that the service levels rest on is known to this Prometheus.

    Raises NotReady listing those that are not: no verdict could rest on them.
    """
    names = {selector.partition("{")[0] for slo in slos for selector in (slo.good, slo.total)}
    callers = {name for name in names if name.startswith("llmchaos_")}
    if callers and not pushed:
        raise NotReady(
            f"the SLO file asks for {', '.join(sorted(callers))}, which the callers count and push: "
            "name a 'pushgateway' in llmchaos_services, or write SLOs over your service's own metrics"
        )
    deadline = time.monotonic() + METRICS_DEADLINE_S
    while missing := sorted(name for name in names - callers if not _known(url, name)):
        if time.monotonic() > deadline:
            raise NotReady(
                f"Prometheus at {url} knows no metric {', '.join(missing)}: is the service scraped, and its name right? "
                "(the SLO file's queries name it)"
            )
        time.sleep(0.2)


def _known(url: str, name: str) -> bool:
    """Whether a metric was ever scraped: by its name, or declared by its HELP and TYPE before its first sample."""
    import urllib.request  # noqa: PLC0415 - costs time that a run of the lab need not pay

    declared = [name, re.sub(r"_(total|bucket|count|sum)$", "", name)]
    asked = [f"/api/v1/series?match[]={name}", *(f"/api/v1/metadata?metric={one}" for one in declared)]
    try:
        for path in asked:
            with urllib.request.urlopen(url + path, timeout=3) as answer:  # noqa: S310 - the stack's own Prometheus
                if json.load(answer).get("data"):
                    return True
    except (OSError, ValueError):
        return False
    return False
