"""The witnesses: clients, fault agents, the engines' counters."""

import hashlib
import http.client
import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from pytest_llmchaos import loads
from pytest_llmchaos.errors import Inconclusive

TOKENS = 16  # of each answer: 0.4 s of an engine's time
LOAD = loads.open_loop(rate_rps=8, max_tokens=TOKENS)
ENDED = {name: f"sum by (service) (llmchaos:requests_{name}_total)" for name in ("done", "aborted")}
TEXTS = ("whole", "part", "doubled", "foreign")
# Mean age of the engines' counts: Prometheus scrapes them once a second, and records
# their canonical names once a second.
AGE_S = 1.0
RECORDED_S = AGE_S + 0.2  # until it has those of now


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
        engines: answers that each engine ended from the fault's start on. For one that
            was started again they count from that start.
        aborted: requests that the engines gave up in that time, because a client left.
        got: whole answers that clients got in that time.
        text: answers of a few more requests in the fault, by what their text is.
    """

    samples: tuple
    open: tuple
    later: tuple
    tokens: int
    met: int
    hit: int
    engines: dict
    aborted: int
    got: int
    text: Counter

    @property
    def offered(self):
        return len(self.samples)

    @property
    def ok(self):
        return sum(one.outcome == "ok" and one.tokens == self.tokens for one in self.samples)

    @property
    def ended_early(self):
        """Answers that ended early without an error that a client could see."""
        return sum(
            one.outcome == "truncated" or (one.outcome == "ok" and one.tokens < self.tokens) for one in self.samples
        )

    @property
    def doubled(self):
        """Answers with more tokens than the load requested."""
        return sum(one.tokens > self.tokens for one in self.samples)

    @property
    def replicas_after(self):
        """Replicas that answered after the fault, None if no answer names one."""
        named = {one.replica for one in self.later if one.outcome == "ok"}
        return None if named <= {""} else len(named - {""})

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

    def watched(fault, *, load=LOAD, tokens=TOKENS, steady_s=1.0, fault_s=3.0, later_s=1.0, texts=0):
        with lab.load(load) as running:
            lab.hold_steady(steady_s)
            begin_s, begin_unix_s = running.now_s(), time.time()
            with lab.inject(fault) as injected, reading_texts(lab, texts) as kinds:
                lab.hold(fault_s)
            end_s = running.now_s()
            wire = [act for act in injected.acts if "proxy" in act.fault.needs]
            states = [lab.runtime.wire_faults(act.victim).newest(act.fault.kind) for act in wire]
            lab.hold(later_s)
            again = {act.victim for act in injected.acts if act not in wire}
            counted_s, counted_unix_s = running.now_s(), time.time()
            lab.hold(RECORDED_S)
            ended = since(counts(lab, begin_unix_s), counts(lab, counted_unix_s), started_again=again)
        samples = running.recent(0)
        whole = [one.tokens for one in samples if one.end_s < begin_s and one.outcome == "ok"]
        if not whole or set(whole) != {tokens}:
            raise Inconclusive(f"whole answers must have {tokens} tokens before the fault, got {sorted(set(whole))}")
        seen = Seen(
            samples=tuple(one for one in samples if begin_s <= one.due_s < end_s),
            open=tuple(one for one in samples if one.sent_s < begin_s - 0.05 and one.end_s > begin_s),
            later=tuple(one for one in samples if one.due_s >= end_s),
            tokens=tokens,
            met=int(sum(one.counters.get("met", 0) for one in states)),
            hit=int(sum(one.counters.get("hit", 0) for one in states)),
            engines=by_engine(ended),
            aborted=given_up(ended),
            got=sum(one.outcome == "ok" and begin_s < one.end_s <= counted_s for one in samples),
            text=Counter(one.result() for one in kinds if one.done() and not one.cancelled()),
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


def counts(lab, unix_s):
    """Return the engines' own counters of ended requests, by engine and end."""
    return {
        (dict(labels)["service"], end): int(value)
        for end, query in ENDED.items()
        for labels, value in lab.prometheus.vector(query, unix_s + AGE_S, may_be_empty=True).items()
    }


def since(before, after, *, started_again=()):
    """Return the differences of counters, which begin anew with their engine."""
    return {
        (name, end): value - (0 if name in started_again else before.get((name, end), 0))
        for (name, end), value in after.items()
    }


def by_engine(ended):
    """Return the whole answers of each engine."""
    return {name: ended.get((name, "done"), 0) for name, _ in ended}


def given_up(ended):
    """Return the requests that the engines gave up."""
    return sum(value for (_, end), value in ended.items() if end == "aborted")


@contextmanager
def reading_texts(lab, number):
    """Send requests in the block, two at a time, and return what their texts will be.

    Those that have not begun at its end are not sent.
    """
    url = lab.runtime.url("gateway")
    pool = ThreadPoolExecutor(2)
    prompts = [f"text {index}" for index in range(number)]
    kinds = [pool.submit(lambda prompt: kind(read_text(url, prompt), prompt), prompt) for prompt in prompts]
    try:
        yield kinds
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read_text(url, prompt):
    """Return the text of a streamed answer. An error ends it early."""
    asked = {
        "model": "smollm2",
        "stream": True,
        "max_tokens": TOKENS,
        "messages": [{"role": "user", "content": prompt}],
    }
    client = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    text = ""
    try:
        client.request("POST", "/v1/chat/completions", json.dumps(asked), {"Content-Type": "application/json"})
        for line in client.getresponse():
            event = line.removeprefix(b"data:").strip()
            if event.startswith(b"{"):
                for choice in json.loads(event).get("choices", ()):
                    text += choice.get("delta", {}).get("content") or ""
    except (OSError, ValueError, http.client.HTTPException):  # also an answer that breaks off
        pass
    finally:
        client.close()
    return text


def kind(text, prompt):
    """Return whether a text is whole, an early part of it, or has more.

    Token i of the engines is the first six digits of a hash of the prompt and i.
    """
    tokens = [hashlib.sha256(f"{prompt}\x1f{index}".encode()).hexdigest()[:6] for index in range(TOKENS)]
    got = text.split()
    if got == tokens:
        return "whole"
    if got == tokens[: len(got)]:
        return "part"
    return "doubled" if any(got.count(one) > 1 for one in tokens) else "foreign"


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
        "ended_early": seen.ended_early,
        "doubled": seen.doubled,
        "open": len(seen.open),
        "broken": seen.broken,
        "first_token_p95_s": round(slow[int(0.95 * (len(slow) - 1))], 2) if slow else None,
        "longest_s": round(max((one.end_s - one.due_s for one in seen.samples), default=0), 2),
        "replicas after": seen.replicas_after,
        "aborted": seen.aborted,
        "met": seen.met,
        "hit": seen.hit,
        "got": seen.got,
        **{f"ended by {name}": count for name, count in sorted(seen.engines.items())},
        **({f"text {name}": seen.text[name] for name in TEXTS} if seen.text else {}),
    }


def require_same_answers(got, engines):
    """Raise Inconclusive unless clients got what the engines' counters show.

    Prometheus reads these once a second, in which 8 answers end.
    """
    ended = sum(engines.values())
    require_agreement(abs(got - ended) <= 10, f"clients got {got} whole answers, and the engines ended {ended}")


def require_agreement(agrees, what):
    """Raise Inconclusive unless two witnesses agree."""
    if not agrees:
        raise Inconclusive(f"two witnesses differ: {what}")
