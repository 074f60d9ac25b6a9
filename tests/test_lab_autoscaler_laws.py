"""The laws kpa, slo and queue against their projects' examples.

The first column of a table is the source of its row. Knative: autoscaler_test of
pkg/autoscaler/scaling, "docs" is its documentation. llm-d: the formula of its page
slo-aware, and the examples of the pages of its workload variant autoscaler.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.observations import WIDE, blind, followed, seen, settled, wanted

from lab_autoscaler.decision import State
from lab_autoscaler.policies import Kpa, decide
from lab_autoscaler.written import parse


def sampled(stable: float, panic: float, now_s: float = 0.0) -> dict[str, tuple[tuple[float, float], ...]]:
    """Samples older than the panic window, for the given means of both windows."""
    olds = max(1, -(-int(panic) // max(1, int(stable))) - 1)
    value = ((olds + 1) * stable - panic) / olds
    assert value >= 0
    return {"samples": tuple((now_s - 30.0 - index / 100, value) for index in range(olds))}


KPA = "target_utilisation=1, max_scale_up_rate=10, max_scale_down_rate=10, maximum=9999"


@pytest.mark.parametrize(
    ("source", "target", "stable", "panic", "ready", "memory", "expected"),
    [
        ("NoDataAtZeroNoAutoscale", 10, 0, 0, 1, {}, 0),
        ("StableModeUnlimitedTBC", 181, 21, 26, 1, {}, 1),
        ("Autoscaler0TBC", 10, 50, 49, 1, {}, 5),
        ("StableModeNoChange", 10, 50, 50, 1, {}, 5),
        ("PanicStableLargerThanPanic", 1, 50, 30, 5, {"panic_at_s": -5.0, "panic_replicas": 5}, 50),
        ("PanicStableLessThanPanic", 1, 20, 30, 5, {"panic_at_s": -5.0, "panic_replicas": 5}, 30),
        ("StableModeNoChangeAlreadyScaled", 10, 50, 50, 5, {}, 5),
        ("PanicModeDoublePodCount", 10, 50, 100, 1, {}, 10),
        ("StableModeIncrease", 10, 50, 10, 1, {}, 5),
        ("StableModeIncrease, more", 10, 100, 10, 1, {}, 10),
        ("StableModeDecrease, before", 10, 100, 100, 8, {}, 10),
        ("StableModeDecrease", 10, 50, 50, 8, {}, 5),
        ("StableModeNoTrafficScaleToZero, before", 10, 1, 0, 1, {}, 1),
        ("RateLimitScaleUp", 10, 1000, 1001, 1, {}, 10),
        ("RateLimitScaleUp, again", 10, 1000, 1001, 10, {}, 100),
        ("RateLimitScaleDown", 10, 1, 1, 100, {}, 10),
        ("RateLimitScaleDown, again", 10, 1, 1, 10, {}, 1),
        ("UseOnePodAsMinimumIfEndpointsNotFound", 10, 1000, 888, 0, {}, 10),
        ("MetricsWithRPS", 10, 100, 99, 1, {}, 10),
        ("TestAutoscalerPanicThenUnPanicScaleDown: start", 10, 100, 1000, 10, {}, 100),
        ("the same, in panic", 10, 1, 1, 10, {"panic_at_s": -30.0, "panic_replicas": 100}, 100),
        ("the same, at the end of the panic", 10, 1, 1, 10, {"panic_at_s": -60.0, "panic_replicas": 100}, 100),
        ("the same, after it", 10, 1, 1, 10, {"panic_at_s": -61.0, "panic_replicas": 100}, 1),
    ],
)
def test_kpa_scales_by_two_windows(
    *, source: str, target: float, stable: float, panic: float, ready: int, memory: dict[str, float], expected: int
) -> None:
    text = f"kpa(concurrency={target}, scale_to_zero_grace_s=0, {KPA})"
    observed = seen(max(1, ready), ready=ready, running=float(panic))

    assert wanted(text, observed, **sampled(stable, panic), **memory) == expected, source


@pytest.mark.parametrize(
    ("source", "text", "requests", "replicas", "ready", "expected"),
    [
        ("StableModeIncreaseWithSmallScaleUpRate", "concurrency=1, max_scale_up_rate=1.1", 3.0, 2, 2, 3),
        ("StableModeDecreaseWithSmallScaleDownRate", "concurrency=10, max_scale_down_rate=1.1", 1.0, 100, 100, 90),
        ("docs: 7 of 10 on average, 100 requests", "concurrency=10, target_utilisation=0.7", 100.0, 8, 8, 15),
        ("docs: 7 of 10 on average, 7 requests", "concurrency=10, target_utilisation=0.7", 7.0, 1, 1, 1),
        ("docs: 7 of 10 on average, 8 requests", "concurrency=10, target_utilisation=0.7", 8.0, 1, 1, 2),
        ("slots instead of a concurrency", "target_utilisation=0.5", 8.0, 3, 3, 4),
        ("docs: max-scale-down-rate 2", "concurrency=10", 1.0, 8, 8, 4),
        ("docs: max-scale-down-rate 2, of ready ones", "concurrency=10", 1.0, 8, 5, 2),
        ("docs: max-scale-up-rate 1000", "concurrency=0.1, target_utilisation=1", 200.0, 1, 1, 1000),
        ("applyBounds", "concurrency=1, maximum=4", 100.0, 4, 4, 4),
        ("applyBounds, min-scale", "concurrency=10, minimum=3", 1.0, 3, 3, 3),
        ("activator: requests wait at 0 replicas", "concurrency=1, target_utilisation=1", 2.0, 0, 0, 2),
    ],
)
def test_kpa_keeps_its_target_within_its_rates(
    *, source: str, text: str, requests: float, replicas: int, ready: int, expected: int
) -> None:
    numbers = "" if "maximum" in text else ", maximum=9999"
    observed = seen(replicas, ready=ready, waiting=requests / 2, running=requests / 2)

    assert wanted(f"kpa({text}{numbers})", observed) == expected, source


def test_kpa_leaves_panic_after_a_slow_increase() -> None:
    """Knative: TestAutoscalerUnpanicAfterSlowIncrease and ...ExtendPanicWindow."""
    policy = parse(f"kpa(concurrency=1, {KPA})")
    first = decide(policy, seen(10, running=25.0), settled(seen(10), **sampled(11, 25)))
    half = seen(40, now_s=30.0, running=41.0)
    second = decide(policy, half, replace(first.state, **sampled(30, 41, 30.0)))
    third = decide(policy, seen(55, now_s=62.0, running=56.0), replace(second.state, **sampled(50, 56, 62.0)))
    surge = decide(policy, seen(40, now_s=30.0, running=80.0), replace(first.state, **sampled(30, 80, 30.0)))

    assert [first.desired, second.desired, third.desired, surge.desired] == [25, 41, 50, 80]
    assert [one.state.panic_at_s for one in (first, second, third, surge)] == [0.0, 0.0, None, 30.0]


def test_kpa_follows_an_exponential_surge() -> None:
    """Knative: TestAutoscalerPanicModeExponentialTrackAndStabilize."""
    surge = [6.0, 36.0, 216.0, 1296.0, 1296.0]
    observations = [{"now_s": at_s * 60.0, "running": load} for at_s, load in enumerate(surge)]

    assert followed(f"kpa(concurrency=1, {KPA})", observations, replicas=1) == [6, 36, 216, 1296, 1296]


@pytest.mark.parametrize(("replicas", "panics"), [(0, False), (1, False), (2, True)])
def test_kpa_starts_in_panic_with_more_than_one_replica(replicas: int, panics: bool) -> None:
    """Knative: TestStartInPanicMode."""
    state = decide(Kpa(maximum=9), seen(replicas), State()).state

    assert (state.panic_at_s == 0.0) == panics
    assert state.panic_replicas == (replicas if panics else 0)


def test_kpa_delays_a_fall() -> None:
    """Knative: TestAutoscalerScaleDownDelay, both parts."""
    loads = {2: 40, 300: 0, 302: 0, 540: 40, 600: 30, 660: 0, 840: 0, 900: 0}
    text = "kpa(concurrency=10, scale_down_delay_s=300, stable_window_s=1, scale_to_zero_grace_s=0, "
    text += (
        "target_utilisation=1, panic_threshold_percent=10000, max_scale_up_rate=10, max_scale_down_rate=10, maximum=9)"
    )
    observations = [{"now_s": float(at_s), "running": float(load)} for at_s, load in loads.items()]

    assert followed(text, observations, replicas=1) == [4, 4, 0, 4, 4, 4, 3, 0]


def test_kpa_stops_the_last_replica_after_the_grace_period() -> None:
    loads = {0: 1, 60: 0, 75: 0, 89: 0, 90: 0, 105: 0, 120: 2, 180: 0, 209: 0, 210: 0}
    observations = [{"now_s": float(at_s), "running": float(load)} for at_s, load in loads.items()]

    assert followed("kpa()", observations, replicas=1) == [1, 1, 1, 1, 0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("age_s", "requests", "expected"),
    [(5.9, 30.0, 20), (6.0, 30.0, 30), (6.0, 39.0, 39), (5.9, 20.0, 15), (61.0, 8.0, 8)],
)
def test_kpas_panic_window_is_the_mean_of_6_s(age_s: float, requests: float, expected: int) -> None:
    """An earlier sample of 10 is within the panic window, or only the stable one."""
    observed = seen(5, running=requests)

    assert wanted(f"kpa(concurrency=1, {KPA})", observed, samples=((-age_s, 10.0),)) == expected


@pytest.mark.parametrize(
    ("requests", "ready", "panics"),
    [(4.0, 2, True), (3.1, 2, True), (3.0, 2, False), (119.0, 60, False), (120.0, 60, True)],
)
def test_kpa_panics_at_twice_the_ready_replicas(*, requests: float, ready: int, panics: bool) -> None:
    observed = seen(99, ready=ready, running=requests)

    state = decide(parse(f"kpa(concurrency=1, {KPA})"), observed, settled(observed)).state

    assert (state.panic_at_s == 0.0) == panics


def test_kpa_forgets_a_panic_at_its_end() -> None:
    observed = seen(9, running=9.0)

    state = decide(
        parse(f"kpa(concurrency=1, {KPA})"), observed, settled(observed, panic_at_s=-61.0, panic_replicas=50)
    ).state

    assert (state.panic_at_s, state.panic_replicas) == (None, 0)


def test_kpa_counts_ready_replicas_at_its_start() -> None:
    assert decide(Kpa(), seen(4, ready=1), State()).state.panic_at_s is None
    assert decide(Kpa(maximum=9), seen(4, ready=2), State()).state.panic_replicas == 2


def test_kpa_stays_at_zero_without_requests() -> None:
    assert wanted("kpa()", seen(0)) == 0


def test_kpa_keeps_one_replica_while_none_of_two_is_ready() -> None:
    assert wanted("kpa()", seen(2, ready=0)) == 1


SLO = f"slo({WIDE}, scale_down_pods=9999, "


@pytest.mark.parametrize(
    ("source", "replicas", "ready", "attained", "load", "expected"),
    [
        # load: running, waiting. The law's threshold of a scale-up is 1 here.
        ("s = 1.5: n + ceil(n x 0.5)", 4, 4, (0.85, 1.0), (0, 0), 6),
        ("s = 1.1: n + ceil(n x 0.1)", 4, 4, (0.89, 1.0), (0, 0), 5),
        ("the worse of the two", 4, 4, (1.0, 0.85), (0, 0), 6),
        ("clamp at C = 2", 4, 4, (0.0, 1.0), (0, 0), 8),
        ("credit r / n = 1 / 2", 4, 2, (0.0, 1.0), (0, 0), 4),
        ("credit r / n = 3 / 4", 4, 3, (0.0, 1.0), (0, 0), 6),
        ("credit is 1 without a ready replica", 4, 0, (0.0, 1.0), (0, 0), 8),
        ("credit is 1 with more ready ones", 4, 6, (0.85, 1.0), (0, 0), 6),
        ("a credited rise is no fall", 4, 1, (0.85, 1.0), (0, 0), 4),
        ("at the target", 4, 4, (0.9, 0.9), (0, 0), 4),
        ("hysteresis band, upper half", 4, 4, (0.91, 1.0), (0, 0), 4),
        ("hysteresis band, at its lower end", 4, 4, (0.96, 1.0), (0, 0), 4),
        ("s = 0.2: n - floor(n / 2)", 4, 4, (0.98, 0.98), (0, 0), 2),
        ("s = 0.3: n - floor(n / 4)", 4, 4, (0.97, 1.0), (0, 0), 3),
        ("s = 0.3: floor", 3, 3, (0.97, 1.0), (0, 0), 3),
        ("s = 0", 4, 4, (1.0, 1.0), (0, 0), 1),
        ("headroom: 8 of 4 x 4 x 0.7", 4, 4, (1.0, 1.0), (8, 0), 3),
        ("headroom: waiting requests count", 4, 4, (1.0, 1.0), (4, 4), 3),
        ("headroom: exactly full", 4, 4, (1.0, 1.0), (5.6, 0), 2),
        ("headroom: none left", 4, 4, (1.0, 1.0), (12, 0), 4),
        ("headroom adds no replica", 4, 4, (1.0, 1.0), (16, 9), 4),
        ("one share is enough for a rise", 4, 4, (0.85, None), (0, 0), 6),
        ("the other as well", 4, 4, (None, 0.85), (0, 0), 6),
        ("one share is not enough for a fall", 4, 4, (1.0, None), (0, 0), 4),
        ("no requests known, no fall", 4, 4, (1.0, 1.0), (None, 0), 4),
        ("idle pool reads 0", 4, 4, (None, None), (0, 0), 1),
    ],
)  # fmt: skip
def test_slo_follows_the_formula(
    *,
    source: str,
    replicas: int,
    ready: int,
    attained: tuple[float | None, float | None],
    load: tuple[float | None, float],
    expected: int,
) -> None:
    first, gap = attained
    running, waiting = load
    observed = seen(
        replicas, ready=ready, first_token_attained=first, token_gap_attained=gap, running=running, waiting=waiting
    )

    assert wanted(f"{SLO}target=0.9)", observed) == expected, source


def test_slo_removes_nothing_while_a_ready_replica_is_silent() -> None:
    assert wanted(f"{SLO}target=0.9)", seen(4, reporting=3)) == 4
    assert wanted(f"{SLO}target=0.9)", seen(4, reporting=4)) == 1
    assert wanted(f"{SLO}target=0.9)", seen(4, reporting=3, first_token_attained=0.85)) == 6
    # A replica that starts is not silent.
    assert wanted(f"{SLO}target=0.9)", seen(4, ready=3)) == 1
    assert wanted(f"{SLO}target=0.9)", seen(4, ready=3, first_token_attained=0.98)) == 2


def test_slo_removes_all_but_one_of_an_idle_pool() -> None:
    idle = {"first_token_attained": None, "token_gap_attained": None, "slots": 1}

    assert wanted(f"{SLO}target=0.9)", seen(4, **idle)) == 1
    assert wanted(f"{SLO}target=0.9)", seen(4, ready=1, **idle)) == 1


def test_slo_with_the_bad_switch_reads_what_is_there() -> None:
    """An unknown value is 0. A known share still counts, and the worse one decides."""
    text = f"{SLO}target=0.9, no_data_is_zero=True)"

    assert wanted(text, seen(4, first_token_attained=0.85)) == 6
    assert wanted(text, seen(4, slots=1, waiting=None)) == 1
    assert wanted(text, seen(4, slots=1, running=4.0, token_gap_attained=None)) == 4


def test_slo_averages_over_45_s() -> None:
    late = {"samples": ((-45.0, 2.0), (-44.0, 2.0), (-15.0, 0.4))}  # the first has left the window
    observed = seen(10, first_token_attained=0.85)

    assert wanted(f"{SLO}target=0.9)", observed, **late) == 13  # (2 + 0.4 + 1.5) / 3 = 1.3


def test_slo_rises_after_30_s_and_falls_by_one_in_120_s() -> None:
    """llm-d: windows of 30 s and 180 s, 4 pods or 100 % in 60 s, 1 pod in 120 s."""
    late = [{"now_s": float(at_s), "first_token_attained": 0.0} for at_s in (0, 15, 30, 45, 90)]
    good = [{"now_s": float(at_s)} for at_s in (150, 255, 270, 285, 375, 389, 390, 510)]

    assert followed("slo(maximum=12)", [*late, *good], replicas=2) == [2, 2, 4, 4, 8, 8, 8, 7, 7, 7, 7, 6, 5]


QUEUE = f"queue({WIDE}, scale_down_pods=9999, "


@pytest.mark.parametrize(
    ("source", "replicas", "waiting", "running", "expected"),
    [
        # 100 slots a replica, so that slots and queue are apart
        ("config page: average spare KV is 0.115", 2, 0.0, 137.0, 2),
        ("config page: average spare KV is 0.095", 2, 0.0, 141.0, 3),
        ("at kvSpareTrigger: strict <", 2, 0.0, 140.0, 2),
        ("at queueSpareTrigger: strict <", 2, 4.0, 100.0, 2),
        ("avg_spare_queue < queueSpareTrigger", 2, 4.2, 100.0, 3),
        ("all are saturated", 2, 60.0, 200.0, 3),
        ("scale-down is safe: 0.35 x 2 leaves 0.1", 2, 0.0, 70.0, 1),
        ("scale-down is not safe: 0.355 x 2", 2, 0.0, 71.0, 2),
        ("scale-down is safe: N / (N - 1) = 4 / 3", 4, 0.0, 210.0, 3),
        ("scale-down is not safe: 4 / 3", 4, 0.0, 211.0, 4),
        ("scale-down is safe: queue of 1 x 2", 2, 2.0, 0.0, 1),
        ("scale-down is not safe: queue of 1.1 x 2", 2, 2.2, 0.0, 2),
        ("scale-down is safe: queue of 1.5 x 4 / 3", 4, 6.0, 0.0, 3),
        ("at least 2 non-saturated replicas", 1, 0.0, 0.0, 1),
        ("one replica more at a time", 1, 500.0, 100.0, 2),
    ],
)
def test_queue_keeps_spare_room(source: str, replicas: int, waiting: float, running: float, expected: int) -> None:
    observed = seen(replicas, slots=100, waiting=waiting, running=running)

    assert wanted(f"{QUEUE}queue_threshold=5)", observed) == expected, source


def test_queue_decides_nothing_while_a_replica_is_silent() -> None:
    """llm-d's example: 3 of 4 pods report, so the target is the current count."""
    busy = {"waiting": 90.0, "running": 16.0}

    assert wanted(f"{QUEUE}queue_threshold=5)", seen(4, ready=3, **busy)) == 4
    assert wanted(f"{QUEUE}queue_threshold=5)", seen(4, reporting=3)) == 4
    assert wanted(f"{QUEUE}queue_threshold=5)", seen(4, reporting=5, **busy)) == 4
    assert wanted(f"{QUEUE}no_data_is_zero=True)", blind(4)) == 3


def test_queue_does_not_cascade_while_a_replica_starts() -> None:
    """llm-d's timeline: saturated at 0 s, a new pod loads until 90 s."""
    busy = {"waiting": 30.0, "running": 8.0}
    observations = [{"now_s": 0.0, **busy}, *({"now_s": at_s, "ready": 2, **busy} for at_s in (30.0, 60.0))]

    assert followed(f"{QUEUE}queue_threshold=5)", observations, replicas=2) == [3, 3, 3]


def test_queue_waits_for_240_s() -> None:
    """The chart's behavior: windows of 240 s, and 10 pods in 150 s."""
    busy = [{"now_s": float(at_s), "waiting": 99.0} for at_s in (0, 239, 240)]
    idle = [{"now_s": float(at_s)} for at_s in (300, 479, 480)]

    assert followed("queue()", [*busy, *idle], replicas=2) == [2, 2, 3, 3, 3, 2]
    assert wanted("queue(maximum=99)", seen(50, waiting=999.0)) == 51
    assert wanted("queue(maximum=99)", seen(50, waiting=999.0), changes=((-149.0, 10),)) == 50
    assert wanted("queue(maximum=99)", seen(50, waiting=999.0), changes=((-150.0, 10),)) == 51
