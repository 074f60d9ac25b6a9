"""The allow-list of requests, the same as docker-proxy/haproxy.cfg."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Verb = Literal["list", "inspect", "start", "restart", "stop", "kill"]
_VERSION = r"(?:/v1[.][4-9][0-9])?"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One allowed request. `service` is "" for `list`."""

    verb: Verb
    service: str = ""
    grace_s: float = 10.0  # Docker's own pattern
    signal: str = "SIGKILL"


class AllowList:
    """Matches method and URL as received.

    The URL is never decoded, so a second spelling cannot mean another call. Only the
    services in `scaled` may be stopped.
    """

    def __init__(self, project: str, repairs: tuple[str, ...], scaled: tuple[str, ...] = ()) -> None:
        one, stopped = _container(project, repairs), _container(project, scaled)
        project_label = rf"%7B%22label%22%3A%5B%22com[.]docker[.]compose[.]project%3D{re.escape(project)}%22%5D%7D"
        sentences: dict[Verb, str] = {
            "list": rf"GET {_VERSION}/containers/json[?]all=(?:1|true)&filters={project_label}",
            "inspect": rf"GET {one}/json",
            "start": rf"POST {one}/start",
            "restart": rf"POST {one}/restart(?:[?]t=(?P<grace>[0-9][0-9]?))?",
            "stop": rf"POST {stopped}/stop(?:[?]t=(?P<grace>[0-9][0-9]?))?",
            "kill": rf"POST {one}/kill(?:[?]signal=(?P<signal>SIG(?:KILL|TERM)))?",
        }
        self._sentences = {verb: re.compile(sentence) for verb, sentence in sentences.items()}

    def call(self, method: str, url: str) -> Call | None:
        """The call of the request, or None if the list does not allow it."""
        for verb, sentence in self._sentences.items():
            found = sentence.fullmatch(f"{method} {url}")
            if found:
                groups = found.groupdict()
                return Call(
                    verb=verb,
                    service=groups.get("service") or "",
                    grace_s=float(groups.get("grace") or 10),
                    signal=groups.get("signal") or "SIGKILL",
                )
        return None


def _container(project: str, services: tuple[str, ...]) -> str:
    """The path of a container of one of these services. No services match nothing."""
    names = "|".join(re.escape(name) for name in services) or "(?!)"
    return rf"{_VERSION}/containers/{re.escape(project)}-(?P<service>{names})-1"
