"""Parser of remediation.yaml and its signals."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast, get_args

import yaml

from lab_remediator.model import Action
from lab_remediator.restarts import NOT_OURS
from lab_remediator.rules import (
    CONDITIONS,
    FIRES,
    Condition,
    ContainerCondition,
    Guards,
    Policy,
    Rule,
    RulesError,
    Signal,
    SignalCondition,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA = "llmlab-remediation/1"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def read_policy(rules_file: Path, repairs: tuple[str, ...], *, dry_run: bool = False) -> Policy:
    """The policy of a file and of the signals file next to it.

    Raises:
        RulesError: a file is invalid.
        OSError: a file is unreadable.
    """
    text = rules_file.read_text()
    name = _document(text, "the file").get("signals_from")
    if name is None:
        return load_policy(text, repairs, dry_run=dry_run)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RulesError(f"signals_from: expected the name of a file next to {rules_file.name}, got {name!r}")
    try:
        more = rules_file.with_name(name).read_text()
    except FileNotFoundError as error:
        raise RulesError(
            f"signals_from: expected {name} next to {rules_file}, no such file: `llmchaos generate` writes it"
        ) from error
    return load_policy(text, repairs, more=more, dry_run=dry_run)


def load_policy(text: str, repairs: tuple[str, ...], *, more: str | None = None, dry_run: bool = False) -> Policy:
    """The policy for the services in `repairs`.

    Rules for other services only are dropped. `more` is the text of the file that
    `signals_from` names. It contains further signals only.

    Raises:
        RulesError: the place, the expectation and the value.
    """
    top = _document(text, "the file", {"replicas", "guards", "signals", "signals_from", "rules"})
    entries = dict(_mapping(top.get("signals"), "signals"))
    if (source := top.get("signals_from")) is not None:
        if more is None:
            raise RulesError(f"signals_from: expected the text of {source!r} besides, got none")
        others = _mapping(_document(more, str(source), {"signals"}).get("signals"), f"{source}, signals")
        if twice := sorted(set(entries) & set(others)):
            raise RulesError(
                f"{source}: expected signals that are not in the rules' file, got {', '.join(twice)} again"
            )
        entries |= others
    signals = {name: _signal(name, entry) for name, entry in entries.items()}
    for signal in signals.values():
        if signal.only_while is not None and signal.only_while not in signals:
            raise RulesError(f"signal {signal.name}, only_while: expected a signal, got {signal.only_while!r}")
    guards = _guards(top.get("guards", {}), Guards(), "guards")
    rules = [_rule(entry, n, signals, guards) for n, entry in enumerate(_list(top.get("rules"), "rules"), start=1)]
    names = [rule.name for rule in rules]
    if double := {name for name in names if names.count(name) > 1}:
        raise RulesError(f"rules: expected unique names, got {', '.join(sorted(double))} more than once")
    kept = tuple(rule for rule in rules if set(rule.services) & set(repairs))
    if not kept:
        raise RulesError(f"rules: expected at least one rule for {', '.join(repairs)}; none names any of them")
    used = {c.signal for r in kept for c in (*r.signal, *r.evidence, *r.unless) if isinstance(c, SignalCondition)}
    used |= {gate for name in used if (gate := signals[name].only_while) is not None}
    return Policy(
        signals={name: signal for name, signal in signals.items() if name in used},
        rules=kept,
        services=repairs,
        replicas=tuple(name for name in _strings(top.get("replicas", []), "replicas") if name in repairs),
        guards=guards,
        dry_run=dry_run,
    )


def _document(text: str, where: str, known: set[str] | None = None) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise RulesError(f"{where}: expected YAML, got something else: {error}") from error
    top = _mapping(raw, where, known and known | {"schema"})
    if top.get("schema") != SCHEMA:
        raise RulesError(f"{where}, schema: expected {SCHEMA!r}, got {top.get('schema')!r}")
    return top


def _rule(entry: object, number: int, signals: Mapping[str, Signal], guards: Guards) -> Rule:
    raw = _mapping(entry, f"rule {number}", {f.name for f in fields(Rule)})
    name = raw.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in NOT_OURS:
        raise RulesError(f"rule {number}: expected a name in lower case (not {' or '.join(NOT_OURS)}), got {name!r}")
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
    raw = dict(_mapping(entry, where, {f.name for f in fields(Signal)} - {"name", "fires_at"} | {"fires"}))
    query, probe, fires = raw.get("query"), raw.get("probe"), raw.pop("fires", None)
    if (query is None) == (probe is None):
        raise RulesError(f"{where}: expected either a query or a probe, got {'both' if query else 'neither'}")
    if query is not None and (not isinstance(query, str) or not query.strip()):
        raise RulesError(f"{where}, query: expected PromQL, got {query!r}")
    if probe is not None and (not isinstance(probe, str) or not probe.startswith("http://{service}:")):
        raise RulesError(f"{where}, probe: expected http://{{service}}:PORT/PATH, got {probe!r}")
    if not isinstance(fires, str) or not FIRES.fullmatch(fires):
        raise RulesError(f"{where}, fires: expected a comparison such as '< 1', got {fires!r}")
    if not isinstance(raw.get("by", ""), str | None):
        raise RulesError(f"{where}, by: expected the label that names the service, or null for all, got {raw['by']!r}")
    for key in ("every_s", "timeout_s"):
        if not isinstance(raw.get(key, 1), (int, float)) or not 0.05 <= raw.get(key, 1) <= 60:
            raise RulesError(f"{where}, {key}: expected 0.05 to 60 seconds, got {raw[key]!r}")
    if extra := sorted({"post", "only_while", "canary", "busy_is_bad"} & set(raw)) if probe is None else []:
        raise RulesError(f"{where}: expected {', '.join(extra)} only for a probe")
    if "post" in raw:
        _mapping(raw["post"], f"{where}, post")
    _check_flags(raw, where)
    if query is not None:
        raw["query"] = " ".join(query.split())
    return Signal(name=name, fires_at=fires, **raw)


def _check_flags(raw: Mapping[str, Any], where: str) -> None:
    if not isinstance(raw.get("canary", False), bool) or (raw.get("canary") and "post" not in raw):
        raise RulesError(
            f"{where}, canary: expected true next to a post, which has its question, got {raw['canary']!r}"
        )
    if not isinstance(raw.get("busy_is_bad", False), bool):
        raise RulesError(f"{where}, busy_is_bad: expected true or false, got {raw['busy_is_bad']!r}")


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
