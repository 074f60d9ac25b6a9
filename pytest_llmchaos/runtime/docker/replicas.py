"""Containers of scaled services, by number, and the one that faults hit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import NoVictim
from pytest_llmchaos.model import REPLICA, RuntimeEvent, Undo, replica_name
from pytest_llmchaos.runtime.docker.events import NUMBER, Heard, number_of

if TYPE_CHECKING:
    from docker.models.containers import Container


class Replicas:
    """Chooses one container of each service.

    Proofs, states and the revert must be about the container that was hit. A
    replacement has its number. Another container is never chosen, even if it is the
    only one left.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._counts: Mapping[str, int] = {}

    def count(self, names: Iterable[str]) -> None:
        """Remember how many containers each service has, by the containers' names."""
        self._counts = Counter(name.partition("#")[0] for name in names)

    def least(self, service: str) -> int:
        """Number of containers that the service had when the run began."""
        return self._counts.get(service, 1)

    def choose(self, service: str, containers: Sequence[Container]) -> Container | None:
        """Return the chosen container of a service, the lowest number by default."""
        by_number = _by_number(containers)
        if not by_number:
            return None
        return by_number.get(self._numbers.setdefault(service, min(by_number)))

    def aim(self, service: str, containers: Sequence[Container], draw: Random, number: int | None) -> int | None:
        """Choose another container from now on.

        Numbers are drawn in their order, so that the order of creation changes no draw.

        Args:
            service: Name of the service.
            containers: Its containers.
            draw: Random generator of the trial.
            number: The number to choose. None for one that is drawn.

        Returns:
            The number, or None if the service has one container.

        Raises:
            NoVictim: No container has the number.
        """
        numbers = sorted(_by_number(containers))
        if number is not None and number not in numbers:
            there = ", ".join(replica_name(service, one) for one in numbers) or "none"
            raise NoVictim(
                f"target {replica_name(service, number)!r} matches no container that may be hit; available: {there}"
            )
        if len(numbers) > 1:
            self._numbers[service] = draw.choice(numbers) if number is None else number
        return self._numbers.get(service) if self.is_scaled(service) or len(numbers) > 1 else None

    def aim_back(self, undo: Undo) -> None:
        """Choose the container that a fault hit, by its undo."""
        number = undo.args.get(REPLICA)
        if isinstance(number, int):
            self._numbers[undo.service] = number

    def is_scaled(self, service: str) -> bool:
        """True if the service had several containers when the run began."""
        return self.least(service) > 1

    def name(self, service: str) -> str:
        """Return the chosen container, such as `web#1`. Empty if there is only one."""
        is_known = self.is_scaled(service) and service in self._numbers
        return replica_name(service, self._numbers[service]) if is_known else ""

    def event(self, heard: Heard) -> RuntimeEvent:
        """Rename an event of a container other than the chosen one: `service#number`.

        One of the chosen container names it in its attributes.
        """
        event, number = heard.event, number_of(heard.number)
        is_sibling = number != self._numbers.get(event.service, number)
        if is_sibling:
            return replace(event, service=replica_name(event.service, number))
        name = self.name(event.service)
        return replace(event, attributes={**event.attributes, "replica": name}) if name else event


def key_of(undo: Undo) -> str:
    """Return the name of the container that an undo reverts."""
    number = undo.args.get(REPLICA)
    return replica_name(undo.service, number if isinstance(number, int) else None)


def undo_of(op: str, name: str) -> Undo:
    """Return the undo of one container, by its name."""
    service, _, number = name.partition("#")
    return Undo(op=op, service=service, args={REPLICA: int(number)} if number else {})


def _by_number(containers: Sequence[Container]) -> dict[int, Container]:
    """Return containers by number. Of two, the newest, which Docker lists first."""
    return {number_of(container.labels.get(NUMBER, "")): container for container in reversed(containers)}
