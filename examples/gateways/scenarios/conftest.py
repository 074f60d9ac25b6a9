"""The witnesses: clients, fault agents, the engines' counters."""

import json
import os
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from pytest_llmchaos import loads
from pytest_llmchaos.errors import Inconclusive

TOKENS = 16  # of each answer: 0.4 s of an engine's time
LOAD = loads.open_loop(rate_rps=8, max_tokens=TOKENS)
ENDED = "sum by (service) (vllm:request_success_total)"
ABORTED = 'sum(vllm:request_success_total{finished_reason="abort"})'
SCRAPED_S = 1.2  # until Prometheus has the engines' newest counts


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One fault as its witnesses saw it.

    Attributes:
        samples: the clients' requests that were due while the fault was in force.
        open: those that were sent before it and had not ended.
        later: those that were due after it.
        tokens: the length of a whole answer.
        met: requests or connections that the fault agents saw.
        hit: those that they changed.
        engines: requests that each engine ended since its start.
        aborted: requests that the engines gave up in the load, because a client left.
    """

    samples: tuple
    open: tuple
    later: tuple
    tokens: int
    met: int
    hit: int
    engines: dict
    aborted: int

    @property
    def offered(self):
        return len(self.samples)

    @property
    def ok(self):
        return sum(one.outcome == "ok" and one.tokens == self.tokens for one in self.samples)

    @property
    def passed_as_whole(self):
        """Answers that ended early without an error that a client could see."""
        return sum(
            one.outcome == "truncated" or (one.outcome == "ok" and one.tokens < self.tokens) for one in self.samples
        )

    @property
    def doubled(self):
        """Answers with more tokens than the load requested."""
        return sum(one.tokens > self.tokens for one in self.samples)

    @property
    def broken(self):
        """Answers in progress when the fault began that did not end whole."""
        return sum(one.outcome != "ok" for one in self.open)

    def begun_within(self, seconds):
        return sum(one.first_s is not None and one.first_s - one.due_s <= seconds for one in self.samples)

    def ended_within(self, seconds):
        return sum(one.end_s - one.due_s <= seconds for one in self.samples)

    def count(self, *outcomes):
        return sum(one.outcome in outcomes for one in self.samples)

    def __str__(self):
        outcomes = Counter(one.outcome for one in self.samples)
        return ", ".join(f"{count} {name}" for name, count in outcomes.most_common())


@pytest.fixture
def watch(lab, record_property):
    """Inject a fault into a load, and return what its witnesses saw."""
    renew(lab)

    def watched(fault, *, load=LOAD, tokens=TOKENS, fault_s=4.0, later_s=1.0):
        with lab.load(load) as running:
            lab.hold_steady(1.5)
            before = given_up(lab)
            begin_s = running.now_s()
            with lab.inject(fault) as injected:
                lab.hold(fault_s)
            end_s = running.now_s()
            states = [
                lab.runtime.wire_faults(act.victim).newest(act.fault.kind)
                for act in injected.acts
                if "proxy" in act.fault.needs
            ]
            lab.hold(later_s if states else later_s + SCRAPED_S)
            engines, aborted = counts(lab), given_up(lab) - before
        samples = running.recent(0)
        whole = [one.tokens for one in samples if one.due_s < begin_s - 1 and one.outcome == "ok"]
        if not whole or set(whole) != {tokens}:
            raise Inconclusive(f"whole answers must have {tokens} tokens before the fault, got {sorted(set(whole))}")
        seen = Seen(
            samples=tuple(one for one in samples if begin_s <= one.due_s < end_s),
            open=tuple(one for one in samples if one.sent_s < begin_s - 0.05 and one.end_s > begin_s),
            later=tuple(one for one in samples if one.due_s >= end_s),
            tokens=tokens,
            met=int(sum(one.counters.get("met", 0) for one in states)),
            hit=int(sum(one.counters.get("hit", 0) for one in states)),
            engines=engines,
            aborted=aborted,
        )
        note(record_property, seen)
        return seen

    return watched


def renew(lab):
    """Start the gateway anew, so that no scenario meets what another one left.

    GATEWAY_RENEWED=no leaves it out, for a gateway whose start takes long.
    """
    if os.environ.get("GATEWAY_RENEWED", "yes") == "yes":
        lab.runtime.restart("gateway")
        lab.runtime.wait_healthy(["gateway"], 60)


def counts(lab):
    """Requests that each engine ended, by its own counter."""
    found = lab.prometheus.vector(ENDED, time.time(), may_be_empty=True)
    return {dict(labels)["service"]: int(value) for labels, value in found.items()}


def given_up(lab):
    """Requests that the engines gave up, by their own counters."""
    return int(sum(lab.prometheus.vector(ABORTED, time.time(), may_be_empty=True).values()))


def note(record_property, seen):
    """Write the numbers of a scenario into the JUnit file, for the scoreboard."""
    record_property("offered", seen.offered)
    record_property("clients", str(seen))
    record_property("numbers", json.dumps(numbers(seen)))


def numbers(seen):
    slow = sorted((one.first_s or one.end_s) - one.due_s for one in seen.samples)
    return {
        "offered": seen.offered,
        "ok": seen.ok,
        "failed": seen.offered - seen.ok,
        "passed_as_whole": seen.passed_as_whole,
        "doubled": seen.doubled,
        "open": len(seen.open),
        "broken": seen.broken,
        "first_token_p95_s": round(slow[int(0.95 * (len(slow) - 1))], 2) if slow else None,
        "longest_s": round(max((one.end_s - one.due_s for one in seen.samples), default=0), 2),
        "replicas after": len({one.replica for one in seen.later if one.outcome == "ok" and one.replica}),
        "aborted": seen.aborted,
        "met": seen.met,
        "hit": seen.hit,
        **{f"ended by {name}": count for name, count in sorted(seen.engines.items())},
    }


def require_agreement(agrees, what):
    """Raise Inconclusive unless two witnesses agree."""
    if not agrees:
        raise Inconclusive(f"two witnesses differ: {what}")
