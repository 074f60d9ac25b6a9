"""Combined effects of all faults in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab_engine.answers import Corruption


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """The changes to the machine that faults can declare."""

    hung: bool = False
    slowdown: float = 1.0
    withheld_ratio: float = 0.0  # of the KV blocks
    neighbour_share: float = 0.0  # of the GPU's time
    memory_taken: bool = False  # no device memory left for a model
    on_cpu: bool = False
    clock_ratio: float = 1.0
    xid: int = 0
    gpu_lost: bool = False  # the driver can no longer read from it
    erring: bool = False  # the process lives and answers every request with 500
    corruption: Corruption | None = None
