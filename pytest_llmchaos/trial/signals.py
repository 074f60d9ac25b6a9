"""Signals that the system raised: alerts and remediator rules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_llmchaos.errors import Inconclusive, NotDetected
from pytest_llmchaos.stats.bounded import Seconds
from pytest_llmchaos.stats.names import Known

SignalKind = Literal["alert", "rule"]


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One alert that began to fire, or one rule of the remediator that matched.

    Attributes:
        after_s: Seconds from the fault's start. In a control arm, which has no fault,
            seconds from the load's start. If Prometheus saw nothing for a while, an
            alert may have fired earlier, never later. `after_s <= 12` can hold then,
            and a bound that an earlier time would break raises Inconclusive.
        kind: "alert" for an alert of Prometheus, "rule" for a rule of the remediator.
        name: The alert's or the rule's name.
        service: The service that the signal is about. Empty for one about clients.
        severity: The alert's label `severity`, `page` for an alert that pages. Empty
            for a rule.
    """

    after_s: float
    kind: SignalKind
    name: str
    service: str = ""
    severity: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.after_s, Seconds):
            object.__setattr__(self, "after_s", Seconds(self.after_s))

    def __str__(self) -> str:
        about = f" ({self.service})" if self.service else ""
        return f"{self.kind} {self.name}{about} after {self.after_s:.1f} s"


@dataclass(frozen=True, kw_only=True)
class Incident:
    """One incident of the remediator, from the rule that matched to its end.

    Attributes:
        service: The service that the incident is about.
        rule: The rule that opened the incident.
        after_s: Seconds from the fault's start to the incident's start. Negative if it
            began before the fault.
        ended_after_s: Seconds from the fault's start to the incident's end. None if it
            was open when the trial was judged.
    """

    service: str
    rule: str
    after_s: float
    ended_after_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "after_s", Seconds(self.after_s))

    @property
    def ended(self) -> bool:
        """True if the remediator saw the service recover and closed the incident."""
        return self.ended_after_s is not None


def first(
    signals: Sequence[Signal],
    kind: SignalKind,
    name: str,
    service: str | None,
    *,
    victims: Collection[str],
    known: Iterable[str],
    services: Known,
    after: str,
) -> Signal:
    """Return the earliest signal of that kind and name.

    Args:
        signals: All signals of the trial.
        kind: "alert" or "rule".
        name: The alert's or the rule's name.
        service: The service that the signal must be about. If None, it must be about a
            victim or about clients.
        victims: Services that the fault hit. Empty in a control arm, where a signal
            about any service counts.
        known: Names of that kind that exist. If empty, names are not checked.
        services: Services that exist. A service with a signal is added to them.
        after: Description of the fault, for the message.

    Raises:
        BadScenario: The name or the service does not exist.
        NotDetected: No such signal was raised. The message lists the other signals.
        Inconclusive: It was raised for other services only. `service` must then state
            which one is expected.
    """
    found = [s for s in signals if s.kind == kind and str(s.name) == name and service in {None, s.service}]
    if service is None and victims and found:
        others = sorted({str(s.service) for s in found if s.service} - set(victims))
        found = [s for s in found if str(s.service) not in others]
        if not found:
            raise Inconclusive(
                f"{kind} {name} was raised only for {', '.join(others)}, and the fault hit {', '.join(victims)}: name the service "
                f"that you expect, as in trial.{kind}({name!r}, {others[0]!r})"
            )
    if found:
        return min(found, key=lambda signal: float(signal.after_s))
    Known(kind, known).require(name)
    Known("service", {*services.names, *(str(s.service) for s in signals)} if services.names else ()).require(
        service or None
    )
    about = f" for {service}" if service is not None else ""
    seen = ", ".join(map(str, signals)) or "none"
    raise NotDetected(f"{kind} {name}{about} was not raised after {after}; signals raised: {seen}")
