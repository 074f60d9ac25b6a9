"""The override that a run lays over a compose file, which stays as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pytest_llmchaos.model import Environment
from pytest_llmchaos.runtime.docker import judge, reach
from pytest_llmchaos.subject.lab import Subject

_STARTED = {"condition": "service_started", "required": False}
_TAKEN_BY_BUILDS = ("tags", "cache_to")


def lab_override(config: reach.Config, project: str, labels: Mapping[str, str]) -> str:
    """Return an override with labels, and without a proxy for the containers.

    Args:
        config: The lab's compose file.
        project: Name of the Compose project.
        labels: Labels of the run.
    """
    services = {
        name: json.dumps({**_labelled(about, labels), "environment": judge.UNPROXIED})
        for name, about in config.services.items()
    }
    return _text({"services": services, **_resources(config, project, labels)})


def own_override(
    config: reach.Config,
    subject: Subject,
    project: str,
    labels: Mapping[str, str],
    *,
    published: Mapping[str, str],
    added: Mapping[str, Mapping[str, object]],
) -> str:
    """Return an override with which two stacks of one file can run at once.

    Published ports become free ports of loopback. Container names become aliases.
    Docker restarts nothing. The judge and its pushgateway are added.

    Args:
        config: The user's compose file with the services that start.
        subject: The user's stack.
        project: Name of the Compose project.
        labels: Labels of the run.
        published: The entry of `ports` of each service that is reached from outside.
        added: The judge and its pushgateway, as Compose reads them.
    """
    services = {name: _own_service(config, subject, name, labels, published) for name in config.services}
    # A service with a fixed address comes first, or one of these might be given it.
    fixed = {name: _STARTED for name, about in config.services.items() if _has_address(about)}
    late = {"depends_on": fixed} if fixed else {}
    services |= {name: json.dumps({**about, **late}) for name, about in added.items()}
    resources = _resources(config, project, labels)
    resources.setdefault("networks", {})[judge.NETWORK] = json.dumps({"labels": dict(labels)})
    files = {name: json.dumps(about) for name, about in judge.configs(config, subject).items()}
    return _text({"services": services, **resources, "configs": files})


def environment_override(environment: Environment) -> str:
    """Return an override with further variables of services.

    Args:
        environment: The variables by service. Compose expands nothing in their values.
    """
    literal = {
        name: {variable: value.replace("$", "$$") for variable, value in variables.items()}
        for name, variables in environment.items()
    }
    return _text({"services": {name: json.dumps({"environment": of}) for name, of in literal.items()}})


def _own_service(
    config: reach.Config, subject: Subject, name: str, labels: Mapping[str, str], published: Mapping[str, str]
) -> str:
    about = config.services[name]
    changes: dict[str, object] = {**_labelled(about, labels)}
    tagged: dict[str, str] = {}
    if about.container_name:
        tagged["container_name"] = "!reset null"
        if about.networks:
            # Other services may use this name.
            changes["networks"] = {network: {"aliases": [about.container_name]} for network in about.networks}
    if not subject.keeps_restart:
        changes["restart"] = "no"
        if about.deploy is not None and about.deploy.restart_policy is not None:
            changes["deploy"] = {"restart_policy": {"condition": "none"}}
    entries = [
        entry
        for service, entry in published.items()
        if service in config.services and reach.network_owner(config, service) == name
    ]
    if entries and about.network_mode != "host":
        tagged["ports"] = f"!override {json.dumps(entries)}"
    elif about.ports:
        tagged["ports"] = "!reset []"
    if own := [key for key in _TAKEN_BY_BUILDS if about.build and key in about.build]:
        # A build would move a tag or a cache of the user's.
        kept = [
            f"{json.dumps('labels')}: {json.dumps(dict(labels))}",
            *(f"{json.dumps(key)}: !reset []" for key in own),
        ]
        tagged["build"] = "{" + ", ".join(kept) + "}"
        changes.pop("build", None)
    pairs = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in changes.items()]
    return "{" + ", ".join([*pairs, *(f"{json.dumps(key)}: {value}" for key, value in tagged.items())]) + "}"


def _has_address(about: reach.Service) -> bool:
    networks = [one for one in (about.networks or {}).values() if isinstance(one, dict)]
    return any(one.get("ipv4_address") or one.get("ipv6_address") for one in networks)


def _labelled(about: reach.Service, labels: Mapping[str, str]) -> dict[str, object]:
    # An image named by Compose is this run's. One with `image:` is the user's.
    is_built = about.build is not None and not about.image
    return {"labels": dict(labels), **({"build": {"labels": dict(labels)}} if is_built else {})}


def _resources(config: reach.Config, project: str, labels: Mapping[str, str]) -> dict[str, dict[str, str]]:
    shared = reach.shared_names(config, project)
    sections: dict[str, dict[str, str]] = {}
    for kind, found in (("networks", config.networks), ("volumes", config.volumes)):
        for key in found:
            # To label a shared network or volume, Compose would recreate it.
            name = shared[kind].get(key)
            value = (
                f"!override {json.dumps({'external': True, 'name': name})}"
                if name
                else json.dumps({"labels": dict(labels)})
            )
            sections.setdefault(kind, {})[key] = value
    return sections


def _text(sections: Mapping[str, Mapping[str, str]]) -> str:
    """JSON values, which YAML reads, with Compose's tags."""
    lines = []
    for section, values in sections.items():
        lines.append(f"{section}:")
        lines += [f"  {json.dumps(key)}: {value}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
