"""A replica stops working for clients who left."""

import json
import time
from statistics import quantiles

from conftest import AGE_S, RECORDED_S, by_engine, counts, given_up, renew, require_agreement, since
from pytest_llmchaos import loads

INSIDE = "sum(llmchaos:requests_running) + sum(llmchaos:requests_waiting)"
# Less than the engines can do, and more if they finish every answer.
LOAD = loads.open_loop(rate_rps=8, max_tokens=64, patience_s=0.5, impatient_ratio=0.5)


def test_cancelled(lab, record_property):
    renew(lab)
    before = counts(lab, time.time() - AGE_S)
    with lab.load(LOAD) as running:
        lab.hold_steady(1.5)
        lab.hold(4)
        counted_s, counted_unix_s = running.now_s(), time.time()
        lab.hold(RECORDED_S)
        ended = since(before, counts(lab, counted_unix_s))
        inside = int(lab.prometheus.value(INSIDE, counted_unix_s + AGE_S))
    sent = [one for one in running.recent(0) if one.sent_s <= counted_s]
    samples = [one for one in sent if one.end_s <= counted_s]
    for_none = max(0, inside - (len(sent) - len(samples)))  # requests inside the engines that no client waits for
    left = sum(one.outcome == "left" for one in samples)
    got = sum(one.outcome == "ok" for one in samples)
    aborted, whole = given_up(ended), sum(by_engine(ended).values())
    require_agreement(left >= 10 and got >= 10, f"only {left} clients left and {got} got answers")
    record_property("offered", len(samples))
    record_property("clients", f"{got} ok, {left} left")
    waits = [one.ttft_s for one in samples if one.outcome == "ok"]
    found = {"left": left, "aborted": aborted, "first_token_p95_s": round(quantiles(waits, n=20)[-1], 2)}
    record_property("numbers", json.dumps(found))

    require_agreement(
        abs(got + left - whole - aborted - for_none) <= 10,
        f"{got} clients got answers and {left} left, and the engines ended {whole}, gave up {aborted}, "
        f"and still work on {for_none}",
    )
    assert aborted >= 0.7 * left
