"""Fault agents in the way of services, from before a load until after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario, HealFailed, InvalidExperiment, NotReady
from pytest_llmchaos.faults.base import check_target, victims_of
from pytest_llmchaos.faults.wire_faults import UNREADABLE_WAY
from pytest_llmchaos.model import BeginsAtMoment, ReadsRequests
from pytest_llmchaos.runtime.abilities import grant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.model import Injection, Runtime


class Wiring:
    """The services of one runtime with a fault agent in their way."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._services: frozenset[str] = frozenset()
        self._readable: set[str] = set()

    def services_of(self, wire: object, may_hit: Sequence[str]) -> tuple[str, ...]:
        """Return the services of `lab.load(wire=...)`, sorted.

        Raises:
            BadScenario: it is not a list of names.
            NoVictim: a name matches no service of `may_hit`.
            Unsupported: the runtime has no fault agent.
        """
        if not isinstance(wire, list | tuple | set | frozenset):
            raise BadScenario(f"lab.load(wire=...) must be a list of services such as ['model-1'], got {wire!r}")
        if wire:
            grant(self._runtime, {"proxy"}, "lab.load(wire=...)")
        targets = [check_target("load(wire)", one) for one in wire]
        return tuple(sorted({name for target in targets for name in victims_of(target, may_hit)}))

    def arm(self, services: Sequence[str], read: Sequence[str] = ()) -> None:
        """Put a fault agent in the way of each service.

        Args:
            services: names of the services.
            read: those of them whose requests faults will have to read.

        Raises:
            NotReady: an agent cannot enter, or does not answer.
            InvalidExperiment: an agent cannot read the requests.
        """
        if services:
            self._services = frozenset(services)  # first, so that what entered before an error leaves again
            grant(self._runtime, {"proxy"}, "this load").wire_arm(services)
        for service in read:
            self._require_readable(service, "this load")

    def disarm(self) -> None:
        """Remove the fault agents. Raises HealFailed if one stays."""
        if not self._services:
            return
        try:
            grant(self._runtime, {"proxy"}, "this load").wire_disarm()
        except NotReady as error:
            raise HealFailed(
                f"a fault agent is still in the way of {', '.join(sorted(self._services))}: {error}; run `llmchaos heal`"
            ) from None
        finally:
            self._services = frozenset()
            self._readable.clear()

    def require(self, acts: Sequence[Injection], shown: str) -> None:
        """Check that agents stand where these acts need them.

        Args:
            acts: the planned injections.
            shown: the fault in words, for the message.

        Raises:
            InvalidExperiment: one is missing, or cannot read requests that a fault has
                to read.
            NotReady: one does not answer.
        """
        missing = sorted({_wire_of(act) for act in acts if "proxy" in act.fault.needs} - self._services)
        if missing:
            raise InvalidExperiment(
                f"{shown} needs a fault agent in the way of {', '.join(missing)} before the load starts: "
                f"add `@pytest.mark.llmchaos_wire({', '.join(map(repr, missing))})` to the test, or write lab.load(..., wire={missing})"
            )
        for act in acts:
            if "proxy" in act.fault.needs and isinstance(act.fault, ReadsRequests) and act.fault.reads_http:
                self._require_readable(_wire_of(act), shown)

    def _require_readable(self, service: str, shown: str) -> None:
        if service in self._readable:
            return
        protocols = grant(self._runtime, {"proxy"}, shown).wire_protocols(service)
        if protocols and all(protocol in ("TLS", "HTTP/2") for protocol in protocols.values()):
            ports = ", ".join(f"{protocol} on port {port}" for port, protocol in sorted(protocols.items()))
            raise InvalidExperiment(
                f"a fault of {shown} has to read requests of {service} as HTTP/1 without TLS, and {service} takes {ports}: "
                f"{UNREADABLE_WAY}"
            )
        self._readable.add(service)


def _wire_of(act: Injection) -> str:
    """The service whose fault agent an act needs."""
    on = act.fault.on if isinstance(act.fault, BeginsAtMoment) else ""
    return on or act.victim
