"""Run directories as a real run leaves them, from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FIELDS = ("due_s", "sent_s", "first_s", "end_s", "max_gap_s", "tokens", "outcome", "replica", "request_id")
T0 = 1795449901.25  # 2026-11-23 16:05:01 UTC


@dataclass(frozen=True, kw_only=True)
class Made:
    """Properties of one trial. `outage_s`: seconds without good answers."""

    scenario: str = "kill_api"
    fault: str = "kill api"
    victim: str = "api"
    hypothesis: str = (
        "Losing the API is noticed within 5 s, repaired without a human within 20 s, and costs clients < 2 % of the month's "
        "error budget."
    )
    verdict: str = "held"
    reason: str | None = None
    lifetime: str = "lasting"
    fidelity: str = "real"
    remediator: bool = True
    repeat: int = 0
    rate_rps: float = 8
    steady_s: float = 8
    fault_s: float = 14
    recovery_s: float = 12
    outage_s: float = 4.2
    outcomes: Sequence[str] = ("refused",)
    slow: float = 1.0
    detect_s: float | None = 1.9
    detected_by: str | None = "alert AvailabilityFastBurn"
    recover_s: float | None = 4.2
    repaired_by: str | None = "remediator"
    claims: Sequence[tuple[str, str, str | None]] = (
        ("test_kill_api_is_detected", "passed", None),
        ("test_kill_api_is_repaired_by_the_remediator", "passed", None),
        ("test_kill_api_keeps_the_error_budget", "passed", None),
    )
    objectives: Sequence[str] | None = None
    known: Mapping[str, str] = field(default_factory=dict)  # issues of listed claims
    findings: Sequence[str] = ()
    judged: bool = True
    strength: Mapping[str, Any] | None = None  # None as in journals of earlier versions
    counts: Sequence[Mapping[str, Any]] = ()  # of the injection's proof, then of the revert's
    extra: Mapping[str, Any] = field(default_factory=dict)
    arm: str | None = None
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    effects: Sequence[Mapping[str, Any]] = ()  # of the first claim


def samples(made: Made, seed: int) -> list[tuple[Any, ...]]:
    """Open-loop requests that fail in the outage and are slow after it."""
    rng = random.Random(f"{seed}|{made.scenario}|{made.fault}|{made.repeat}")
    total_s = made.steady_s + made.fault_s + made.recovery_s
    begin_s = made.steady_s + 0.03
    rows: list[tuple[Any, ...]] = []
    for i in range(int(total_s * made.rate_rps)):
        due_s = i / made.rate_rps
        sent_s = due_s + rng.expovariate(1 / 0.0009)
        since = due_s - begin_s
        tail = 1 + 2.5 * max(0.0, 1 - max(0.0, since - made.outage_s) / 5) if since >= made.outage_s > 0 else 1.0
        slow = made.slow if 0 <= since < made.fault_s else 1.0
        ttft_s = (0.11 + rng.lognormvariate(-3.1, 0.55)) * tail * slow
        rest_s = 0.35 + rng.random() * 0.25
        outcome = "ok"
        if 0 <= since < made.outage_s:
            outcome = rng.choice(list(made.outcomes))
        elif -0.35 < since < 0 and made.outage_s:
            outcome = "truncated"
        first_s: float | None = sent_s + ttft_s
        end_s = sent_s + ttft_s + rest_s
        if outcome == "refused":
            first_s, end_s = None, sent_s + 0.002
        elif outcome in {"timeout", "stalled"}:
            first_s, end_s = None, sent_s + 10.0
        elif outcome in {"http_5xx", "http_429"}:
            first_s, end_s = None, sent_s + 0.05
        replica = rng.choice(["model-1", "model-2"])
        rows.append((due_s, sent_s, first_s, end_s, 0.08, 12 if outcome == "ok" else 0, outcome, replica, f"r{i:06d}"))
    return rows


def lines(made: Made, trial: str, at_unix_s: float, rows: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """The journal of one trial, in the order in which a run writes it."""
    begin, end = made.steady_s, made.steady_s + made.fault_s
    total = end + made.recovery_s
    hit = begin + 0.031
    common = {"trial": trial}
    out: list[dict[str, Any]] = []
    counted = [{"intent": f"{trial}#1", "counts": one} for one in made.counts]

    def note(moment_s: float, kind: str, /, **fields: Any) -> None:
        out.append({"at_unix_s": round(at_unix_s + moment_s, 6), "kind": kind, **common, **fields})

    note(
        -0.5,
        "trial",
        scenario=made.scenario,
        hypothesis=made.hypothesis,
        fault=made.fault,
        target=made.victim,
        lifetime=made.lifetime,
        fidelity=made.fidelity,
        remediator=made.remediator,
        repeat=made.repeat,
        **({} if made.arm is None else {"arm": made.arm, "environment": made.environment}),
        samples=f"trials/{trial}/samples.jsonl",
        plan={
            "load": f"open loop {made.rate_rps:g} requests/s, short-chat",
            "injections": [f"{made.fault} at +0 s"],
            "steady_s": made.steady_s,
            "fault_s": made.fault_s,
            "recovery_s": made.recovery_s,
        },
    )
    note(0, "anchor", unix_s=at_unix_s, monotonic_s=4711.5)
    note(0, "phase_begin", name="steady", from_s=0.0)
    note(begin, "phase", name="steady", from_s=0.0, to_s=begin)
    note(begin, "phase_begin", name="fault", from_s=begin)
    if made.fault != "none":
        undo = {"op": "ensure_running", "service": made.victim, "args": {}}
        ids = {} if made.strength is None else {"id": f"{trial}#1", "strength": made.strength}
        note(begin, "intent", step="inject", fault=made.fault.split()[0], victim=made.victim, undo=undo, **ids)
        note(hit, "proof", step="injected", witness="runtime event die exitCode=137", at_s=hit, **dict(*counted[:1]))
        for at_s, source, what in _events(made, hit):
            note(at_s, "event", at_s=round(at_s, 3), source=source, what=what, service=made.victim)
    if not made.judged:
        return out
    note(end, "phase", name="fault", from_s=begin, to_s=end)
    if counted[1:]:
        note(end, "proof", step="healed", witness="runtime state: running, healthy", at_s=end + 0.2, **counted[1])
    note(end, "undone", victim=made.victim, op="ensure_running", ok=True)
    note(end, "phase_begin", name="recovery", from_s=end)
    note(total, "phase", name="recovery", from_s=end, to_s=total)
    for finding in made.findings:
        note(total, "finding", what=finding)
    note(total + 0.4, "judged", **_judged(made, rows))
    for place, (name, outcome, message) in enumerate(made.claims):
        nodeid = f"scenarios/test_{made.scenario}.py::{name}"
        more: dict[str, Any] = {} if made.objectives is None else {"objectives": list(made.objectives)}
        if made.effects and not place:
            more["effects"] = list(made.effects)
        if name in made.known:
            more["known"] = {"issue": made.known[name], "why": "slow alerts"}
        note(total + 0.5, "claim", nodeid=nodeid, outcome=outcome, message=message, **more)
    return out


def run_dir(
    directory: Path,
    trials: Sequence[Made],
    *,
    seed: int = 42,
    backend: str = "ollama",
    ended: bool = True,
    status: int = 0,
    ran_as: str = "containers",
) -> Path:
    """A whole run directory under `directory`, as `reports/<run>` is."""
    run = directory / f"20261123-160501-{seed}"
    run.mkdir(parents=True)
    replay = f"pytest scenarios/ --chaos-seed={seed} --chaos-backend={backend}"
    journal: list[dict[str, Any]] = [
        {
            "at_unix_s": T0 - 6,
            "kind": "run",
            "schema": "llmchaos-journal/1",
            "run": run.name,
            "seed": seed,
            "replay": replay,
            "runtime": "compose",
            "backend": backend,
            "schedule": [],
            "environment": {**environment(), "services run as": ran_as},
            "catalogue": {
                "faults": ["kill", "crash", "restart", "pause", "partition", "limit_cpu"],
                "targets": ["api", "model-1", "model-2", "prometheus"],
            },
        }
    ]
    images = {
        "api": "llmchaos/services:9f2c41d07a55 sha256:1cfb4c354449",
        "model-1": "llmchaos/ollama:5b1e6cc2a9d0 sha256:30b6e59ba6cf",
        "prometheus": "llmchaos/prometheus:0be77d1f2c43 sha256:8cfaf196e723",
    }
    journal.append({"at_unix_s": T0 - 2, "kind": "stack_up", "took_s": 3.412, "images": images})
    at_unix_s = T0
    for i, made in enumerate(trials, 1):
        trial = f"{i:03d}"
        rows = samples(made, seed)
        write_samples(run / "trials" / trial / "samples.jsonl", rows)
        journal += lines(made, trial, at_unix_s, rows)
        at_unix_s += made.steady_s + made.fault_s + made.recovery_s + 3
    if ended:
        journal.append({"at_unix_s": at_unix_s, "kind": "stack_down", "took_s": 0.487})
        journal.append({"at_unix_s": at_unix_s, "kind": "run_end", "exit_status": status})
    (run / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in journal))
    (run / "logs").mkdir()
    (run / "logs" / "api.txt").write_text(
        "".join(
            f'{{"at": {T0 + i:.3f}, "level": "info", "msg": "request done", "replica": "model-1"}}\n' for i in range(40)
        )
    )
    return run


def write_samples(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        file.write(json.dumps({"schema": "llmchaos-samples/1", "fields": FIELDS}) + "\n")
        for row in rows:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")


def environment() -> dict[str, Any]:
    return {
        "pytest-llmchaos": "0.1.0",
        "commit": "3f9c2ab",
        "python": "3.11.2",
        "kernel": "6.1.0-27-amd64",
        "cores": 2,
        "memory_bytes": 25276502016,
        "docker": "20.10.24",
        "model": "smollm2:135m, Q4_1, sha256:7d2f…",
    }


def gallery() -> list[Made]:
    """A run with some of everything, for the sample report and the page's layout."""
    control = "Without a fault nothing alerts and nothing acts."
    return [
        *(Made(repeat=i, recover_s=4.2 + 0.37 * i, outage_s=4.2 + 0.37 * i, detect_s=1.9 - 0.21 * i) for i in range(3)),
        Made(
            scenario="kill_model",
            fault="kill model-1",
            victim="model-1",
            hypothesis="Losing one of two replicas costs clients nothing but a retry.",
            verdict="held",
            reason=None,
            rate_rps=4,
            outage_s=1.1,
            outcomes=("http_5xx", "truncated"),
            detect_s=1.2,
            detected_by="readiness model-1",
            recover_s=3.4,
            claims=(
                ("test_kill_model_is_detected", "passed", None),
                (
                    "test_kill_model_truncates_no_stream_silently",
                    "failed",
                    "assert 3 == 0\n +  where 3 = <trial kill_model: kill model-1>.silently_truncated",
                ),
            ),
            findings=("replica model-1 answered 200 and ended 3 streams without finish_reason",),
        ),
        Made(
            scenario="pause_model",
            fault="pause model-2",
            victim="model-2",
            lifetime="passing",
            hypothesis="A frozen replica is ejected within 15 s, although its port still accepts.",
            outage_s=6.5,
            outcomes=("timeout", "ok", "http_429"),
            slow=2.2,
            detect_s=6.1,
            detected_by="alert LatencyP95High",
            recover_s=None,
            repaired_by=None,
            extra={"time_to_settle_s": 2.75},
            claims=(("test_pause_model_is_detected", "passed", None),),
            findings=(
                "clients saw 6 s of silence before any alert fired: nothing watches the age of requests in flight",
            ),
        ),
        Made(
            scenario="kill_api",
            fault="kill api",
            remediator=False,
            hypothesis="Without the remediator a killed API stays down.",
            outage_s=14,
            recovery_s=8,
            recover_s=None,
            repaired_by=None,
            claims=(("test_without_the_remediator_nothing_repairs", "passed", None),),
        ),
        Made(
            scenario="control",
            fault="none",
            victim="",
            hypothesis=control,
            lifetime="none",
            outage_s=0,
            detect_s=None,
            detected_by=None,
            recover_s=None,
            repaired_by=None,
            claims=(("test_no_fault_no_alert_no_action", "passed", None),),
        ),
        Made(
            scenario="partition_model",
            fault="partition model-1",
            victim="model-1",
            lifetime="passing",
            hypothesis="A replica that cannot be reached is routed around.",
            verdict="invalid",
            reason="LoadNotHeld: p99 lateness must be <= 0.05 s, was 0.113 s: the generator had too little CPU, lower rate_rps",
            outage_s=2,
            outcomes=("timeout",),
            detect_s=None,
            detected_by=None,
            recover_s=None,
            repaired_by=None,
            claims=(
                ("test_partition_is_survived", "error", "LoadNotHeld: p99 lateness must be <= 0.05 s, was 0.113 s"),
            ),
        ),
    ]


def _events(made: Made, hit: float) -> list[tuple[float, str, str]]:
    events = [(hit, "runtime", f"{made.victim} died 137")]
    if made.detect_s is not None:
        events.append((hit + made.detect_s, "prometheus", f"{made.detected_by} fires"))
    if made.repaired_by and made.recover_s is not None:
        events.append(
            (hit + made.recover_s - 1.6, "remediator", f"restart {made.victim}: up == 0 and 5 failed answers")
        )
        events.append((hit + made.recover_s - 1.2, "runtime", f"{made.victim} started"))
        events.append((hit + made.recover_s + 4, "prometheus", f"{made.detected_by} resolved"))
    return events


def tasks() -> dict[str, Any]:
    """An agent's tasks around a kill, of which one has a duplicate effect."""

    def call(tool: str, at_s: float, effect: int | None, **more: Any) -> dict[str, Any]:
        times = {"received_s": at_s, "applied_s": at_s + 0.01 if effect else None, "answered_s": at_s + 0.05}
        return {"tool": tool, "order": 17, "effect": effect, "key": "t-17/1", **times, **more}

    twice = [call("find_order", 8.0, None), call("refund", 8.1, 5, answered_s=None), call("refund", 9.5, 6)]
    common = {"plan": ["find_order 17", "refund 17"], "due_s": 7.9, "accepted_s": 7.95, "cancelled_s": None}
    return {
        "offered": 20,
        "statuses": {"completed": 18, "stuck": 1, "cancelled": 1},
        "duplicate_effects": 1,
        "missing_effects": 0,
        "false_success": 0,
        "tool_amplification": 1.025,
        "latency_p50_s": 0.52,
        "resume_max_s": 1.4,
        "retry_after_honoured": True,
        "no_ledger": "row 3 is missing",
        "kills": [{"service": "agent", "at_s": 8.15}, {"service": "agent", "at_s": 99.0}],
        "worst": [
            {**common, "id": "t-17", "status": "completed", "ended_s": 9.7, "error": None, "calls": twice}
            | {"troubles": ["duplicate: refund 17 once too often"]},
            {**common, "id": "t-18", "status": "stuck", "ended_s": None, "error": "no end", "troubles": ["stuck"]},
            {**common, "id": "t-19", "status": "cancelled", "ended_s": 8.4, "error": None, "cancelled_s": 8.3},
        ],
    }


def _judged(made: Made, rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    begin, end = made.steady_s, made.steady_s + made.fault_s
    hit = begin + 0.031
    bounds = (("steady", 0.0, begin), ("fault", begin, end), ("recovery", end, end + made.recovery_s))
    good = sum(row[6] == "ok" for row in rows)
    share = good / len(rows)
    query = 'sum(llmchaos_client_requests_total{outcome="ok"}) - sum(llmchaos_client_requests_total{outcome="ok"} offset 34000ms)'
    raw = {"good at the window's start": 0, "good at the window's end": good, "total at the window's end": len(rows)}
    return {
        "victim": made.victim,
        "verdict": made.verdict,
        "reason": made.reason,
        "time_to_detect_s": made.detect_s,
        "detected_by": made.detected_by,
        "time_to_recover_s": made.recover_s,
        "repaired_by": made.repaired_by,
        "proof": [
            {"step": "injected", "witness": "runtime event die exitCode=137", "at_s": hit},
            {"step": "healed", "witness": "runtime state: running, healthy", "at_s": end + 0.2},
        ]
        if made.fault != "none"
        else [],
        "phases": [_phase(name, from_s, to_s, rows) for name, from_s, to_s in bounds],
        "slos": [
            {
                "name": "availability",
                "objective": 0.995,
                "value": share,
                "query": query,
                "budget_spent": (1 - share) * len(rows) / (0.005 * made.rate_rps * 30 * 86400),
                "burn_rate": (1 - share) / 0.005,
                "clients_say": share,
                "met": share >= 0.995,
                "bad_s": round((1 - share) * (rows[-1][0] - rows[0][0]), 3),
                "raw": raw,
            },
            {
                "name": "ttft-p95",
                "objective": 0.95,
                "value": min(1.0, share + 0.003),
                "query": "sum(increase(…))",
                "budget_spent": (1 - share) * len(rows) / (0.05 * made.rate_rps * 30 * 86400),
                "clients_say": share,
                "raw": {},
            },
        ],
        "load": {"offered_rps": made.rate_rps, "achieved_ratio": 1.0, "lateness_p99_s": 0.0042, "generator_cpu": 0.12},
        "events": [
            {"at_s": round(at_s, 3), "source": source, "what": what, "service": made.victim}
            for at_s, source, what in (_events(made, hit) if made.fault != "none" else [])
        ],
        "findings": list(made.findings),
        "healed": True,
        **made.extra,
    }


def _phase(name: str, from_s: float, to_s: float, rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    inside = [row for row in rows if from_s <= row[0] < to_s]
    outcomes: dict[str, int] = {}
    for row in inside:
        outcomes[row[6]] = outcomes.get(row[6], 0) + 1
    times = sorted(row[2] - row[0] if row[6] == "ok" else float("inf") for row in inside)
    return {
        "name": name,
        "from_s": from_s,
        "to_s": to_s,
        "offered": len(inside),
        "ok": outcomes.get("ok", 0),
        "outcomes": outcomes,
        "ttft_p95_s": times[int(len(times) * 0.95)] if len(times) >= 20 else None,
    }
