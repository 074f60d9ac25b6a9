"""The laws fixed, hpa and keda against their projects' examples.

The first column of a table is the source of its row. Kubernetes: the tests
replica_calculator_test and horizontal_test of pkg/controller/podautoscaler. KEDA:
scale_scaledobjects_test of pkg/scaling/executor. "docs" is the project's documentation.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.observations import LONG_AGO_S, WIDE, blind, followed, held, seen, settled, wanted

from lab_autoscaler.decision import State
from lab_autoscaler.policies import Fixed, Hpa, Keda, Kpa, Queue, Slo, decide
from lab_autoscaler.written import parse


@pytest.mark.parametrize("load", [0.0, 100.0])
def test_a_fixed_count_stays(load: float) -> None:
    assert wanted("fixed(3)", seen(1, waiting=load, utilisation=1.0)) == 3
    assert wanted("fixed(3)", blind(5)) == 3
    assert (Fixed(replicas=3).minimum, Fixed(replicas=3).maximum) == (3, 3)


@pytest.mark.parametrize(
    ("source", "counts", "mean", "target", "expected"),
    [
        # counts: replicas, ready, reporting
        ("docs: 200m of 100m doubles", (3, 3, 3), 0.2, 0.1, 6),
        ("docs: 50m of 100m halves", (4, 4, 4), 0.05, 0.1, 2),
        ("ScaleUp", (3, 3, 3), 0.5, 0.3, 5),
        ("ScaleUpUnreadyLessScale", (3, 2, 2), 0.6, 0.3, 4),
        ("ScaleUpUnreadyNoScale", (3, 1, 1), 0.4, 0.3, 3),
        ("ScaleUpIgnoresFailedPods", (2, 2, 2), 0.6, 0.3, 4),
        ("ScaleUpCM", (3, 3, 3), 20.0, 15.0, 4),
        ("ScaleUpCMUnreadyHotCpuNoLessScale", (3, 3, 3), 30.0, 15.0, 6),
        ("ScaleUpCMUnreadyHotCpuScaleWouldScaleDown", (3, 3, 3), 95 / 3, 15.0, 7),
        ("ScaleDown", (5, 5, 5), 0.28, 0.5, 3),
        ("ScaleDownCM", (5, 5, 5), 12.0, 20.0, 3),
        ("ScaleDownIncludeUnreadyPods", (5, 3, 3), 0.3, 0.5, 2),
        ("ScaleDownExcludeUnscheduledPods", (5, 1, 1), 0.1, 0.5, 1),
        ("Tolerance", (3, 3, 3), 1.02, 1.0, 3),
        ("ToleranceCM", (3, 3, 3), 20.666, 20.0, 3),
        ("SuperfluousMetrics", (4, 4, 4), 5.875, 1.0, 24),
        ("MissingMetrics", (4, 4, 2), 0.2475, 1.0, 3),
        ("MissingMetricsNoChangeEq", (2, 2, 1), 1.0, 1.0, 2),
        ("MissingMetricsNoChangeGt", (2, 2, 1), 1.9, 1.0, 2),
        ("MissingMetricsNoChangeLt", (2, 2, 1), 0.6, 1.0, 2),
        ("PlainMetric MissingMetricsNoChangeEq", (5, 5, 3), 20.0, 20.0, 5),
        ("MissingMetricsUnreadyChange", (3, 2, 1), 0.45, 0.5, 3),
        ("MissingMetricsUnreadyScaleUp", (3, 2, 1), 2.0, 0.5, 4),
        ("ComputedToleranceAlgImplementation: out of tolerance", (10, 10, 10), 0.5, 0.56, 9),
        ("ComputedToleranceAlgImplementation: within", (10, 10, 10), 0.5, 0.55, 10),
        ("docs: a ratio at the tolerance", (10, 10, 10), 0.77, 0.7, 10),
        ("docs: a lower ratio at the tolerance", (10, 10, 10), 0.63, 0.7, 10),
        ("docs: unready pods bring the ratio into the tolerance", (3, 2, 2), 1.6, 1.0, 3),
        ("docs: missing pods bring the ratio into the tolerance", (10, 10, 5), 0.85, 1.0, 10),
        ("docs: ceil(2 x 1.2)", (2, 2, 2), 1.2, 1.0, 3),
        ("docs: a float is no reason for one more", (10, 10, 10), 1.1, 0.1, 110),
        ("no ready pod reports", (3, 0, 2), 2.0, 1.0, 3),
        ("more pods report than there are", (2, 2, 9), 2.0, 1.0, 4),
        ("more pods are ready than there are", (2, 9, 9), 2.0, 1.0, 4),
    ],
)
def test_hpa_scales_by_the_ratio(
    *, source: str, counts: tuple[int, int, int], mean: float, target: float, expected: int
) -> None:
    replicas, ready, reporting = counts
    observed = seen(replicas, ready=ready, reporting=reporting, utilisation=mean)

    assert wanted(f"hpa(target={target}, {WIDE})", observed) == expected, source


@pytest.mark.parametrize(
    ("metric", "expected"), [("utilisation", 4), ("waiting", 6), ("running", 8), ("requests", 14), ("rate_rps", 10)]
)
def test_hpa_reads_the_mean_of_the_chosen_metric(metric: str, expected: int) -> None:
    observed = seen(2, utilisation=2.0, waiting=6.0, running=8.0, rate_rps=10.0)

    assert wanted(f"hpa(metric={metric}, target=1, {WIDE})", observed) == expected


RATES = [
    # source, arguments, replicas, wanted, changes as time and difference, expected
    ("desired replicas within range", "minimum=3, maximum=8", 5, 7, (), 7),
    ("desired < minReplicas", "minimum=2, maximum=8", 3, 1, (), 2),
    ("maxReplicas < scaleUpLimit", "maximum=10", 20, 1000, (), 10),
    ("more than maxReplicas", "minimum=100, maximum=150", 100, 1000, (), 150),
    ("scaleUpLimit < maxReplicas", "scale_up_pods=0, scale_up_percent=1", 3, 1000, (), 4),
    ("scaleDownLimit > minReplicas", "minimum=3, scale_down_pods=20, scale_down_percent=0", 1000, 3, (), 980),
    ("default behavior", "", 10, 50, (), 20),
    ("default behavior, 4 pods", "", 3, 50, (), 7),
    ("pods policy > percent policy", "scale_up_pods=100", 10, 500, (), 110),
    ("percent policy > pods policy", "scale_up_pods=2", 10, 500, (), 20),
    ("large pod policy", "scale_up_pods=100, scale_up_percent=0", 10, 50, (), 50),
    ("pod policy limitation", "scale_up_pods=30, scale_up_percent=0", 10, 50, (), 40),
    ("percent policy limitation", "scale_up_pods=0, scale_up_percent=200", 10, 50, (), 30),
    ("down: pod policy > percent policy", "scale_down_pods=20, scale_down_percent=1", 100, 2, (), 80),
    ("down: percent policy < pod policy", "scale_down_pods=2, scale_down_percent=1", 100, 2, (), 98),
    ("down: large pod policy", "scale_down_pods=100, scale_down_percent=0", 10, 0, (), 1),
    ("down: large percent policy", "minimum=5", 10, 2, (), 5),
    ("down: pod policy limitation", "scale_down_pods=5, scale_down_percent=0", 10, 2, (), 5),
    ("down: percent policy limitation", "scale_down_percent=50", 10, 5, (), 5),
    ("up: max and events", "maximum=200, scale_up_pods=300, scale_up_period_s=60", 100, 500, (1, 5, 9), 200),
    ("up: a lot of events", "scale_up_pods=5, scale_up_percent=0, scale_up_period_s=120", 100, 500, (1, 5, 9), 100),
    ("up: pod policy, events", "scale_up_pods=150, scale_up_percent=0, scale_up_period_s=120", 100, 500, (1, 5, 9), 235),
    (
        "up: percent policy, events",
        "scale_up_pods=0, scale_up_percent=200, scale_up_period_s=120", 100, 500, (1, 5, 9), 255,
    ),
    ("down: default and events", "", 10, 5, (-1, -5, -9), 5),
    (
        "down: large pod policy, events",
        "scale_down_pods=115, scale_down_percent=0, scale_down_period_s=120", 100, 0, (-1, -5, -9), 1,
    ),
    ("down: min, percent, events", "minimum=5, scale_down_period_s=120", 100, 2, (-1, -5, -9), 5),
    (
        "down: pod policy, events",
        "scale_down_pods=5, scale_down_percent=0, scale_down_period_s=120", 100, 2, (-1, -5, -9), 100,
    ),
    ("down: percent, events", "scale_down_percent=50, scale_down_period_s=120", 100, 0, (-2, -4, -6), 56),
    ("down: events prevent more", "scale_down_percent=10, scale_down_period_s=120", 100, 0, (-10, -10, -10), 100),
    ("up: outdated events", "scale_up_pods=50, scale_up_percent=0, scale_up_period_s=60", 100, 200, (9, 8, 7), 143),
    ("down: outdated events", "scale_down_pods=50, scale_down_percent=0, scale_down_period_s=60", 100, 5, (-9, -8, -7), 57),
    ("docs: 10 % of 80 is 8", "scale_down_pods=4, scale_down_percent=10, scale_down_period_s=60", 80, 10, (), 72),
    ("docs: 10 % of 72 is rounded up to 8", "scale_down_pods=4, scale_down_percent=10", 72, 10, (), 64),
    ("docs: 4 pods of 40 or fewer", "scale_down_pods=4, scale_down_percent=10", 39, 10, (), 35),
    ("docs: disable scale down", "scale_down_percent=0", 10, 2, (), 10),
    ("the same for scale up", "scale_up_pods=0, scale_up_percent=0", 10, 20, (), 10),
    ("up: one more in per cent of 1", "scale_up_pods=0, scale_up_percent=10", 1, 5, (), 2),
]  # fmt: skip


@pytest.mark.parametrize(("source", "text", "replicas", "count", "deltas", "expected"), RATES)
def test_the_pace_limits_a_change_within_its_period(
    *, source: str, text: str, replicas: int, count: int, deltas: tuple[int, ...], expected: int
) -> None:
    """Events are 100 s, 60 s and 20 s old, as by generateEventsUniformDistribution."""
    numbers = {"maximum": "1000", "scale_down_window_s": "0"} | dict(
        part.split("=") for part in text.split(", ") if part
    )
    policy = ", ".join(f"{key}={value}" for key, value in numbers.items())
    changes = tuple(zip((-100.0, -60.0, -20.0), deltas, strict=False))

    observed = seen(replicas, rate_rps=float(count))
    cold = seen(replicas, ready=0, rate_rps=float(count))  # the pace counts wanted replicas
    trigger = f"keda(metric=rate_rps, threshold=1, {policy}{'' if 'minimum' in policy else ', minimum=1'})"

    assert wanted(f"hpa(metric=rate_rps, target=1, {policy})", observed, changes=changes) == expected, source
    assert wanted(trigger, cold, changes=changes) == expected, source


@pytest.mark.parametrize(
    ("source", "earlier", "replicas", "count", "expected"),
    [
        ("empty log", (), 5, 5, 5),
        ("recordInitialRecommendation", (), 5, 3, 5),
        ("stabilize", ((-120.0, 4), (-60.0, 5)), 5, 3, 5),
        ("no stabilize", ((-120.0, 1), (-60.0, 2)), 2, 3, 3),
        ("no stabilize - old recommendations", ((-600.0, 10), (-540.0, 9)), 9, 3, 3),
        ("stabilize - old recommendations", ((-600.0, 10), (-60.0, 4), (-120.0, 5), (-540.0, 9)), 9, 3, 5),
        ("docs: 5 minutes", ((-299.0, 8),), 8, 3, 8),
        ("docs: 5 minutes are over", ((-300.0, 8),), 8, 3, 3),
    ],
)
def test_the_highest_count_of_the_window_limits_a_fall(
    *, source: str, earlier: tuple[tuple[float, int], ...], replicas: int, count: int, expected: int
) -> None:
    observed = seen(replicas, rate_rps=float(count))
    text = "hpa(metric=rate_rps, target=1, maximum=100)"

    assert wanted(text, observed, recommendations=earlier) == expected, source


@pytest.mark.parametrize(
    ("earlier", "expected"), [(((-59.0, 2),), 2), (((-60.0, 2),), 4), (((-59.0, 3),), 3), (((-30.0, 9),), 4)]
)
def test_the_lowest_count_of_the_window_limits_a_rise(earlier: tuple[tuple[float, int], ...], expected: int) -> None:
    observed = seen(2, rate_rps=4.0)
    text = "hpa(metric=rate_rps, target=1, scale_up_window_s=60)"

    assert wanted(text, observed, recommendations=earlier) == expected


def test_a_window_counts_wanted_replicas() -> None:
    text = "keda(metric=rate_rps, threshold=1, minimum=1, maximum=9, scale_up_window_s=60)"
    cold = seen(3, ready=1, rate_rps=6.0)

    assert wanted(text, cold, recommendations=((-59.0, 2),)) == 3
    assert wanted(text, replace(cold, rate_rps=1.0), recommendations=()) == 3


def test_hpa_doubles_every_15_s_and_falls_after_300_s() -> None:
    """Docs: 4 pods or 100 % every 15 s, and a window of 300 s for scaling down."""
    busy = [{"now_s": at_s, "rate_rps": 100.0} for at_s in (0.0, 5.0, 15.0, 20.0, 30.0, 45.0)]
    idle = [{"now_s": at_s, "rate_rps": 1.0} for at_s in (60.0, 330.0, 344.0, 345.0)]

    counts = followed("hpa(metric=rate_rps, target=1, maximum=64)", [*busy, *idle], replicas=3)
    cold = [{**one, "ready": 1} for one in (*busy, *idle)]

    assert counts == [7, 7, 14, 14, 28, 56, 56, 56, 56, 1]
    assert followed("keda(metric=rate_rps, threshold=1, minimum=1, maximum=64)", cold, replicas=3) == counts


@pytest.mark.parametrize(
    ("replicas", "earlier", "rate_rps", "reason"),
    [
        (2, (), 4.0, "rate_rps 2 a replica, target 1: 4 wanted"),
        (4, ((-9.0, 4),), 2.0, "rate_rps 0.5 a replica, target 1: 2 wanted, 4 by the window"),
        (2, (), 9.0, "rate_rps 4.5 a replica, target 1: 9 wanted, 6 by the rate"),
        (10, (), 1.0, "10 replicas are outside of 1 to 9"),
    ],
)
def test_a_reason_has_each_step(
    *, replicas: int, earlier: tuple[tuple[float, int], ...], rate_rps: float, reason: str
) -> None:
    observed = seen(replicas, rate_rps=rate_rps)
    state = settled(observed, **({"recommendations": earlier} if earlier else {}))

    assert decide(parse("hpa(metric=rate_rps, target=1, maximum=9)"), observed, state).reason == reason


def test_a_change_that_was_not_made_limits_nothing() -> None:
    policy = parse("hpa(metric=rate_rps, target=1, maximum=64)")
    state = State()
    for at_s in (0.0, 1.0, 2.0):  # a dry run
        decision = decide(policy, seen(3, now_s=at_s, rate_rps=100.0), state)
        state = decision.state

        assert decision.desired == 7


def test_a_dead_replica_is_not_replaced_by_hpa() -> None:
    """At the peak one of two dies: the busy one alone is 1.0 of 0.7, and both 0.5."""
    assert wanted("hpa()", seen(2, ready=1, utilisation=1.0)) == 2
    assert wanted("hpa()", seen(2, ready=2, utilisation=1.0)) == 3


@pytest.mark.parametrize(
    ("source", "replicas", "value", "threshold", "expected"),
    [
        ("Kubernetes: ScaleUpPerPodCMExternal", 3, 8.6, 2.15, 4),
        ("Kubernetes: ScaleUpCMPerPodObject", 3, 20.0, 5.0, 4),
        ("Kubernetes: ScaleDownPerPodCMExternal", 5, 8.6, 2.867, 3),
        ("Kubernetes: ScaleDownPerPodCMObject", 5, 6.0, 2.0, 3),
        ("Kubernetes: TolerancePerPodCMExternal", 3, 8.6, 2.9, 3),
        ("Kubernetes: TolerancePerPodCMObject", 4, 20.166, 5.0, 4),
        ("production stack: 6 waiting of 5", 1, 6.0, 5.0, 2),
        ("production stack: 5 waiting of 5", 1, 5.0, 5.0, 1),
        ("a ratio at the tolerance", 1, 5.5, 5.0, 1),
        ("TestScaleToMinReplicasFromLowerInitialReplicaCount", 0, 5.0, 5.0, 1),
    ],
)
def test_keda_divides_the_value_by_the_threshold(
    *, source: str, replicas: int, value: float, threshold: float, expected: int
) -> None:
    text = f"keda(metric=waiting, threshold={threshold}, {WIDE})"

    assert wanted(text, seen(replicas, ready=0, reporting=0, waiting=value), polled_at_s=0.0 - 30.0) == expected, source


@pytest.mark.parametrize(
    ("source", "text", "replicas", "value", "memory", "expected"),
    [
        ("TestScaleToMinReplicasWhenNotActive", "", 10, 0.0, {}, 0),
        ("TestScaleToMinReplicasFromLowerInitialReplicaCount", "minimum=5", 1, 0.0, {}, 5),
        ("TestScaleFromMinReplicasWhenActive", "", 0, 1.0, {}, 1),
        ("scaleFromZero: with a minimum", "minimum=5", 0, 1.0, {}, 5),
        ("docs: cooldownPeriod", "", 3, 0.0, {"active_at_s": -299.0}, 1),
        ("docs: cooldownPeriod, at its end", "", 3, 0.0, {"active_at_s": -300.0}, 1),
        ("docs: cooldownPeriod is over", "", 3, 0.0, {"active_at_s": -300.1}, 0),
        ("docs: cooldownPeriod concerns 0 alone", "minimum=1", 3, 0.0, {"active_at_s": -1000.0}, 1),
        ("docs: activation, at the threshold", "activation=5", 0, 5.0, {}, 0),
        ("docs: activation, above it", "activation=5", 0, 5.1, {}, 1),
        ("docs: inactive below activation", "activation=50, threshold=10", 4, 40.0, {}, 0),
        ("docs: pollingInterval", "", 0, 9.0, {"polled_at_s": -29.0}, 0),
        ("docs: pollingInterval is over", "", 0, 9.0, {"polled_at_s": -30.0}, 1),
        ("docs: HPA decides between two polls", "", 3, 0.0, {"polled_at_s": -29.0}, 1),
        ("no activation at an inactive poll", "", 0, 0.0, {}, 0),
    ],
)  # fmt: skip
def test_keda_decides_between_0_and_1_at_its_polls(
    *, source: str, text: str, replicas: int, value: float, memory: dict[str, float], expected: int
) -> None:
    arguments = ", ".join(part for part in (text, "metric=waiting, maximum=10, scale_down_window_s=0") if part)

    assert wanted(f"keda({arguments})", seen(replicas, waiting=value), **memory) == expected, source


def test_keda_starts_at_a_poll_and_stops_after_the_cooldown() -> None:
    loads = {0.0: 0.0, 15.0: 8.0, 30.0: 8.0, 45.0: 8.0, 60.0: 0.0, 330.0: 0.0, 345.0: 0.0, 360.0: 0.0}
    observations = [{"now_s": at_s, "waiting": load} for at_s, load in loads.items()]

    counts = followed("keda(cooldown_s=310)", observations, replicas=0)

    # The poll at 30 s is the last active one. At 345 s it is 315 s old, and the polls
    # are at 330 s and 360 s. The window of 300 s ends at 345 s.
    assert counts == [0, 0, 1, 2, 2, 2, 1, 0]


def test_a_kedas_trigger_counts_waiting_and_running_requests() -> None:
    """With waiting ones alone, replicas that still answer stop after the cooldown."""
    assert wanted("keda()", seen(2, running=8.0)) == 2
    assert wanted("keda(metric=waiting)", seen(2, running=8.0)) == 0


BLIND = [Hpa(), Keda(), Kpa(), Slo(), Queue()]


@pytest.mark.parametrize("policy", BLIND, ids=lambda policy: type(policy).__name__)
def test_a_law_without_data_holds_and_one_with_the_bad_switch_falls(policy: Hpa | Keda | Kpa | Slo | Queue) -> None:
    bad = replace(policy, no_data_is_zero=True)
    state = bad_state = settled(blind(3))
    replicas = 3
    for step in range(100):
        at_s = 15.0 * step
        state = held(policy, blind(3, now_s=at_s), state).state
        decision = decide(bad, blind(replicas, now_s=at_s), bad_state)
        replicas, bad_state = decision.desired, decision.state

    assert held(policy, blind(3, now_s=LONG_AGO_S), state).desired == 3
    assert held(policy, blind(9), state).desired == policy.maximum
    assert replicas == policy.minimum


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("hpa(metric=waiting)", "waiting"), ("hpa(metric=requests)", "waiting"), ("hpa(metric=requests)", "running"),
        ("keda(metric=utilisation)", "utilisation"), ("keda(metric=rate_rps)", "rate_rps"), ("kpa()", "waiting"),
        ("kpa()", "running"), ("queue()", "waiting"), ("queue()", "running"),
    ],
)  # fmt: skip
def test_one_unknown_value_is_enough_to_hold(text: str, missing: str) -> None:
    observed = seen(2, **{missing: None})

    assert held(parse(text), observed, settled(observed)).desired == 2


def test_nothing_reports_is_no_data_for_means() -> None:
    for text in ("hpa()", "queue()"):
        observed = seen(2, reporting=0)

        assert held(parse(text), observed, settled(observed)).desired == 2


def test_a_scraper_of_nothing_is_no_idle_pool() -> None:
    attained = {"first_token_attained": None, "token_gap_attained": None}
    for observed in (seen(2, reporting=0, **attained), seen(2, ready=0, **attained), seen(2, running=1.0, **attained)):
        assert held(Slo(), observed, settled(observed)).desired == 2
