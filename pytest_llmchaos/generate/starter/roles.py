"""Guesses of the parts that services play, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.generate.starter.client_key import ClientKey, client_key
from pytest_llmchaos.generate.starter.client_model import model, prepares
from pytest_llmchaos.generate.starter.compose_file import Service, Stack
from pytest_llmchaos.generate.starter.guess import Guess

_NO_PART_OF_REQUESTS = ("store", "monitor", "prometheus", "remediator", "page")
# How likely clients send their requests to a service, by its part.
_FRONT = {"gateway": 50, "proxy": 45, "app": 40, "model": 20, "page": -20}
_PORT_OPTION = re.compile(r"--(?:port|http-port)[= ](\d+)")
_MODEL_STARTUP_S = 900


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Parts of the services of a compose file, as far as they can be guessed.

    Attributes:
        api: the service that clients use.
        targets: services that faults may hit.
        victim: the target of the first scenario.
        scraped: services with metrics that the run scrapes.
        key: the clients' key, or None.
        guesses: the ini keys.
        remarks: what else the reader should see.
    """

    api: Service
    targets: tuple[str, ...]
    victim: str
    scraped: tuple[Service, ...]
    key: ClientKey | None
    guesses: tuple[Guess, ...]
    remarks: tuple[str, ...] = field(default=())


def roles_of(stack: Stack) -> Roles:
    """Guess the parts of the services.

    Raises:
        BadScenario: no service could be what clients use.
    """
    profiles = _profiles(stack)
    on = {name: one for name, one in stack.services.items() if _is_on(one, (*stack.active_profiles, *profiles))}
    once = _one_shots(stack)
    serving = {name: one for name, one in on.items() if name not in once}
    edges = {name: {to: port for to, port in stack.references(name).items() if to in serving} for name in serving}
    api, why_api = _api(serving, edges)
    reached = _reached(api.name, edges)
    targets = tuple(name for name in reached if serving[name].server.part not in _NO_PART_OF_REQUESTS)
    targets = targets if api.name in targets else (api.name, *targets)
    replicas = _replicas([serving[name] for name in targets])
    scraped = tuple(_scraped(serving))
    near = [serving[name] for name in reached]
    key = client_key(near)
    guesses = [
        Guess(key="api", value=f"{api.name}:{_port(api, edges)[0]}", reason=f"{why_api}; {_port(api, edges)[1]}"),
        Guess(key="targets", value=targets, reason=_why_targets(targets, serving, once)),
        *_metrics(scraped, serving, edges),
        *_prometheus(serving),
        *_remediator(serving),
        model(stack, near),
        *_ready(api, _port(api, edges)[0]),
        *_path(api),
        *([key.guess] if key else []),
        *_startup(targets, serving),
        *_of_profiles(profiles),
        *_of_restart(targets, serving),
        *_of_replicas(replicas),
    ]
    return Roles(
        api=api,
        targets=targets,
        victim=replicas[0] if replicas else api.name,
        scraped=scraped,
        key=key,
        guesses=tuple(guesses),
        remarks=tuple(_remarks(stack, on)),
    )


def _api(serving: Mapping[str, Service], edges: Mapping[str, Mapping[str, int | None]]) -> tuple[Service, str]:
    models = {name for name, one in serving.items() if one.server.part == "model"}
    users = {to for name in serving for to in edges[name] if serving[name].server.part not in ("monitor", "prometheus")}
    best: tuple[int, Service, str] | None = None
    for name, one in serving.items():
        points = _FRONT.get(one.server.part)
        if points is None:
            continue
        reasons = [one.server.title or "a program of your own"]
        leads = bool(models & set(_reached(name, edges)[1:]))
        if leads:
            reasons.append("requests reach a model server through it")
        elif models and one.server.part == "app":
            points -= 30
        if one.published:
            points += 15
            reasons.append("it publishes a port")
        elif not (one.exposed or one.server.port or any(edges[other].get(name) for other in serving)):
            points -= 40
        if name not in users:
            points += 10
            reasons.append("no other service calls it")
        if best is None or points > best[0]:
            best = (points, one, ", ".join(reasons))
    if best is None:
        raise BadScenario(
            f"--compose must name a file with a service that answers requests, it has {', '.join(serving) or 'none'}: "
            "give all files that `docker compose` reads"
        )
    return best[1], best[2]


def _reached(start: str, edges: Mapping[str, Mapping[str, int | None]]) -> list[str]:
    """Services that a request can reach from one, itself first."""
    found, left = [start], [start]
    while left:
        for to in edges.get(left.pop(0), {}):
            if to not in found:
                found.append(to)
                left.append(to)
    return found


def _port(one: Service, edges: Mapping[str, Mapping[str, int | None]]) -> tuple[int, str]:
    """Return a container's HTTP port and the reason for it."""
    offered = one.published or one.exposed
    option = _PORT_OPTION.search(one.command)
    if option:
        return int(option[1]), "its command sets the port"
    if len(offered) == 1:
        return offered[0], "the only port that it offers"
    called = next((to[one.name] for to in edges.values() if to.get(one.name)), None)
    candidates = [
        (called, "the port that other services call"),
        (one.health[0] if one.health else None, "the port of its health check"),
        (one.server.port or None, f"the port of {one.server.title}"),
    ]
    for port, reason in candidates:
        if port and (not offered or port in offered):
            return port, reason
    if offered:
        return offered[0], f"the first of the ports that it offers ({', '.join(map(str, offered))}): check this"
    return 8080, "it names no port, so this is a mere guess: check this"


def _one_shots(stack: Stack) -> set[str]:
    """Services that end: others wait for that, or their command only prepares."""
    awaited = {
        name
        for one in stack.services.values()
        for name, about in one.written.depends_on.items()
        if about.condition == "service_completed_successfully"
    }
    return awaited | {name for name, one in stack.services.items() if prepares(one)}


def _replicas(targets: list[Service]) -> tuple[str, ...]:
    """The largest group of model servers that start the same image."""
    groups: dict[str, list[str]] = {}
    for one in targets:
        if one.server.part == "model":
            build = one.written.build
            groups.setdefault(one.written.image or (build.context if build else one.name), []).append(one.name)
    largest = max(groups.values(), key=len, default=[])
    return tuple(largest) if len(largest) > 1 else ()


def _why_targets(targets: tuple[str, ...], serving: Mapping[str, Service], once: set[str]) -> str:
    others = [f"{name} ({one.server.title or one.server.part})" for name, one in serving.items() if name not in targets]
    others += [f"{name} (ends by itself)" for name in sorted(once)]
    return "what requests pass through" + (f". Left out: {', '.join(others)}" if others else "")


def _scraped(serving: Mapping[str, Service]) -> Iterator[Service]:
    found = {name for one in serving.values() for name in one.scrapes}
    for name, one in serving.items():
        if one.server.part in ("model", "gateway", "app", "proxy") and (name in found or _serves_metrics(one)):
            yield one


def _serves_metrics(one: Service) -> bool:
    option = one.server.metrics_option
    return bool(one.server.metrics) and (not option or any(re.search(option, text) for text in one.texts))


def _metrics(
    scraped: tuple[Service, ...], serving: Mapping[str, Service], edges: Mapping[str, Mapping[str, int | None]]
) -> Iterator[Guess]:
    by_prometheus = {name: where for one in serving.values() for name, where in one.scrapes.items()}
    entries, reasons = [], []
    for one in scraped:
        port, path = by_prometheus.get(one.name) or (_port(one, edges)[0], one.server.metrics)
        entries.append(f"{one.name}:{port}{path}")
        why = "your Prometheus scrapes it" if one.name in by_prometheus else f"{one.server.title} serves metrics there"
        reasons.append(f"{one.name}: {why}")
    if entries:
        yield Guess(key="metrics", value=tuple(entries), reason="; ".join(reasons))


def _prometheus(serving: Mapping[str, Service]) -> Iterator[Guess]:
    for name, one in serving.items():
        if one.server.part == "prometheus":
            rules = "its rule files have your alerts" if one.has_rules else "no rule file of it was found"
            port = next(iter(one.published or one.exposed), one.server.port)
            yield Guess(
                key="prometheus",
                value=f"{name}:{port}",
                reason=f"Prometheus, read for your alerts alone; {rules}",
                sure=one.has_rules,
            )
            return


def _remediator(serving: Mapping[str, Service]) -> Iterator[Guess]:
    for name, one in serving.items():
        known = one.server.part == "remediator"
        if known or re.search(r"heal|remediat|repair|watchdog|fixer", name):
            what = "autoheal restarts unhealthy containers. It has no audit log" if known else "its name"
            yield Guess(key="remediator", value=name, reason=what, sure=known)
            return


def _ready(api: Service, port: int) -> Iterator[Guess]:
    if api.health and api.health[0] == port:
        yield Guess(key="ready_path", value=api.health[1], reason="its own health check reads it")
    elif api.server.ready:
        yield Guess(key="ready_path", value=api.server.ready, reason=f"{api.server.title} answers 200 there when ready")


def _path(api: Service) -> Iterator[Guess]:
    if api.server.path:
        yield Guess(key="path", value=api.server.path, reason=f"{api.server.title} serves chat completions there")


def _startup(targets: tuple[str, ...], serving: Mapping[str, Service]) -> Iterator[Guess]:
    models = [name for name in targets if serving[name].server.part == "model"]
    if models:
        reason = f"seconds until the stack is healthy, because {', '.join(models)} may load a model for minutes"
        yield Guess(key="startup_s", value=_MODEL_STARTUP_S, reason=reason)


def _profiles(stack: Stack) -> tuple[str, ...]:
    """Profiles to switch on: without one of them no model server would start."""
    serve = [one for one in stack.services.values() if one.server.part in ("model", "gateway", "proxy", "app")]
    wanted = [one for one in serve if one.server.part == "model"] or serve
    if any(_is_on(one, stack.active_profiles) for one in wanted):
        return ()
    names = [name for one in wanted for name in one.written.profiles]
    return (next((name for name in names if "cpu" in name), names[0]),) if names else ()


def _is_on(one: Service, profiles: Sequence[str]) -> bool:
    """Return whether a service starts under these profiles."""
    return not one.written.profiles or bool({"*", *one.written.profiles} & set(profiles))


def _of_profiles(profiles: tuple[str, ...]) -> Iterator[Guess]:
    if profiles:
        yield Guess(key="profiles", value=profiles, reason="without it no model server starts")


def _of_restart(targets: tuple[str, ...], serving: Mapping[str, Service]) -> Iterator[Guess]:
    policies = sorted({f"{name}: {serving[name].written.restart}" for name in targets if _restarts(serving[name])})
    if policies:
        yield Guess(
            key="restart",
            value="keep",
            reason=f"your file restarts {', '.join(policies)}. A run restarts nothing unless this line is in force",
            sure=False,
        )


def _restarts(one: Service) -> bool:
    return one.written.restart not in ("", "no")


def _of_replicas(replicas: tuple[str, ...]) -> Iterator[Guess]:
    if replicas:
        reason = "they start the same image. Useful with llmchaos_replica_header: see trial.replicas"
        yield Guess(key="replicas", value=replicas, reason=reason, sure=False)


def _remarks(stack: Stack, on: Mapping[str, Service]) -> Iterator[str]:
    off: dict[str, list[str]] = {}
    for name, one in stack.services.items():
        if name not in on:
            off.setdefault(", ".join(one.written.profiles), []).append(name)
    for profile, names in sorted(off.items()):
        yield f"off, because the profile {profile} is: {', '.join(names)}"
