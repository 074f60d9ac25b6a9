"""Signals of the system's own, by name: alerts that fired and rules of the remediator that saw something. No I/O."""

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
    """One alert that began to fire, or one rule of the remediator that noticed something.

    `after_s` counts from the fault's start; in a control arm from the load's. `severity` is an alert's label of that name:
    what wakes a human says `page`.
    """

    after_s: float
    kind: SignalKind
    name: str
    service: str = ""
    severity: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "after_s", Seconds(self.after_s))

    def __str__(self) -> str:
        about = f" ({self.service})" if self.service else ""
        return f"{self.kind} {self.name}{about} after {self.after_s:.1f} s"


@dataclass(frozen=True, kw_only=True)
class Incident:
    """One incident of the remediator: the rule that noticed it, and whether and when the remediator called it over.

    Both times count from the fault's start; what began before it has a negative one. `ended_after_s` is None where the
    incident was open when the trial was judged.
    """

    service: str
    rule: str
    after_s: float
    ended_after_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "after_s", Seconds(self.after_s))

    @property
    def ended(self) -> bool:
        """Whether the remediator saw the service good again."""
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
    """The first signal of that name: about that service where one is given, else about a victim or about clients.

    Args:
      victims: services that were hit; empty in a control arm, where a signal about any service counts.
      known: names that exist; empty where nothing is known of them.
      services: services that exist; another one that a signal was about does so too.
      after: what was done, for the message.

    Raises BadScenario for a name or a service that does not exist, NotDetected with what was seen in its place,
    Inconclusive where it was seen of other services alone: neither that it came nor that it did not is then what was asked.
    """
    found = [s for s in signals if s.kind == kind and str(s.name) == name and service in {None, s.service}]
    if service is None and victims and found:
        others = sorted({str(s.service) for s in found if s.service} - set(victims))
        found = [s for s in found if str(s.service) not in others]
        if not found:
            raise Inconclusive(
                f"{kind} {name} was seen of {', '.join(others)} alone, and {', '.join(victims)} was hit: say of which service "
                f"it is expected, trial.{kind}({name!r}, {others[0]!r})"
            )
    if found:
        return min(found, key=lambda signal: signal.after_s)
    Known(kind, known).require(name)
    Known("service", {*services.names, *(str(s.service) for s in signals)} if services.names else ()).require(
        service or None
    )
    about = f" of {service}" if service is not None else ""
    seen = ", ".join(map(str, signals)) or "nothing"
    raise NotDetected(f"{kind} {name}{about} was not seen after {after}; seen was {seen}")
