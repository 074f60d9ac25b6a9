"""Settings of the simulated engine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab_common.addresses import loopback_of
from lab_common.settings import Section, number, parsed, text, whole
from lab_common.values import InvalidValueError
from lab_engine import profiles
from lab_engine.names import SERVERS
from lab_engine.profiles import PROFILES, Profile
from lab_engine.tools import MANNERS

if TYPE_CHECKING:
    from collections.abc import Mapping

SHAPING = {"first_token_s": "LAB_FIRST_TOKEN_S", "token_gap_s": "LAB_TOKEN_GAP_S", "tokens_per_s": "LAB_TOKENS_PER_S"}
LIMITS = {
    "slots": "LAB_SLOTS",
    "batch_tokens": "LAB_BATCH_TOKENS",
    "max_model_tokens": "LAB_MAX_MODEL_TOKENS",
    "blocks": "LAB_KV_BLOCKS",
}


def _folder(given: str) -> str:
    if not os.access(given, os.W_OK | os.X_OK):
        raise ValueError("a folder that can be written to")
    return given


@dataclass(frozen=True, kw_only=True)
class Environment(Section):
    """Values of the variables. The profile supplies the rest."""

    host: str = text("LAB_HOST", "127.0.0.1")
    port: int = whole("LAB_PORT", 8080, 1, 65535)
    admin_port: int | None = whole("LAB_ADMIN_PORT", None, 1, 65535)
    model: str = text("LAB_MODEL", "smollm2:135m", pattern=".+", expected="the name of the model in clients' requests")
    profile: str = text(
        "LAB_PROFILE", "fast", pattern="|".join(PROFILES), expected=f"one of {', '.join(sorted(PROFILES))}"
    )
    metrics: str = text(
        "LAB_METRICS", "vllm", pattern="|".join(map(re.escape, SERVERS)), expected=f"one of {', '.join(SERVERS)}"
    )
    first_token_s: float | None = number(SHAPING["first_token_s"], None, 1e-6, 1e6)
    token_gap_s: float | None = number(SHAPING["token_gap_s"], None, 1e-6, 1e6)
    tokens_per_s: float | None = number(SHAPING["tokens_per_s"], None, 1e-6, 1e6)
    slots: int | None = whole(LIMITS["slots"], None, 1, 10**9)
    batch_tokens: int | None = whole(LIMITS["batch_tokens"], None, 1, 10**9)
    max_model_tokens: int | None = whole(LIMITS["max_model_tokens"], None, 1, 10**9)
    blocks: int | None = whole(LIMITS["blocks"], None, 1, 10**9)
    jitter: float = number("LAB_JITTER", 0.0, 0, 0.5)
    queue_max: int = whole("LAB_QUEUE_MAX", 4096, 0, 100_000)
    load_s: float | None = number("LAB_LOAD_S", None, 0, 3600)
    state_dir: str = parsed("LAB_STATE_DIR", _folder, str)
    drain_s: float = number("LAB_DRAIN_S", 1.0, 0, 600)
    manner: str = text(
        "LAB_TOOL_MANNER", "disciplined", pattern="|".join(MANNERS), expected=f"one of {', '.join(MANNERS)}"
    )
    seed: int = whole("LAB_SEED", 0, 0, 2**63)

    def chosen_admin_port(self) -> int:
        return self.admin_port or min(self.port + 1, 65535)

    def chosen_profile(self) -> Profile:
        """The profile with these values.

        Raises:
            InvalidValueError: the limits do not fit together.
        """
        shape = {name: value for name in SHAPING if (value := getattr(self, name)) is not None}
        limits = {name: value for name in LIMITS if (value := getattr(self, name)) is not None}
        profile = profiles.fast(**shape) if shape else PROFILES[self.profile]
        return replace(profile, limits=replace(profile.limits, jitter=self.jitter, **limits))

    def conflicts(self) -> list[str]:
        problems = []
        if self.chosen_admin_port() == self.port:
            problems.append(
                f"LAB_ADMIN_PORT: expected a port that clients cannot reach, got {self.port}, which is also LAB_PORT"
            )
        shaping = self._given(SHAPING)
        if shaping and self.profile != "fast":
            problems.append(f"{shaping}: expected LAB_PROFILE=fast, the only one shaped by it, got {self.profile!r}")
        try:
            self.chosen_profile()
        except InvalidValueError as error:
            problems.append(f"{self._given(LIMITS)}: {error}")
        return problems

    def _given(self, names: Mapping[str, str]) -> str:
        return ", ".join(sorted(variable for name, variable in names.items() if getattr(self, name) is not None))


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings of the engine."""

    host: str
    port: int
    admin_host: str  # a loopback address, out of reach of every network
    admin_port: int
    model: str
    metrics: str  # the server whose names the metrics have
    profile: Profile
    queue_max: int  # requests that may wait. More are refused with 503
    load_s: float  # seconds to load the model after the start
    state_dir: str  # a folder that outlives the process, for faults of the next start. "": none
    drain_s: float  # seconds that SIGTERM lets streams go on
    manner: str  # how the model calls tools
    seed: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """The settings.

        Raises:
            SettingsError: one line for each wrong setting.
        """
        read = Environment.from_env(env)
        profile = read.chosen_profile()
        return cls(
            host=read.host,
            port=read.port,
            admin_host=loopback_of(read.host),
            admin_port=read.chosen_admin_port(),
            model=read.model,
            metrics=read.metrics,
            profile=profile,
            queue_max=read.queue_max,
            load_s=profile.load_s if read.load_s is None else read.load_s,
            state_dir=read.state_dir,
            drain_s=read.drain_s,
            manner=read.manner,
            seed=read.seed,
        )
