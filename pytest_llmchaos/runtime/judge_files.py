"""Files of the Prometheus that a run adds to a user's stack."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.rules import recording_rules
from pytest_llmchaos.subject.own_stack import PUSHGATEWAY

if TYPE_CHECKING:
    from pytest_llmchaos.subject.lab import Subject

PROMETHEUS_PORT, PUSHGATEWAY_PORT = 9090, 9091
# Pushed for a recognised server, with its job and its name in `server`. Then the rules
# record its metrics. The range tolerates lost scrapes of the pushgateway.
RECOGNISED = "llmchaos_server_recognised"
_GUARD = f'last_over_time({RECOGNISED}{{server="$server"}}[30s])'


def prometheus_file(jobs: Sequence[Mapping[str, object]], *, pushgateway: str, rules: str) -> str:
    """Return Prometheus' configuration, JSON, which is YAML.

    Args:
        jobs: The scrape jobs of the stack.
        pushgateway: Address of the pushgateway.
        rules: Path of the rule file.
    """
    pushed = {
        "job_name": PUSHGATEWAY,
        "honor_labels": True,  # the pushed `job` and `instance` name the client
        "static_configs": [{"targets": [pushgateway], "labels": {"service": PUSHGATEWAY}}],
    }
    return json.dumps(
        {
            # A frozen target is a failed scrape, never a late one.
            "global": {"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [*jobs, pushed],
        },
        indent=1,
    )


def rule_file(subject: Subject) -> str:
    """Return the rules of the objectives, of services that are down, and of servers.

    Metrics of the model servers that the user names get their canonical names. So do
    those of an engine that is recognised later. Of any other service nothing is
    recorded: a gateway may export the names of the engines behind it.
    """
    down = [
        {
            "alert": "ServiceDown",
            "expr": f'up{{job="{service}"}} == 0',
            "labels": {"severity": "page", "service": service},
            "annotations": {"summary": f"Prometheus cannot scrape {service}"},
        }
        for service in dict.fromkeys(one.service for one in subject.scrapes)
    ]
    text = (subject.rules or "groups:\n") + _canonical(subject)
    return text if not down else f"{text}  - {json.dumps({'name': 'llmchaos', 'rules': down})}\n"


def unnamed(subject: Subject) -> tuple[str, ...]:
    """Return the scraped services whose model server the user does not name."""
    named = dict(subject.servers)
    return tuple(dict.fromkeys(one.service for one in subject.scrapes if one.service not in named))


def _canonical(subject: Subject) -> str:
    """Return the groups of recording rules of the model servers."""
    known, named = servers(), dict(subject.servers)
    texts = [
        recording_rules([known[server]], _job(service for service, one in named.items() if one == server))
        for server in dict.fromkeys(named.values())
    ]
    if others := unnamed(subject):
        engines = [one for one in known.values() if one.kind == "engine"]
        texts.append(recording_rules(engines, _job(others), group="recognised", guard=_GUARD))
    return "".join(text.partition("\n")[2] for text in texts)


def _job(services: Iterable[str]) -> str:
    """Matcher of the jobs of services. Their names have no special sign but `.`."""
    return f'job=~"{"|".join(one.replace(".", "[.]") for one in services)}"'
