"""What can be made to go wrong, one frozen value a kind, checked at birth. Breaks nothing itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from lab_engine.values import InvalidValueError, require, require_one_of, require_whole

LONGEST_LEASE_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Hang:
    """No step runs any more, while `/health` goes on answering 200."""

    kind: ClassVar[str] = "hang"


@dataclass(frozen=True, kw_only=True, slots=True)
class Saturation:
    """A neighbour takes a share of the GPU's time: every step is stretched by 1 / (1 - share)."""

    kind: ClassVar[str] = "gpu_saturation"
    share: float = 0.8

    def __post_init__(self) -> None:
        require("share", self.share, above=0, at_most=0.99)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exhaustion:
    """Memory runs out: of the KV cache (preemption, queueing) or of the device (the engine dies of out-of-memory).

    `then` and `linger_s` are for the device: the process exits after lingering, or the engine loads anew once the
    lease, and with it the neighbour that holds the memory, has gone.
    """

    kind: ClassVar[str] = "gpu_exhaustion"
    what: str = "kv_cache"
    ratio: float = 0.95  # of the KV blocks
    then: str = "die"
    linger_s: float = 0.5

    def __post_init__(self) -> None:
        require_one_of("what", self.what, ("kv_cache", "device_memory"))
        require_one_of("then", self.then, ("die", "recover"))
        require("ratio", self.ratio, above=0, at_most=1)
        require("linger_s", self.linger_s, at_most=60)


@dataclass(frozen=True, kw_only=True, slots=True)
class Xid:
    """The driver reports an error. The engine survives it, dies of it, or stays up and answers every request with 500."""

    kind: ClassVar[str] = "xid"
    code: int = 79
    engine: str = "dies"
    linger_s: float = 0.5

    def __post_init__(self) -> None:
        require_whole("code", self.code, at_least=1, at_most=999)
        require_one_of("engine", self.engine, ("survives", "dies", "errors"))
        require("linger_s", self.linger_s, at_most=60)


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuFallback:
    """The container lost its GPU and computes on: every answer is right, and late."""

    kind: ClassVar[str] = "cpu_fallback"
    slowdown: float = 20.0

    def __post_init__(self) -> None:
        require("slowdown", self.slowdown, above=1, at_most=1000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Thermal:
    """The GPU is hot and lowers its clocks."""

    kind: ClassVar[str] = "thermal_throttling"
    clock_ratio: float = 0.5

    def __post_init__(self) -> None:
        require("clock_ratio", self.clock_ratio, above=0.05, at_most=0.99)


@dataclass(frozen=True, kw_only=True, slots=True)
class Corruption:
    """Answers are wrong though fast and complete: `garbage` is what NaN logits give, `swapped` another prompt's answer."""

    kind: ClassVar[str] = "corrupted_output"
    how: str = "garbage"
    share: float = 1.0  # of the requests that arrive

    def __post_init__(self) -> None:
        require_one_of("how", self.how, ("garbage", "wrong", "swapped"))
        require("share", self.share, above=0, at_most=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowLoad:
    """Loading the model takes longer: at once (the model is dropped and loaded anew), or at starts within the lease."""

    kind: ClassVar[str] = "slow_load"
    load_s: float = 60.0
    when: str = "now"

    def __post_init__(self) -> None:
        require("load_s", self.load_s, above=0, at_most=LONGEST_LEASE_S)
        require_one_of("when", self.when, ("now", "next_start"))


@dataclass(frozen=True, kw_only=True, slots=True)
class CrashOnBoot:
    """Every start within the lease ends with exit status 1 before the port is open."""

    kind: ClassVar[str] = "crash_on_boot"


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryLeak:
    """The process really grows, up to a bound; the memory is freed when the fault ends."""

    kind: ClassVar[str] = "memory_leak"
    bytes_per_s: int = 10 << 20
    at_most_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        require_whole("bytes_per_s", self.bytes_per_s, at_least=1, at_most=1 << 30)
        require_whole("at_most_bytes", self.at_most_bytes, at_least=1, at_most=16 << 30)


Fault = (
    Hang | Saturation | Exhaustion | Xid | CpuFallback | Thermal | Corruption | SlowLoad | CrashOnBoot | MemoryLeak
)  # fmt: skip
KINDS: dict[str, type[Fault]] = {
    kind.kind: kind
    for kind in (Hang, Saturation, Exhaustion, Xid, CpuFallback, Thermal, Corruption, SlowLoad, CrashOnBoot, MemoryLeak)
}


def parse(data: object) -> tuple[Fault, float]:
    """The fault and its lease in seconds from a decoded JSON body. Raises InvalidValueError."""
    if not isinstance(data, dict):
        raise InvalidValueError(f"a fault must be a JSON object, got {data!r}")
    given: dict[str, Any] = dict(data)
    name = given.pop("kind", None)
    if not isinstance(name, str) or name not in KINDS:
        raise InvalidValueError(f"kind must be one of {', '.join(sorted(KINDS))}, got {name!r}")
    if "lease_s" not in given:
        raise InvalidValueError("lease_s is missing: every fault says after how many seconds it ends by itself")
    lease_s = given.pop("lease_s")
    require("lease_s", lease_s, above=0, at_most=LONGEST_LEASE_S)
    known = [field.name for field in fields(KINDS[name])]
    for unknown in sorted(set(given) - set(known)):
        takes = f"takes {', '.join(known)}" if known else "takes no options"
        raise InvalidValueError(f"{name} does not know {unknown!r}; it {takes}")
    return KINDS[name](**given), float(lease_s)


def options(fault: Fault) -> dict[str, Any]:
    return asdict(fault)
