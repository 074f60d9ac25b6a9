"""The Prometheus and the pushgateway that a run adds to a user's stack."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.runtime.docker import docker_cli, offered_ports, reach
from pytest_llmchaos.runtime.judge_files import PROMETHEUS_PORT, PUSHGATEWAY_PORT, prometheus_file, rule_file
from pytest_llmchaos.subject.lab import Endpoint, Subject, stack_dir
from pytest_llmchaos.subject.own_stack import JUDGE, PUSHGATEWAY

# The network of the two. The judge joins the networks of what it scrapes, too.
NETWORK = "llmchaos"
_FOLDER = "/etc/llmchaos"
# The probe waits inside the container, because frequent probes would take CPU from the
# measurement (see stack/compose.yaml).
_PROBE = (
    "if rm /tmp/probe-was-good 2>/dev/null; then sleep 20; fi; tries=0; "
    "until wget -q -T 2 -O /dev/null http://127.0.0.1:{port}/-/ready 2>/dev/null; "
    "do tries=$$((tries + 1)); [ $$tries -lt 50 ] || exit 1; sleep 0.1; done; : >/tmp/probe-was-good"
)
# The docker client's config.json may give each container a proxy. Programs such as wget
# send even requests to loopback there.
UNPROXIED = {name: "" for base in ("http_proxy", "https_proxy", "all_proxy") for name in (base, base.upper())}
_HARDENED: dict[str, object] = {
    "environment": UNPROXIED,
    "init": True,
    "restart": "no",
    "user": "65534:65534",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    # Without it, Docker's DNS queries the host's resolver for a dead service's name.
    "dns_opt": ["ndots:1"],
    "stop_grace_period": "1s",
    "tmpfs": ["/tmp:size=16m,mode=1777"],  # noqa: S108 - inside the container
    "pids_limit": 64,
    "logging": {"driver": "json-file", "options": {"max-size": "20m", "max-file": "2"}},
}


def services(
    config: reach.Config, subject: Subject, labels: Mapping[str, str], ports: Mapping[str, str]
) -> dict[str, dict[str, object]]:
    """Return the services to add, as Compose reads them.

    Args:
        config: The user's compose file.
        subject: The user's stack.
        labels: Labels of the run.
        ports: The entry of `ports` of each service.
    """
    return {
        JUDGE: {
            **_HARDENED,
            "image": image("LLMCHAOS_PROMETHEUS_IMAGE", "prometheus"),
            "command": [
                f"--config.file={_FOLDER}/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
                "--storage.tsdb.retention.time=1d",
            ],
            "read_only": False,  # Compose copies its configs into no read-only container
            "volumes": [{"type": "volume", "target": "/prometheus"}],
            "configs": [
                {"source": f"llmchaos-{name}", "target": f"{_FOLDER}/{name}.yml"} for name in ("prometheus", "rules")
            ],
            "networks": {key: {} for key in (NETWORK, *_networks(config, subject.scrapes))},
            "ports": [ports[JUDGE]],
            "mem_limit": "512m",
            "memswap_limit": "512m",
            "healthcheck": _probe(PROMETHEUS_PORT),
            "labels": dict(labels),
        },
        PUSHGATEWAY: {
            **_HARDENED,
            "image": image("LLMCHAOS_PUSHGATEWAY_IMAGE", "pushgateway"),
            "networks": {NETWORK: {}},
            "ports": [ports[PUSHGATEWAY]],
            "mem_limit": "64m",
            "memswap_limit": "64m",
            "healthcheck": _probe(PUSHGATEWAY_PORT),
            "labels": dict(labels),
        },
    }


def _probe(port: int) -> dict[str, object]:
    return {"test": ["CMD-SHELL", _PROBE.format(port=port)], "interval": "400ms", "timeout": "30s", "retries": 4}


def configs(config: reach.Config, subject: Subject) -> dict[str, dict[str, str]]:
    """Return the files of the judge, as Compose reads them."""
    files = {"prometheus": prometheus_config(config, subject.scrapes), "rules": rule_file(subject)}
    return {f"llmchaos-{name}": {"content": text.replace("$", "$$")} for name, text in files.items()}


def prometheus_config(config: reach.Config, scrapes: Sequence[Endpoint]) -> str:
    """Return Prometheus' configuration, JSON, which is YAML."""
    jobs = [
        {
            "job_name": service,
            "metrics_path": next(one.path for one in scrapes if one.service == service) or "/metrics",
            **_discovery(config, [one for one in scrapes if one.service == service]),
        }
        for service in dict.fromkeys(one.service for one in scrapes)
    ]
    return prometheus_file(jobs, pushgateway=f"{PUSHGATEWAY}:{PUSHGATEWAY_PORT}", rules=f"{_FOLDER}/rules.yml")


def _discovery(config: reach.Config, scrapes: Sequence[Endpoint]) -> dict[str, object]:
    """Targets of a job. Docker's DNS names every container of a scaled service."""
    service = scrapes[0].service
    host = reach.network_owner(config, service)
    if reach.replicas(config.services[host]) == 1:
        targets = [f"{host}:{one.port}" for one in scrapes]
        return {"static_configs": [{"targets": targets, "labels": {"service": service}}]}
    return {
        "dns_sd_configs": [
            {"names": [host], "type": "A", "port": one.port, "refresh_interval": "1s"} for one in scrapes
        ],
        "relabel_configs": [{"target_label": "service", "replacement": service}],
    }


def resolved(config: reach.Config, scrapes: Sequence[Endpoint]) -> tuple[tuple[Endpoint, ...], list[str]]:
    """Return the endpoints with their ports, and what is wrong with the others.

    Services that the stack lacks are left out.
    """
    found, problems = [], []
    for one in (scrape for scrape in scrapes if scrape.service in config.services):
        try:
            port = offered_ports.port_of(config, one.service, one.port, "llmchaos_metrics")
        except BadScenario as error:
            problems.append(str(error))
        else:
            found.append(replace(one, port=port))
    return tuple(found), [*problems, *_unreachable(config, found)]


def _unreachable(config: reach.Config, scrapes: Sequence[Endpoint]) -> list[str]:
    """List endpoints that no container can reach by its name."""
    paths: dict[str, str] = {}
    found = []
    for one in scrapes:
        mode = config.services[reach.network_owner(config, one.service)].network_mode
        if mode:
            found.append(
                f"llmchaos_metrics names {one.service!r}, which has network_mode {mode!r} and no name on a network: "
                "remove the entry, or give the service a network"
            )
        if paths.setdefault(one.service, one.path) != one.path:
            found.append(f"llmchaos_metrics has two paths of {one.service!r}: keep one of them")
    return found


def _networks(config: reach.Config, scrapes: Sequence[Endpoint]) -> tuple[str, ...]:
    owners = (config.services[reach.network_owner(config, one.service)] for one in scrapes)
    return tuple(dict.fromkeys(name for owner in owners for name in owner.networks or {}))


def image(variable: str, name: str) -> str:
    """Return the image of a service to add.

    It is the one that the environment names, else the official one, unless only one
    that the lab's set-up built is here.
    """
    if given := os.environ.get(variable, ""):
        return given
    official = official_image(variable)
    if not docker_cli.has_image(official):
        built = docker_cli.run(
            ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"llmchaos/{name}"]
        ).split()
        if built:
            return built[0]
    return official


def official_image(variable: str) -> str:
    """Return the pinned official image, which the lab's compose file names.

    Raises BadScenario if the installed lab lacks it.
    """
    text = (stack_dir() / "compose.yaml").read_text(encoding="utf-8")
    found = re.search(rf"\$\{{{variable}:-([^}}\s]+)\}}", text)
    if found is None:
        raise BadScenario(f"the installed lab names no image for {variable}: install pytest-llmchaos again")
    return found[1]
