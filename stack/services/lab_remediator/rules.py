"""Rules as values: signals, conditions, guards."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab_remediator.model import Action

CONDITIONS = frozenset(
    {"created", "running", "starting", "unhealthy", "paused", "restarting", "removing", "exited", "dead"}
)
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip
FIRES = re.compile(r"(<=|>=|==|!=|<|>)\s*(-?\d+(?:\.\d+)?)")


class RulesError(ValueError):
    """Invalid remediation.yaml: place, expectation and value."""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A PromQL query or a probe (1 good, 0 bad), and the values at which it fires.

    `by` is the label that names the service. None: one value stands for all services. A
    probe with `post` sends that body. With `only_while` it runs only while that signal
    fires for the service. With `canary` it is good only if the answer is the one of
    LAB_CANARY, and absent if that is not set. With `busy_is_bad` a 503 is bad, which is
    absent otherwise.
    """

    name: str
    fires_at: str
    query: str | None = None
    probe: str | None = None
    by: str | None = "service"
    every_s: float = 0.25
    timeout_s: float = 1.0
    post: Mapping[str, object] | None = None
    only_while: str | None = None
    canary: bool = False
    busy_is_bad: bool = False

    @property
    def period_s(self) -> float:
        """Longest time between two answers without trouble, in seconds."""
        return self.every_s if self.probe is None else self.every_s + self.timeout_s

    def fires(self, value: float) -> bool:
        sign, bound = cast("re.Match[str]", FIRES.fullmatch(self.fires_at)).groups()
        return _COMPARE[sign](value, float(bound))


@dataclass(frozen=True, kw_only=True)
class SignalCondition:
    """The signal fires now, and in a share of its recent readings.

    At least `share` (0-1) of the readings of the last `for_s` seconds.
    """

    signal: str
    for_s: float = 0.0
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ContainerCondition:
    """The runtime reports the container in one of these conditions."""

    container: frozenset[str]


Condition = SignalCondition | ContainerCondition


@dataclass(frozen=True, kw_only=True)
class Guards:
    """Bounds on actions. A rule may override each of them."""

    startup_grace_s: float = 20.0
    cooldown_s: float = 2.0
    backoff: float = 2.0
    cooldown_max_s: float = 60.0
    max_attempts: int = 5  # without a healthy period in between, then quarantine
    max_actions: int = 20  # in any window_s, even with healthy periods: bounds repairs of a flapping service
    window_s: float = 600.0
    healthy_s: float = 15.0
    recovered_s: float = 2.0  # good for this long ends an incident, from the first good moment
    verify_s: float = 15.0  # a replica taken down on purpose protects the others for this long
    stale_s: float = 3.0  # an older reading counts as absent
    glitch_s: float = 1.5  # a signal without evidence must outlast one lost scrape
    evidence_wait_s: float = 12.0  # a signal without its evidence is recorded after this long

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            least = 1 if item.name in ("backoff", "max_attempts", "max_actions") else 0
            if not isinstance(value, (int, float)) or isinstance(value, bool) or value < least:
                raise RulesError(f"guard {item.name}: expected a number >= {least}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Signal (any) -> evidence (all) -> action, unless a veto or a guard stops it."""

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

    def names_of(self, service: str) -> frozenset[str]:
        """Signals of the service's rules."""
        return frozenset(
            condition.signal
            for rule in self.of(service)
            for condition in (*rule.signal, *rule.evidence, *rule.unless)
            if isinstance(condition, SignalCondition)
        )
