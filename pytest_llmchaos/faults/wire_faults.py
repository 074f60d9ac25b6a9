"""Base of faults on the wire, which a service's fault agent performs.

The agent's counts prove a fault: how many requests met it and how many it hit. A
connection from outside proves its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, ClassVar, Self

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.leases import LEASE_S, longer_lease_s
from pytest_llmchaos.faults.option_checks import check_number, check_whole
from pytest_llmchaos.faults.wire_match import Match
from pytest_llmchaos.model import HIT, MET, OWN_REFUSED, UNREAD, CanProxy, FaultCounts, Fidelity, Lifetime, Proof, Undo

if TYPE_CHECKING:
    from pytest_llmchaos.model import LeasedFaultState

# A fault on some of the requests needs some of them: at 2 requests per second and a
# share of 0.3, one in 1,300 injections hits none within this time.
PROOF_WITHIN_S = 10.0
LONGEST_S = 3600.0  # of delays and pauses, as in stack/services/fault_agent
MOST_TOKENS = 1_000_000
# The way out where requests cannot be read, for messages.
UNREADABLE_WAY = (
    "choose a fault of connections (latency, bandwidth, black_hole, reset, reject), or a service behind the end of TLS"
)

WireOption = str | int | float | tuple[tuple[str, str | bool], ...]


@dataclass(frozen=True, kw_only=True)
class WireFault:
    """Base of faults that the fault agent performs until the revert.

    Attributes:
        counts: Word for what the agent counts: `requests` or `connections`.
        further_tokens: Tokens that must follow `after_tokens` for a hit.
        options: Options as the agent takes them. `match` is a tuple of conditions.
        lease_s: Seconds after which the agent ends the fault by itself.
        seed: Seed of the agent's decisions, drawn when the trial is planned.
    """

    kind: ClassVar[str]
    expects: ClassVar[str]
    counts: ClassVar[str] = "requests"
    further_tokens: ClassVar[int] = 0
    needs: ClassVar[frozenset[str]] = frozenset({"proxy"})
    lifetime: ClassVar[Lifetime] = "passing"
    fidelity: ClassVar[Fidelity] = "proxy"
    options: tuple[tuple[str, WireOption], ...] = ()
    lease_s: float = LEASE_S
    seed: int = 0

    @property
    def agent_kind(self) -> str:
        """The agent's name for it."""
        return self.kind

    @property
    def reads_http(self) -> bool:
        return self.counts == "requests"

    @property
    def proof_within_s(self) -> float:
        return PROOF_WITHIN_S

    @property
    def least_tokens(self) -> int:
        """Fewest tokens of an answer that it can hit, 0 for any answer.

        The end of an answer is an event too, at which most of these faults can act.
        """
        after_tokens = dict(self.options).get("after_tokens")
        return after_tokens + self.further_tokens if isinstance(after_tokens, int) else 0

    @property
    def match(self) -> Mapping[str, str | bool]:
        """Conditions of the requests that it may hit. Empty for every POST."""
        found = dict(self.options).get("match", ())
        return dict(found) if isinstance(found, tuple) else {}

    @property
    def looks_whole(self) -> bool:
        """True if its short answers end as whole ones do."""
        return False

    @property
    def strength(self) -> Mapping[str, object]:
        return {name: _shown(value) for name, value in self.options}

    def with_lease(self, for_s: float, name: str) -> Self:
        return replace(self, lease_s=longer_lease_s(self.lease_s, for_s, name, "the fault agent"))

    def seeded(self, rng: Random) -> Self:
        return replace(self, seed=rng.getrandbits(32))

    def inject(self, runtime: CanProxy, victim: str) -> None:
        options = {name: dict(value) if isinstance(value, tuple) else value for name, value in self.options}
        runtime.wire_start(victim, self.agent_kind, lease_s=self.lease_s, seed=self.seed, **options)

    def undo(self, victim: str) -> Undo:
        return Undo(op="wire_end", service=victim, args={"kind": self.agent_kind})

    def observed(self, runtime: CanProxy, victim: str, since_unix_s: float) -> Proof | None:
        report = runtime.wire_faults(victim)
        fault = report.in_force(self.agent_kind) if report else None
        if fault is None or fault.started_unix_s < since_unix_s or not _done(fault):
            return None
        counts = self._counts_of(fault)
        witness = f"the fault agent reports {self.agent_kind} {fault.id} in force, {counts}"
        return Proof(step="injected", witness=witness, at_unix_s=fault.started_unix_s, counts=counts)

    def counted(self, runtime: CanProxy, victim: str) -> str:
        """Return in words what the agent counted so far, for an error."""
        report = runtime.wire_faults(victim)
        if report is None:
            return "the fault agent does not answer"
        fault = report.in_force(self.agent_kind)
        if fault is None:
            return f"the fault agent lists no {self.agent_kind} in force"
        met = fault.counters.get(MET, 0)
        if unread := fault.counters.get(UNREAD, 0):
            return (
                f"{met:g} {self.counts} met it, and {unread:g} connections carried no HTTP/1.1: the service expects TLS or "
                "HTTP/2 there; choose a fault of connections"
            )
        if self.counts == "requests" and not met:
            way = f"raise the rate, or check match and that {victim} gets HTTP/1.1 without TLS"
        elif self.counts == "requests":
            way = "raise the rate, or check match and the fault's options"
        else:
            way = "raise the rate"
        return f"{met:g} {self.counts} met it, and it hit {_done(fault):g} of them ({way})"

    def ended_early(self, runtime: CanProxy, victim: str) -> bool:
        """True if the agent no longer lists it in force, for whatever reason."""
        report = runtime.wire_faults(victim)
        return report is not None and report.in_force(self.agent_kind) is None

    def healed(self, runtime: CanProxy, victim: str, since_unix_s: float) -> Proof | None:  # noqa: ARG002 - the protocol's
        report = runtime.wire_faults(victim)
        if report is None or report.in_force(self.agent_kind):
            return None
        opened = runtime.wire_open(victim)
        if opened is None:
            return None
        ended = report.newest(self.agent_kind)
        counts = None if ended is None else self._counts_of(ended)
        what = f"no {self.agent_kind}" if ended is None else f"{self.agent_kind} {ended.id} ended, {counts}"
        witness = f"the fault agent lists {what}; {opened}"
        return Proof(step="healed", witness=witness, at_unix_s=report.at_unix_s, counts=counts)

    def _counts_of(self, fault: LeasedFaultState) -> FaultCounts:
        counters = {MET: 0.0, HIT: 0.0, **fault.counters}
        return FaultCounts(counters=counters, unit=self.counts, first_hit_after_s=fault.hit_after_s)


def _done(fault: LeasedFaultState) -> float:
    """Return how often the fault was really done.

    While a service's port is closed, the kernel refuses connections uncounted. The
    agent then counts one of its own.
    """
    return fault.counters.get(HIT, 0) + fault.counters.get(OWN_REFUSED, 0)


def _shown(value: WireOption) -> object:
    """Return an option as users write it."""
    return str(Match(conditions=value)) if isinstance(value, tuple) else value


def selection(kind: str, share: object, match: object = None) -> tuple[tuple[str, WireOption], ...]:
    """Return the options that select requests.

    Args:
        kind: Kind of the fault, for the message.
        share: Share of the matching requests that is hit, above 0, at most 1.
        match: The requests that may be hit, None for every POST.

    Raises:
        BadScenario: One of them is out of bounds.
    """
    part = check_number(f"{kind}(share=...)", share, above=0, at_most=1)
    if match is None:
        return (("share", part),)
    if not isinstance(match, Match):
        raise BadScenario(f"faults.{kind}(match=...) must be faults.match(path='/v1/*') or the like, got {match!r}")
    return (("share", part), ("match", match.conditions))


def check_tokens(kind: str, after_tokens: object) -> int:
    """Return the tokens that pass before a fault, if it is a whole number in bounds.

    Raises:
        BadScenario: It is not.
    """
    return check_whole(f"{kind}(after_tokens=...)", after_tokens, at_least=0, at_most=MOST_TOKENS)


def given(**options: str | float | None) -> tuple[tuple[str, str | float], ...]:
    """Return the options that are not None."""
    return tuple((name, value) for name, value in options.items() if value is not None)
