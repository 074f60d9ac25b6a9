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

    __slots__ = ("excluding", "future", "prefix", "priority")

    def __init__(self, excluding: Collection[str], priority: Priority, prefix: Prefix | None = None) -> None:
        self.future: asyncio.Future[_Place] = asyncio.get_running_loop().create_future()
        self.excluding = excluding
        self.priority = priority
        self.prefix = prefix


class Queue(Generic[_Place]):
    """Waiters by class, each class in the order of arrival.

    Higher classes are served first. A lower class with waiters still gets its share of
    the places, so that none starves.
    """

    def __init__(self, share: float) -> None:
        """An empty queue.

        Args:
            share: Share of each class, 0-1, of the places and of a full queue.
        """
        self._share = share
        self._classes: dict[Priority, OrderedDict[Waiter[_Place], None]] = {one: OrderedDict() for one in Priority}
        self._owed = dict.fromkeys(Priority, 0.0)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def depth(self, priority: Priority) -> int:
        """Waiters of this class."""
        return len(self._classes[priority])

    def before(self, priority: Priority) -> int:
        """Waiters of this class and of higher ones."""
        return sum(len(waiters) for one, waiters in self._classes.items() if one.rank <= priority.rank)

    def add(self, waiter: Waiter[_Place], *, first: bool) -> None:
        """Add a waiter at the end of its class, or at its head."""
        waiters = self._classes[waiter.priority]
        waiters[waiter] = None
        waiters.move_to_end(waiter, last=not first)
        self._count += 1

    def remove(self, waiter: Waiter[_Place]) -> None:
        """Remove a waiter. No effect if it has left."""
        waiters = self._classes[waiter.priority]
        if waiter not in waiters:
            return
        del waiters[waiter]
        self._count -= 1
        if not waiters:
            self._owed[waiter.priority] = 0.0

    def served(self, waiter: Waiter[_Place]) -> None:
        """Remove a waiter that got a place, which counts for the shares."""
        for priority, waiters in self._classes.items():
            if waiters:
                self._owed[priority] = min(_OWED_MAX, self._owed[priority] + self._share)
        self._owed[waiter.priority] = max(0.0, self._owed[waiter.priority] - 1)
        self.remove(waiter)

    def in_turn(self) -> Iterator[Waiter[_Place]]:
        """The waiters, in the order in which a free place is offered to them."""
        owed = [one for one in Priority if self._owed[one] >= _WHOLE]
        for priority in (*owed, *(one for one in Priority if one not in owed)):
            yield from self._classes[priority]

    def to_drop_for(self, priority: Priority, queue_max: int) -> Waiter[_Place] | None:
        """The youngest waiter of the lowest class, to make room for a new one.

        None if no lower class has a waiter. A class keeps its share of the queue, and
        a new waiter within that share displaces one of any class beyond its own.
        """
        kept = int(self._share * queue_max)
        within = self.depth(priority) < kept
        for one in reversed(Priority):
            if (within or one.rank > priority.rank) and self.depth(one) > kept:
                return next(reversed(self._classes[one]))
        return None
