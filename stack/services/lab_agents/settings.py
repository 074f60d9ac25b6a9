"""Settings of the agents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lab_common.settings import Section, number, parsed, section, switch, text, whole

AGENTS = ("naive", "checkpointed", "durable")
# Bad behaviours, by the agents that can show them.
FLAWS = {
    "checkpoint_before_effect": ("naive",),
    "checkpoint_after_without_key": ("naive",),
    "repeats_model_calls": ("naive",),
    "ignores_budget": ("naive",),
    "retries_writes": AGENTS,
    "no_step_limit": AGENTS,
    "ignores_retry_after": AGENTS,
    "swallows_is_error": AGENTS,
    "hangs_on_dead_server": AGENTS,
    "claims_success": AGENTS,
    "loses_on_sigterm": AGENTS,
    "ignores_cancel": AGENTS,
    "no_key": AGENTS,
}


def _agent(given: str) -> str:
    if given not in AGENTS:
        raise ValueError(f"one of {', '.join(AGENTS)}")
    return given


def _flaws(given: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in given.split(",") if name.strip())
    if not names <= FLAWS.keys():
        raise ValueError(f"names separated by commas, of {', '.join(sorted(FLAWS))}")
    return names


def _folder(given: str) -> Path:
    if not Path(given).is_absolute():
        raise ValueError("an absolute path")
    return Path(given)


def _url(given: str) -> str:
    parts = urlsplit(given)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("http://HOST:PORT/PATH")
    return given.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class Budgets(Section):
    """Limits of one task. A task that exceeds one has failed."""

    max_steps: int = whole("LAB_MAX_STEPS", 20, 1, 100_000)
    task_s: float = number("LAB_TASK_S", 60.0, 0.1, 86_400)  # from its acceptance, over restarts
    max_tokens: int = whole("LAB_MAX_TOKENS", 20_000, 1, 1_000_000_000)


@dataclass(frozen=True, kw_only=True)
class Calls(Section):
    """Limits of one call of the model or of a tool."""

    model_s: float = number("LAB_MODEL_S", 20.0, 0.05, 3600)
    tool_s: float = number("LAB_TOOL_S", 5.0, 0.05, 3600)
    tool_retries: int = whole("LAB_TOOL_RETRIES", 3, 0, 100)
    idempotency: bool = switch("LAB_IDEMPOTENCY", default=True)


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """The agent, its addresses, its limits, and its flaws."""

    host: str = text("LAB_HOST", "127.0.0.1")
    port: int = whole("LAB_PORT", 8200, 0, 65535)
    agent: str = parsed("LAB_AGENT", _agent, lambda: "durable")
    model_url: str = parsed("LAB_MODEL_URL", _url, lambda: "http://api:8000/v1")
    model: str = text("LAB_MODEL", "smollm2:135m", pattern=".+", expected="the name of a model")
    desk_url: str = parsed("LAB_DESK_URL", _url, lambda: "http://desk:8100/mcp")
    state_dir: Path = parsed("LAB_STATE_DIR", _folder, lambda: Path("/state"))
    drain_s: float = number("LAB_DRAIN_S", 5.0, 0, 600)
    workers: int = whole("LAB_WORKERS", 1, 1, 2)  # 2: a queue that delivers each task twice
    budgets: Budgets = section(Budgets)
    calls: Calls = section(Calls)
    flaws: frozenset[str] = parsed("LAB_FLAWS", _flaws, frozenset)

    def conflicts(self) -> list[str]:
        found = [
            f"LAB_FLAWS: expected flaws of the agent {self.agent}, got {flaw!r}, which only {', '.join(FLAWS[flaw])} can show"
            for flaw in sorted(self.flaws)
            if self.agent not in FLAWS[flaw]
        ]
        if self.workers > 1 and self.agent != "naive":
            found.append(
                f"LAB_WORKERS: expected 1 for the agent {self.agent}, got {self.workers}, which only naive can have"
            )
        return found

    @property
    def keys(self) -> bool:
        """True if calls of tools carry idempotency keys."""
        return self.calls.idempotency and not self.flaws & {"no_key", "checkpoint_after_without_key"}

    @property
    def persistent(self) -> bool:
        """True if accepted tasks are on disk and resumed at the next start."""
        return self.agent != "naive" or bool(self.flaws & {"checkpoint_before_effect", "checkpoint_after_without_key"})
