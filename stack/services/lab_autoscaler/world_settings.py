"""Settings of the simulated world."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from lab_common.values import InvalidValueError, require, require_one_of, require_whole
from lab_engine import profiles
from lab_engine.profiles import PROFILES, Profile

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHAPE = ("first_token_s", "token_gap_s", "tokens_per_s")
_LIMITS = ("slots", "batch_tokens", "max_model_tokens", "blocks")
_LONGEST_S = 86_400.0
_MOST_REPLICAS = 1000
_STALE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """Settings of the engines, the gateway, the fleet and the scraper.

    The defaults are the lab's with its simulated engine (`stack/compose.sim.yaml`) and
    those of the autoscaler's sidecar (`settings.py`). The targets are MLPerf
    Inference's for the server scenario of llama3.1-8b (loadgen/mlperf.conf).
    """

    # Engines. None is the profile's own value.
    profile: str = "fast"
    first_token_s: float | None = None  # these three shape the profile `fast` alone
    token_gap_s: float | None = None
    tokens_per_s: float | None = None
    slots: int | None = None
    batch_tokens: int | None = None
    max_model_tokens: int | None = None
    blocks: int | None = None
    jitter: float = 0.0
    shared_prompt_tokens: int = 0  # start of every prompt, which a warm prefix cache holds

    # Gateway, with the names and defaults of its LAB_ variables.
    concurrency: int = 8
    queue_max: int = 64
    queue_timeout_s: float = 5.0
    slow_start_s: float = 5.0
    probe_s: float = 0.5
    eject_failures: int = 3  # refused connections after which a dead replica is left alone
    retries: int = 0  # further attempts of a request without its first token
    at_zero: str = "refuse"  # without a ready replica: refuse at once, as the lab's gateway does, or queue

    # Fleet.
    minimum: int = 0  # whatever a policy wants. Its own minimum is in the policy
    maximum: int = 4
    initial: int = 2
    load_s: float | None = None
    warmup_s: float = 1.0
    spread: float = 0.2  # standard deviation of the logarithm of a start's duration
    drain_s: float = 30.0  # Kubernetes' default terminationGracePeriodSeconds
    repair_s: float | None = 5.0  # from a death to the start of its replacement. None: never

    # Autoscaler and its view.
    sync_s: float = 15.0  # the HPA's default sync period. The sidecar's is 5 s, for short trials
    first_sync_s: float | None = None  # time of the first. None: after one period
    scrape_s: float = 1.0
    scrape_delay_s: float = 0.0
    window_s: float = 15.0  # of rates and attained shares
    stale_s: float | None = None  # oldest scrape that counts. None: 5 s or three intervals, and the delay

    # Judgement.
    first_token_target_s: float = 2.0
    token_gap_target_s: float = 0.1  # mean gap between the tokens of an answer
    flap_window_s: float = 300.0  # a reversal of direction within it is a flap

    def __post_init__(self) -> None:
        require_one_of("profile", self.profile, tuple(sorted(PROFILES)))
        require_one_of("at_zero", self.at_zero, ("refuse", "queue"))
        shape = [name for name in _SHAPE if getattr(self, name) is not None]
        if shape and self.profile != "fast":
            raise InvalidValueError(f"{', '.join(shape)} shape the profile fast alone, got {self.profile!r}")
        for name in shape:
            require(name, getattr(self, name), at_least=1e-6, at_most=1e6)
        for name in _LIMITS:
            if getattr(self, name) is not None:
                require_whole(name, getattr(self, name), at_least=1, at_most=10**7)
        self._check_times()
        self._check_counts()
        self.engine()

    def _check_times(self) -> None:
        for name in ("queue_timeout_s", "sync_s", "scrape_s", "window_s", "first_token_target_s", "token_gap_target_s"):
            require(name, getattr(self, name), at_least=0.001, at_most=_LONGEST_S)
        require("probe_s", self.probe_s, at_least=0.01, at_most=60)
        if self.stale_s is not None and self.stale_s < self.scrape_s + self.scrape_delay_s:
            raise InvalidValueError(
                f"stale_s must be at least scrape_s + scrape_delay_s, {self.scrape_s + self.scrape_delay_s:g}, "
                f"or every scrape is too old, got {self.stale_s:g}"
            )
        for name in ("slow_start_s", "warmup_s", "drain_s", "scrape_delay_s", "flap_window_s"):
            require(name, getattr(self, name), at_most=_LONGEST_S)
        for name, least in (("load_s", 0.0), ("first_sync_s", 0.0), ("repair_s", 0.1), ("stale_s", 0.001)):
            if getattr(self, name) is not None:
                require(name, getattr(self, name), at_least=least, at_most=_LONGEST_S)
        require("spread", self.spread, at_most=2)

    def _check_counts(self) -> None:
        require_whole("shared_prompt_tokens", self.shared_prompt_tokens, at_least=0, at_most=10**7)
        require_whole("concurrency", self.concurrency, at_least=1, at_most=10_000)
        require_whole("queue_max", self.queue_max, at_least=0, at_most=10**6)
        require_whole("eject_failures", self.eject_failures, at_least=1, at_most=10**6)
        require_whole("retries", self.retries, at_least=0, at_most=10)
        require_whole("maximum", self.maximum, at_least=1, at_most=_MOST_REPLICAS)
        require_whole("minimum", self.minimum, at_least=0, at_most=self.maximum)
        require_whole("initial", self.initial, at_least=self.minimum, at_most=self.maximum)

    def engine(self) -> Profile:
        """The profile of one replica, with these limits.

        Raises:
            InvalidValueError: the limits do not fit together.
        """
        shape = {name: value for name in _SHAPE if (value := getattr(self, name)) is not None}
        limits = {name: value for name in _LIMITS if (value := getattr(self, name)) is not None}
        profile = profiles.fast(**shape) if shape else PROFILES[self.profile]
        return replace(profile, limits=replace(profile.limits, jitter=self.jitter, **limits))

    def load_of(self, profile: Profile) -> float:
        """Seconds to load the model, without the spread."""
        return profile.load_s if self.load_s is None else self.load_s

    @property
    def fresh_s(self) -> float:
        """Age up to which a scrape counts, in seconds."""
        least_s = max(_STALE_S, 3 * self.scrape_s) + self.scrape_delay_s
        return least_s if self.stale_s is None else self.stale_s


def settings_from(given: Mapping[str, object]) -> WorldSettings:
    """The settings of a JSON object. Absent names have their defaults.

    Raises:
        InvalidValueError: an unknown name or a value out of its bounds.
    """
    names = [field.name for field in fields(WorldSettings)]
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise InvalidValueError(f"world: expected names among {', '.join(names)}, got {', '.join(unknown)}")
    try:
        return WorldSettings(**given)  # type: ignore[arg-type]
    except InvalidValueError as error:
        raise InvalidValueError(f"world: {error}") from None
