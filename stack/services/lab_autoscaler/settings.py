"""Settings of the autoscaler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lab_autoscaler.fleet import Timing
from lab_autoscaler.written import InvalidPolicyError, parse
from lab_common.settings import Section, flag, number, parsed, section, switch, text, whole
from lab_common.targets import project_name, scaled_services

if TYPE_CHECKING:
    from lab_autoscaler.policies import Policy


def _url(given: str) -> str:
    parts = urlsplit(given)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("http://HOST:PORT")
    return given.rstrip("/")


def _policy(given: str) -> Policy:
    try:
        return parse(given)
    except InvalidPolicyError as error:
        raise ValueError(f"a policy ({error})") from error


@dataclass(frozen=True, kw_only=True)
class Phases(Section):
    """Bounds on the time in a phase."""

    drain_s: float = number("LAB_DRAIN_S", 30.0, 0, 3600)  # then its requests are cut
    repair_s: float = number("LAB_REPAIR_S", 10.0, 1, 3600)  # a dead replica is the remediator's for this long
    cold_s: float = number("LAB_COLD_S", 120.0, 1, 7200)  # from start to ready

    def timing(self, settle_s: float) -> Timing:
        return Timing(settle_s=settle_s, drain_s=self.drain_s, repair_s=self.repair_s, cold_s=self.cold_s)


@dataclass(frozen=True, kw_only=True)
class Sights(Section):
    """Sources of the readings, and the limits of their age."""

    prometheus_url: str = parsed("LAB_PROMETHEUS_URL", _url, lambda: "http://prometheus:9090")
    gateway_url: str = parsed("LAB_GATEWAY_URL", _url, lambda: "http://api:8000")
    remediator_url: str = parsed("LAB_REMEDIATOR_URL", _url, lambda: "")  # empty: none repairs
    stale_s: float = number("LAB_STALE_S", 5.0, 1, 600)  # an older sample is unknown
    window_s: float = number("LAB_WINDOW_S", 15.0, 2, 3600)  # of rates and attained shares
    slots: int = whole("LAB_SLOTS", 8, 1, 100_000)  # requests that a replica answers at a time
    engine_queue: bool = switch("LAB_ENGINE_QUEUE", default=True)  # off: the engines report no waiting requests
    # Bounds of the gateway's histograms, so that the shares are exact.
    first_token_s: str = text("LAB_FIRST_TOKEN_S", "2", pattern="[0-9]+([.][0-9]+)?", expected="seconds (0.5)")
    token_gap_s: str = text("LAB_TOKEN_GAP_S", "0.1", pattern="[0-9]+([.][0-9]+)?", expected="seconds (0.1)")


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """All settings of the autoscaler."""

    host: str = text("LAB_HOST", "127.0.0.1")
    port: int = whole("LAB_PORT", 8002, 0, 65535)
    project: str = project_name()
    scaled: tuple[str, ...] = scaled_services(required=True)
    policy: Policy = parsed("LAB_POLICY", _policy, lambda: _policy("queue()"))
    docker_url: str = parsed("LAB_DOCKER_URL", _url, lambda: "http://docker-proxy:2375")
    audit_file: Path = parsed("LAB_AUDIT_FILE", Path, lambda: Path("/audit/autoscaler.jsonl"))
    chosen_hold_file: Path | None = parsed("LAB_HOLD_FILE", Path, lambda: None)
    sync_s: float = number("LAB_SYNC_S", 5.0, 0.1, 600)  # between two decisions of the policy
    poll_s: float = number("LAB_POLL_S", 0.25, 0.05, 2)  # between two looks at the replicas
    steps_max: int = whole("LAB_STEPS_MAX", 4, 1, 1000)  # replicas up or down in one decision
    flap_s: float = number("LAB_FLAP_S", 300.0, 0, 86_400)  # a change of direction within this time is a flap
    dry_run: bool = flag("LAB_DRY_RUN")
    phases: Phases = section(Phases)
    sights: Sights = section(Sights)

    @property
    def hold_file(self) -> Path:
        """Next to the audit log by default."""
        return self.chosen_hold_file or self.audit_file.parent / "autoscaler-hold"

    def conflicts(self) -> list[str]:
        most, minimum = len(self.scaled), self.policy.minimum
        if minimum <= most:
            return []
        return [f"LAB_POLICY: expected a minimum of at most {most}, the replicas of LAB_SCALED, got {minimum}"]
