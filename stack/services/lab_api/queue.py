"""The requests that wait for a place, and whose turn it is."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

from lab_api.affinity import Prefix
from lab_api.priority import Priority

_Place = TypeVar("_Place")
# Ten times 0.1 is slightly less than 1.
_WHOLE = 1 - 1e-9
_OWED_MAX = 2.0  # waiters that no free replica suits save no more places


class Waiter(Generic[_Place]):
    """One request in the queue."""

    __slots__ = ("excluding", "future", "is_admitted", "prefix", "priority")

    def __init__(
        self,
        excluding: Collection[str],
        priority: Priority,
        prefix: Prefix | None = None,
        *,
        is_admitted: bool = False,
    ) -> None:
        """A waiter.

        Args:
            excluding: replicas that it does not accept.
            priority: its class.
            prefix: start of its prompt, None if that chooses no replica.
            is_admitted: it had a place before, as retries and migrations had.
        """
        self.future: asyncio.Future[_Place] = asyncio.get_running_loop().create_future()
        self.excluding = excluding
        self.is_admitted = is_admitted
        self.priority = priority
        self.prefix = prefix


class Queue(Generic[_Place]):
    """Waiters by class, each class in the order of arrival.

    Those that were admitted before come first in their class, and are never dropped.
    Higher classes are served first. A lower class with waiters still gets its share of
    the places, so that none starves.
    """

    def __init__(self, share: float) -> None:
        """An empty queue.

        Args:
            share: Share of each class, 0-1, of the places and of a full queue.
        """
        self._share = share
        # Of each class, those that were admitted before and the others.
        self._admitted: dict[Priority, OrderedDict[Waiter[_Place], None]] = {one: OrderedDict() for one in Priority}
        self._new: dict[Priority, OrderedDict[Waiter[_Place], None]] = {one: OrderedDict() for one in Priority}
        self._owed = dict.fromkeys(Priority, 0.0)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def depth(self, priority: Priority) -> int:
        """Waiters of this class."""
        return len(self._admitted[priority]) + len(self._new[priority])

    def before(self, priority: Priority) -> int:
        """Waiters of this class and of higher ones."""
        return sum(self.depth(one) for one in Priority if one.rank <= priority.rank)

    def add(self, waiter: Waiter[_Place]) -> None:
        """Add a waiter behind those of its class, or of those admitted before."""
        self._line(waiter)[waiter] = None
        self._count += 1

    def remove(self, waiter: Waiter[_Place]) -> None:
        """Remove a waiter. No effect if it has left.

        What its class is owed stays, or a waiter who is alone in its class and leaves
        in time would never be served.
        """
        waiters = self._line(waiter)
        if waiter in waiters:
            del waiters[waiter]
            self._count -= 1

    def served(self, waiter: Waiter[_Place]) -> None:
        """Remove a waiter that got a place, which counts for the shares."""
        for priority in Priority:
            if self.depth(priority):
                self._owed[priority] = min(_OWED_MAX, self._owed[priority] + self._share)
        self._owed[waiter.priority] = max(0.0, self._owed[waiter.priority] - 1)
        self.remove(waiter)
        if not self.depth(waiter.priority):
            self._owed[waiter.priority] = 0.0

    def in_turn(self) -> Iterator[Waiter[_Place]]:
        """The waiters, in the order in which a free place is offered to them."""
        owed = [one for one in Priority if self._owed[one] >= _WHOLE]
        for priority in (*owed, *(one for one in Priority if one not in owed)):
            yield from self._admitted[priority]
            yield from self._new[priority]

    def to_drop_for(self, priority: Priority, queue_max: int) -> Waiter[_Place] | None:
        """The youngest waiter of the lowest class, to make room for a new one.

        None if no lower class has a waiter that was not admitted before. A class keeps
        its share of the queue, rounded to whole waiters. A new waiter within that share
        displaces one of any class beyond its own.
        """
        kept = round(self._share * queue_max)
        within = self.depth(priority) < kept
        for one in reversed(Priority):
            if (within or one.rank > priority.rank) and self.depth(one) > kept and self._new[one]:
                return next(reversed(self._new[one]))
        return None

    def _line(self, waiter: Waiter[_Place]) -> OrderedDict[Waiter[_Place], None]:
        return (self._admitted if waiter.is_admitted else self._new)[waiter.priority]
