"""A replica stops working for clients who left."""

import time

from conftest import ABORTED, SCRAPED_S, renew, require_agreement
from pytest_llmchaos import loads

LOAD = loads.open_loop(rate_rps=6, max_tokens=64, patience_s=0.5, impatient_ratio=0.5)


def test_cancelled(lab, record_property):
    renew(lab)
    with lab.load(LOAD) as running:
        lab.hold_steady(1.5)
        lab.hold(5)
        lab.hold(SCRAPED_S)
        aborted = lab.prometheus.value(ABORTED, time.time())
    samples = running.recent(0)
    left = sum(one.outcome == "left" for one in samples)
    record_property("offered", len(samples))
    record_property("clients", f"{left} left")
    record_property("numbers", f'{{"left": {left}, "aborted": {aborted:g}}}')

    require_agreement(left >= 10, f"only {left} clients left")
    assert aborted >= 0.7 * left
