"""Files of the Prometheus that a run adds to a user's stack."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_llmchaos.subject.own_stack import PUSHGATEWAY

if TYPE_CHECKING:
    from pytest_llmchaos.subject.lab import Subject

PROMETHEUS_PORT, PUSHGATEWAY_PORT = 9090, 9091


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
    """Return the rules of the objectives, and an alert on each service that is down."""
    down = [
        {
            "alert": "ServiceDown",
            "expr": f'up{{job="{service}"}} == 0',
            "labels": {"severity": "page", "service": service},
            "annotations": {"summary": f"Prometheus cannot scrape {service}"},
        }
        for service in dict.fromkeys(one.service for one in subject.scrapes)
    ]
    text = subject.rules or "groups:\n"
    return text if not down else f"{text}  - {json.dumps({'name': 'llmchaos', 'rules': down})}\n"
