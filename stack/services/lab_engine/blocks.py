"""KV cache of numbered, reference-counted blocks with a prefix cache."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class BlockPool:
    """Whole blocks of the cache.

    A released block keeps its content until it is needed again (least recently used
    first).
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.withheld = 0  # blocks that a fault has taken away, from 0 to `count`
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self._references = [0] * count
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        return max(0, len(self._free) - self.withheld)

    @property
    def used_ratio(self) -> float:
        """Share of blocks in use or taken away, 0-1.

        Unused cached blocks count as free, as in vLLM.
        """
        return 1 - self.free / self.count

    def lookup(self, hashes: Iterable[bytes]) -> list[int]:
        """Blocks of the longest cached run from the start."""
        found = []
        for digest in hashes:
            block = self._block_of.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def take(self, fresh: int, cached: Sequence[int] = ()) -> list[int] | None:
        """`cached` shared plus `fresh` empty blocks. None if there are too few."""
        revived = sum(1 for block in cached if self._references[block] == 0)
        if fresh + revived > self.free:
            return None
        for block in cached:
            if self._references[block] == 0:
                del self._free[block]
            self._references[block] += 1
        taken = list(cached)
        for _ in range(fresh):
            block, _nothing = self._free.popitem(last=False)
            old = self._hash_of.pop(block, None)
            if old is not None:
                del self._block_of[old]
            self._references[block] = 1
            taken.append(block)
        return taken

    def release(self, blocks: Sequence[int]) -> None:
        # Last block first: the tail of a prompt is the least likely to be reused.
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free[block] = None

    def publish(self, block: int, digest: bytes) -> None:
        """Offer a filled block to later requests. The first holder stays its holder."""
        if digest not in self._block_of and block not in self._hash_of:
            self._block_of[digest] = block
            self._hash_of[block] = digest

    def forget(self) -> None:
        """Drop the prefix cache, as a restarted engine does."""
        self._hash_of.clear()
        self._block_of.clear()
