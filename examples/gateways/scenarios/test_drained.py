"""A gateway that gets SIGTERM lets open streams end."""

from conftest import require_agreement
from pytest_llmchaos import faults, loads


def test_drained(watch):
    load = loads.open_loop(rate_rps=4, max_tokens=64)
    seen = watch(faults.stop("gateway", grace_s=5), load=load, tokens=64, steady_s=1.5)

    require_agreement(len(seen.open) >= 2, f"only {len(seen.open)} answers were open")
    require_agreement(
        seen.broken <= seen.aborted,
        f"{seen.broken} open answers did not end, and the engines gave up {seen.aborted}",
    )
    assert seen.broken == 0
