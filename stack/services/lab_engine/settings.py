"""The settings from environment variables, checked before anything starts. Opens no socket and no file."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab_engine import profiles
from lab_engine.profiles import PROFILES, Profile
from lab_engine.values import InvalidValueError, require

if TYPE_CHECKING:
    from collections.abc import Mapping

SHAPING = {"LAB_FIRST_TOKEN_S": "first_token_s", "LAB_TOKEN_GAP_S": "token_gap_s", "LAB_TOKENS_PER_S": "tokens_per_s"}
LIMITS = {
    "LAB_SLOTS": "slots",
    "LAB_BATCH_TOKENS": "batch_tokens",
    "LAB_MAX_MODEL_TOKENS": "max_model_tokens",
    "LAB_KV_BLOCKS": "blocks",
}


class BadSettingError(ValueError):
    """An environment variable that cannot be used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    host: str
    port: int
    admin_port: int
    model: str
    profile: Profile
    queue_max: int  # requests that may wait; more are refused with 503
    load_s: float  # how long the model takes to load after the start
    state_dir: str  # a folder that outlives the process, for faults that strike at the next start; empty without
    drain_s: float  # how long SIGTERM lets streams go on
    seed: int


class Environment:
    """Numbers from environment variables; a wrong one raises one error that names variable, bound and value."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        text = self.variables.get(name)
        if text is None:
            return default
        try:
            value = int(text)
        except ValueError:
            raise BadSettingError(f"{name} must be a whole number, got {text!r}") from None
        return int(self._inside(name, value, least, most))

    def number(self, name: str, default: float, least: float, most: float) -> float:
        text = self.variables.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            raise BadSettingError(f"{name} must be a number, got {text!r}") from None
        return self._inside(name, value, least, most)

    def _inside(self, name: str, value: float, least: float, most: float) -> float:
        try:
            require(name, value, at_least=least, at_most=most)
        except InvalidValueError as error:
            raise BadSettingError(str(error)) from None
        return value


def from_environment(variables: Mapping[str, str]) -> Settings:
    read = Environment(variables)
    port = read.whole("LAB_PORT", 8080, 1, 65535)
    model = variables.get("LAB_MODEL", "smollm2:135m").strip()
    if not model:
        raise BadSettingError("LAB_MODEL is empty: give the name under which callers ask for the model, or unset it")
    profile = _profile(read)
    settings = Settings(
        host=variables.get("LAB_HOST") or "127.0.0.1",
        port=port,
        admin_port=read.whole("LAB_ADMIN_PORT", min(port + 1, 65535), 1, 65535),
        model=model,
        profile=profile,
        queue_max=read.whole("LAB_QUEUE_MAX", 4096, 0, 100_000),
        load_s=read.number("LAB_LOAD_S", profile.load_s, 0, 3600),
        state_dir=_folder(read),
        drain_s=read.number("LAB_DRAIN_S", 1.0, 0, 600),
        seed=read.whole("LAB_SEED", 0, 0, 2**63),
    )
    if settings.admin_port == settings.port:
        raise BadSettingError(
            f"LAB_ADMIN_PORT and LAB_PORT are both {port}: faults need a port that callers cannot reach"
        )
    return settings


def _folder(read: Environment) -> str:
    folder = read.variables.get("LAB_STATE_DIR", "")
    if folder and not os.access(folder, os.W_OK | os.X_OK):
        raise BadSettingError(f"LAB_STATE_DIR {folder!r} is no folder that can be written to: create it or unset it")
    return folder


def _profile(read: Environment) -> Profile:
    name = read.variables.get("LAB_PROFILE", "fast")
    if name not in PROFILES:
        raise BadSettingError(f"LAB_PROFILE {name!r} is not known; there are {', '.join(sorted(PROFILES))}")
    profile = PROFILES[name]
    shape = {
        field: read.number(variable, 0.0, 1e-6, 1e6)
        for variable, field in SHAPING.items()
        if variable in read.variables
    }
    if shape and name != "fast":
        given = ", ".join(sorted(set(SHAPING) & set(read.variables)))
        raise BadSettingError(f"{given}: only LAB_PROFILE=fast is shaped by it, and the profile is {name!r}: unset one")
    if shape:
        profile = profiles.fast(**shape)
    changed = {
        field: read.whole(variable, 1, 1, 10**9) for variable, field in LIMITS.items() if variable in read.variables
    }
    jitter = read.number("LAB_JITTER", 0.0, 0, 0.5)
    try:
        return replace(profile, limits=replace(profile.limits, jitter=jitter, **changed))
    except InvalidValueError as error:
        given = ", ".join(sorted(set(LIMITS) & set(read.variables)))
        raise BadSettingError(f"{given}: {error}") from error
