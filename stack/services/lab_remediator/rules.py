"""The rules of remediation.yaml as checked values. Reads text, never files; decides nothing."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast, get_args

import yaml

from lab_remediator.model import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SCHEMA = "llmlab-remediation/1"
CONDITIONS = frozenset(
    {"created", "running", "starting", "unhealthy", "paused", "restarting", "removing", "exited", "dead"}
)
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip
_BAD = re.compile(r"(<=|>=|==|!=|<|>)\s*(-?\d+(?:\.\d+)?)")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


class RulesError(ValueError):
    """remediation.yaml is not usable: where, what was expected, what was seen."""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A query and the values of it that are bad; `by` is the label that names the service, None means all services."""

    name: str
    query: str
    bad: str
    by: str | None = "service"
    every_s: float = 0.25

    def is_bad(self, value: float) -> bool:
        sign, bound = cast("re.Match[str]", _BAD.fullmatch(self.bad)).groups()
        return _COMPARE[sign](value, float(bound))


@dataclass(frozen=True, kw_only=True)
class SignalCondition:
    """The signal is bad now and in at least `share` of the readings of the last `for_s` seconds (N of M, in time)."""

    signal: str
    for_s: float = 0.0
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ContainerCondition:
    """The runtime says that the container is in one of these conditions."""

    container: frozenset[str]


Condition = SignalCondition | ContainerCondition


@dataclass(frozen=True, kw_only=True)
class Guards:
    """Bounds on what may be done; a rule may override any of them."""

    startup_grace_s: float = 20.0
    cooldown_s: float = 2.0
    backoff: float = 2.0
    cooldown_max_s: float = 60.0
    max_attempts: int = 5  # without a healthy spell in between, then quarantine
    max_actions: int = 12  # in any window_s, healthy spells or not: a flapping service is not repaired for ever
    window_s: float = 600.0
    healthy_s: float = 15.0
    verify_s: float = 15.0  # how long a replica taken down on purpose keeps the others from being taken down too
    stale_s: float = 3.0  # an older reading is absent
    evidence_wait_s: float = 2.0  # a signal without its evidence is written down only after this long

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            least = 1 if item.name in ("backoff", "max_attempts", "max_actions") else 0
            if not isinstance(value, (int, float)) or isinstance(value, bool) or value < least:
                raise RulesError(f"guard {item.name}: expected a number >= {least}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """signal (any) -> evidence (all) -> action, unless a veto speaks; guarded."""

    name: str
    services: tuple[str, ...]
    signal: tuple[SignalCondition, ...]
    evidence: tuple[Condition, ...]
    unless: tuple[Condition, ...]
    action: Action
    guards: Guards


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The whole file, reduced to the services that may be repaired."""

    signals: Mapping[str, Signal]
    rules: tuple[Rule, ...]
    services: tuple[str, ...]
    replicas: tuple[str, ...]
    guards: Guards
    dry_run: bool = False

    def of(self, service: str) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if service in rule.services)


def load_policy(text: str, repairs: tuple[str, ...], *, dry_run: bool = False) -> Policy:
    """The policy for the services in `repairs`; rules that name only other services fall away. Raises RulesError."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RulesError(f"expected YAML, got something else: {error}") from error
    top = _mapping(raw, "the file", {"schema", "replicas", "guards", "signals", "rules"})
    if top.get("schema") != SCHEMA:
        raise RulesError(f"schema: expected {SCHEMA!r}, got {top.get('schema')!r}")
    signals = {name: _signal(name, entry) for name, entry in _mapping(top.get("signals"), "signals").items()}
    guards = _guards(top.get("guards", {}), Guards(), "guards")
    rules = [_rule(entry, n, signals, guards) for n, entry in enumerate(_list(top.get("rules"), "rules"), start=1)]
    names = [rule.name for rule in rules]
    if double := {name for name in names if names.count(name) > 1}:
        raise RulesError(f"rules: expected unique names, got {', '.join(sorted(double))} more than once")
    kept = tuple(rule for rule in rules if set(rule.services) & set(repairs))
    if not kept:
        raise RulesError(f"rules: expected at least one rule for {', '.join(repairs)}; none names any of them")
    used = {c.signal for r in kept for c in (*r.signal, *r.evidence, *r.unless) if isinstance(c, SignalCondition)}
    return Policy(
        signals={name: signal for name, signal in signals.items() if name in used},
        rules=kept,
        services=repairs,
        replicas=tuple(name for name in _strings(top.get("replicas", []), "replicas") if name in repairs),
        guards=guards,
        dry_run=dry_run,
    )


def _rule(entry: object, number: int, signals: Mapping[str, Signal], guards: Guards) -> Rule:
    raw = _mapping(entry, f"rule {number}", {f.name for f in fields(Rule)})
    name = raw.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "external":
        raise RulesError(f"rule {number}: expected a name in lower case (not 'external'), got {name!r}")
    where = f"rule {name}"
    parsed = {
        key: tuple(_condition(item, f"{where}, {key}", signals) for item in _list(raw.get(key, []), f"{where}, {key}"))
        for key in ("signal", "evidence", "unless")
    }
    signal = tuple(c for c in parsed["signal"] if isinstance(c, SignalCondition))
    if not signal or len(signal) < len(parsed["signal"]):
        raise RulesError(f"{where}, signal: expected at least one signal and only signals, got {raw.get('signal')!r}")
    if not parsed["evidence"]:
        raise RulesError(f"{where}: expected evidence besides its signal, got none: one signal alone never acts")
    again = {c.signal for c in parsed["evidence"] if isinstance(c, SignalCondition)} & {c.signal for c in signal}
    if again:
        raise RulesError(f"{where}: expected independent evidence, got its own signal {', '.join(sorted(again))} again")
    services = _strings(raw.get("services"), f"{where}, services")
    if not services:
        raise RulesError(f"{where}, services: expected at least one service, got none")
    if raw.get("action") not in get_args(Action):
        raise RulesError(f"{where}, action: expected one of {', '.join(get_args(Action))}, got {raw.get('action')!r}")
    return Rule(
        name=name,
        services=services,
        signal=signal,
        evidence=parsed["evidence"],
        unless=parsed["unless"],
        action=cast("Action", raw["action"]),
        guards=_guards(raw.get("guards", {}), guards, f"{where}, guards"),
    )


def _signal(name: str, entry: object) -> Signal:
    where = f"signal {name}"
    raw = _mapping(entry, where, {"query", "bad", "by", "every_s"})
    query, bad, by, every_s = raw.get("query"), raw.get("bad"), raw.get("by", "service"), raw.get("every_s", 0.25)
    if not isinstance(query, str) or not query.strip():
        raise RulesError(f"{where}, query: expected PromQL, got {query!r}")
    if not isinstance(bad, str) or not _BAD.fullmatch(bad):
        raise RulesError(f"{where}, bad: expected a comparison such as '< 1', got {bad!r}")
    if by is not None and not isinstance(by, str):
        raise RulesError(f"{where}, by: expected the label that names the service, or null for all, got {by!r}")
    if not isinstance(every_s, (int, float)) or not 0.05 <= every_s <= 60:
        raise RulesError(f"{where}, every_s: expected 0.05 to 60 seconds, got {every_s!r}")
    return Signal(name=name, query=" ".join(query.split()), bad=bad, by=by, every_s=float(every_s))


def _condition(entry: object, where: str, signals: Mapping[str, Signal]) -> Condition:
    raw = _mapping(entry, where, {"signal", "for_s", "share", "container"})
    if "container" in raw:
        states = frozenset(_strings(raw["container"], f"{where}, container"))
        if len(raw) > 1 or not states or states - CONDITIONS:
            raise RulesError(f"{where}: expected only a list of {', '.join(sorted(CONDITIONS))}, got {raw!r}")
        return ContainerCondition(container=states)
    name, for_s, share = raw.get("signal"), raw.get("for_s", 0), raw.get("share", 1)
    if name not in signals:
        raise RulesError(f"{where}: expected one of the signals {', '.join(signals) or '(none)'}, got {name!r}")
    if not isinstance(for_s, (int, float)) or not 0 <= for_s <= 600:
        raise RulesError(f"{where}, for_s: expected 0 to 600 seconds, got {for_s!r}")
    if not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise RulesError(f"{where}, share: expected a share above 0 and up to 1, got {share!r}")
    return SignalCondition(signal=cast("str", name), for_s=float(for_s), share=float(share))


def _guards(entry: object, base: Guards, where: str) -> Guards:
    raw = _mapping(entry, where, {f.name for f in fields(Guards)})
    return Guards(**{**{f.name: getattr(base, f.name) for f in fields(Guards)}, **raw})


def _mapping(entry: object, where: str, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
        raise RulesError(f"{where}: expected a mapping, got {entry!r}")
    if known is not None and (unknown := sorted(set(entry) - known)):
        raise RulesError(f"{where}: expected keys among {', '.join(sorted(known))}; got {', '.join(unknown)}")
    return entry


def _list(entry: object, where: str) -> list[object]:
    if not isinstance(entry, list):
        raise RulesError(f"{where}: expected a list, got {entry!r}")
    return entry


def _strings(entry: object, where: str) -> tuple[str, ...]:
    items = _list(entry, where)
    if not all(isinstance(item, str) for item in items):
        raise RulesError(f"{where}: expected a list of names, got {entry!r}")
    return tuple(cast("list[str]", items))
