"""Containers of a stack: a Compose project's, and others chosen by name or label."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
# Docker's filters: by kind, such as `label`, the values.
Filters = Mapping[str, list[str]]
_ONE_OFF = "com.docker.compose.oneoff"


@dataclass(frozen=True, kw_only=True)
class Members:
    """The containers of one stack.

    Attributes:
        project: Name of the Compose project.
        selectors: Further services, each with `container:NAME` or `label:KEY=VALUE`.
    """

    project: str
    selectors: Mapping[str, str] = field(default_factory=dict)

    def service_of(self, name: str, labels: Mapping[str, str]) -> str | None:
        """Return the service of a container, or None if it belongs to no service.

        One of `docker compose run` belongs to none.
        """
        if labels.get(_ONE_OFF) == "True":
            return None
        for service, selector in self.selectors.items():
            kind, _, value = selector.partition(":")
            key, _, wanted = value.partition("=")
            if (kind == "container" and name == value) or (kind == "label" and labels.get(key) == wanted):
                return service
        own = labels.get(SERVICE) if labels.get(PROJECT) == self.project else None
        return own if own and own not in self.selectors else None

    def filters(self) -> list[Filters]:
        """Return Docker's filters for all members. Each finds some of them."""
        return [
            {"label": [f"{PROJECT}={self.project}"]},
            *(self._filter(selector) for selector in self.selectors.values()),
        ]

    def filter_of(self, service: str) -> Filters:
        """Return Docker's filter for the containers of one service."""
        if service in self.selectors:
            return self._filter(self.selectors[service])
        return {"label": [f"{PROJECT}={self.project}", f"{SERVICE}={service}"]}

    @staticmethod
    def _filter(selector: str) -> Filters:
        kind, _, value = selector.partition(":")
        # Docker reads a name as a pattern, and a name begins with a slash there.
        return {"label": [value]} if kind == "label" else {"name": [f"^/{re.escape(value)}$"]}
