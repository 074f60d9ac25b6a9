"""Properties of every law, and policies as text."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.observations import blind, held, seen, settled

from lab_autoscaler.decision import State
from lab_autoscaler.policies import LAWS, Fixed, Hpa, Keda, Kpa, Queue, Slo, decide
from lab_autoscaler.seen import Observed
from lab_autoscaler.written import InvalidPolicyError, parse, scaled, written
from lab_common.values import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab_autoscaler.policies import Policy

COUNTS = st.integers(0, 12)
LOADS = st.one_of(st.none(), st.floats(0, 1e6), st.integers(0, 40).map(float))
SHARES = st.one_of(st.none(), st.floats(0, 1))
METRIC = st.sampled_from(["utilisation", "waiting", "running", "requests", "rate_rps"])
BOUNDS = st.tuples(st.integers(1, 4), st.integers(4, 12))


@st.composite
def policies(draw: Any, laws: Sequence[str] = tuple(LAWS)) -> Policy:
    name = draw(st.sampled_from(laws))
    if name == "fixed":
        return Fixed(replicas=draw(st.integers(1, 12)))
    minimum, maximum = draw(BOUNDS)
    numbers: dict[str, Any] = {"minimum": minimum, "maximum": maximum, "no_data_is_zero": draw(st.booleans())}
    if name in {"keda", "kpa"}:
        numbers["minimum"] = draw(st.integers(0, minimum))
    if name in {"hpa", "keda"}:
        numbers["metric"] = draw(METRIC)
    times = [field.name for field in fields(LAWS[name]) if field.name.endswith("_s")]
    numbers |= {key: draw(st.sampled_from([1.0, 15.0, 60.0, 300.0])) for key in times}
    law: Any = LAWS[name]
    return law(**numbers)


@st.composite
def observations(draw: Any, now_s: float = 0.0) -> Observed:
    return seen(
        draw(COUNTS), now_s=now_s, ready=draw(COUNTS), reporting=draw(COUNTS), waiting=draw(LOADS), running=draw(LOADS),
        rate_rps=draw(LOADS), utilisation=draw(LOADS), first_token_attained=draw(SHARES), token_gap_attained=draw(SHARES),
    )  # fmt: skip


KUBERNETES = (0.0, 300.0, 4, 100, 15.0, 0, 100, 15.0)


@pytest.mark.parametrize(
    ("policy", "pace", "numbers"),
    [
        # pace: windows up and down, then pods, per cent and period of both
        (Fixed(), None, {"replicas": 1}),
        (Hpa(), KUBERNETES, {"minimum": 1, "metric": "utilisation", "target": 0.7, "tolerance": 0.1}),
        (Keda(), KUBERNETES, {"minimum": 0, "metric": "requests", "threshold": 5, "activation": 0, "tolerance": 0.1}),
        (Keda(), KUBERNETES, {"polling_s": 30, "cooldown_s": 300}),
        (Kpa(), None, {"minimum": 0, "concurrency": 0, "target_utilisation": 0.7, "stable_window_s": 60}),
        (Kpa(), None, {"panic_window_percent": 10, "panic_threshold_percent": 200, "max_scale_up_rate": 1000}),
        (Kpa(), None, {"max_scale_down_rate": 2, "scale_to_zero_grace_s": 30, "scale_down_delay_s": 0}),
        (Slo(), (30.0, 180.0, 4, 100, 60.0, 1, 0, 120.0), {"minimum": 1, "target": 0.9, "smoothing_s": 45, "cap": 2}),
        (Slo(), (30.0, 180.0, 4, 100, 60.0, 1, 0, 120.0), {"comfort": 0.4, "headroom": 0.3}),
        (Queue(), (240.0, 240.0, 10, 0, 150.0, 10, 0, 150.0), {"minimum": 1, "queue_threshold": 5, "queue_spare": 3}),
        (Queue(), (240.0, 240.0, 10, 0, 150.0, 10, 0, 150.0), {"slots_threshold": 0.8, "slots_spare": 0.1}),
    ],
)
def test_the_defaults_are_the_projects(policy: Policy, pace: tuple[float, ...] | None, numbers: dict[str, Any]) -> None:
    """Sources: the docstring of each law."""
    names = [f"scale_{way}_{part}" for way in ("up", "down") for part in ("pods", "percent", "period_s")]
    if pace is not None:
        paced = [getattr(policy, name) for name in ("scale_up_window_s", "scale_down_window_s", *names)]

        assert tuple(paced) == pace
    assert {name: getattr(policy, name) for name in numbers} == numbers
    assert policy.maximum == (1 if isinstance(policy, Fixed) else 4)
    assert not getattr(policy, "no_data_is_zero", False)


@given(policies(), st.data())
def test_every_decision_is_within_the_bounds(policy: Policy, data: st.DataObject) -> None:
    state = State()
    for step in range(4):
        decision = decide(policy, data.draw(observations(now_s=15.0 * step)), state)
        state = decision.state

        assert policy.minimum <= decision.desired <= policy.maximum
        assert decision.reason
        assert "\n" not in decision.reason


@given(policies(tuple(set(LAWS) - {"fixed"})), COUNTS, st.data())
def test_a_law_without_data_never_leaves_its_count(policy: Policy, replicas: int, data: st.DataObject) -> None:
    policy = replace(policy, no_data_is_zero=False)
    state = State()
    for step in range(3):
        state = decide(policy, data.draw(observations(now_s=15.0 * step)), state).state
    for step in range(30):
        decision = held(policy, blind(replicas, ready=replicas, now_s=100.0 + 100.0 * step), state)
        state = decision.state

        assert decision.desired == min(max(replicas, policy.minimum), policy.maximum)


@given(policies(("hpa", "keda", "kpa", "queue")), st.integers(1, 12), st.floats(0, 60), st.floats(0, 60), st.data())
def test_more_load_never_wants_fewer(
    policy: Policy, replicas: int, low: float, more: float, data: st.DataObject
) -> None:
    ready = data.draw(st.integers(0, replicas))
    reporting = data.draw(st.integers(0, ready))

    def desired(load: float) -> int:
        observed = seen(
            replicas, ready=ready, reporting=reporting, waiting=max(0.0, load - 4 * ready), running=min(load, 4.0 * ready),
            rate_rps=load, utilisation=load / 4,
        )  # fmt: skip
        return decide(policy, observed, settled(observed)).desired

    assert desired(low) <= desired(low + more)


@given(policies(("slo",)), st.integers(1, 12), SHARES, st.tuples(st.floats(0, 1), st.floats(0, 1)), st.floats(0, 60))
def test_fewer_requests_in_time_never_want_fewer_replicas(
    policy: Policy, replicas: int, gap: float | None, shares: tuple[float, float], load: float
) -> None:
    def desired(first: float) -> int:
        observed = seen(replicas, first_token_attained=first, token_gap_attained=gap, running=load)
        return decide(policy, observed, settled(observed)).desired

    assert desired(max(shares)) <= desired(min(shares))


@pytest.mark.parametrize("name", LAWS)
def test_memory_is_bounded(name: str) -> None:
    policy = parse(f"{name}(5)" if name == "fixed" else f"{name}(maximum=9)")
    state, sizes = State(), []
    for step in range(1200):
        busy = step // 40 % 2
        load = 90.0 * busy
        observed = seen(
            1 + step % 7,
            now_s=2.0 * step,
            waiting=load,
            running=load,
            utilisation=load,
            first_token_attained=1.0 - busy,
        )
        state = decide(policy, observed, state).state
        sizes.append(sum(len(part) for part in (state.samples, state.changes, state.recommendations)))

    # The longest windows of a law last 300 s, 60 s and 150 s, at one entry in 2 s.
    assert max(sizes[600:]) == max(sizes[300:600]) <= 260


@given(policies(), observations(), observations(now_s=15.0))
def test_a_decision_depends_on_its_input_alone(policy: Policy, first: Observed, second: Observed) -> None:
    state = decide(policy, first, State()).state

    assert decide(policy, second, state) == decide(policy, second, state)


@given(policies(), st.sampled_from([0.05, 0.5, 3.0]), st.data())
@settings(max_examples=60)
def test_scaled_times_lead_to_the_same_decisions(policy: Policy, factor: float, data: st.DataObject) -> None:
    faster, state, fast_state = scaled(policy, factor), State(), State()
    for step in range(6):
        observed = data.draw(observations(now_s=16.0 * step))
        decision = decide(policy, observed, state)
        fast = decide(faster, replace(observed, now_s=observed.now_s * factor), fast_state)
        state, fast_state = decision.state, fast.state

        assert fast.desired == decision.desired


def test_every_time_is_scaled() -> None:
    assert scaled(Fixed(replicas=3), 0.1) == Fixed(replicas=3)
    assert written(scaled(Kpa(), 0.1)) == "kpa(stable_window_s=6.0, scale_to_zero_grace_s=3.0)"
    assert written(scaled(Keda(scale_up_window_s=10), 0.5)) == (
        "keda(scale_up_window_s=5.0, scale_down_window_s=150.0, scale_up_period_s=7.5, scale_down_period_s=7.5, "
        "polling_s=15.0, cooldown_s=150.0)"
    )
    for factor in (0.0, -1.0, math.nan):
        with pytest.raises(InvalidPolicyError, match=r"^the factor of a policy's times must be greater than 0, got "):
            scaled(Hpa(), factor)
    with pytest.raises(
        InvalidPolicyError, match=r"^hpa\(\) with times multiplied by 1e\+06: scale_down_window_s must be"
    ):
        scaled(Hpa(), 1e6)


@given(policies())
def test_a_written_policy_is_read_again(policy: Policy) -> None:
    assert parse(written(policy)) == policy
    assert written(parse(written(policy))) == written(policy)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("fixed(3)", Fixed(replicas=3)),
        ("fixed(replicas=3)", Fixed(replicas=3)),
        (" hpa( target = 0.7 , maximum = 8 ) ", Hpa(target=0.7, maximum=8)),
        ("hpa(metric=waiting, target=2)", Hpa(metric="waiting", target=2)),
        ("hpa(metric='waiting', target=2)", Hpa(metric="waiting", target=2.0)),
        ("keda(minimum=1, no_data_is_zero=True)", Keda(minimum=1, no_data_is_zero=True)),
        ("slo()", Slo()),
        ("queue(queue_spare=0)", Queue(queue_spare=0)),
    ],
)
def test_a_policy_is_read_from_text(text: str, policy: Policy) -> None:
    assert parse(text) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'', invalid syntax: expected a policy such as hpa(target=0.7, maximum=8)"),
        ("hpa", "'hpa': expected a policy such as hpa(target=0.7, maximum=8)"),
        ("hpa(", "'hpa(', '(' was never closed: expected a policy such as hpa(target=0.7, maximum=8)"),
        ("hpa\x00()", "expected a policy such as hpa(target=0.7, maximum=8)"),
        ("vpa()", "'vpa()': 'vpa' is not a policy, expected one of fixed, hpa, keda, kpa, slo, queue"),
        ("a.hpa()", "'a.hpa' is not a policy"),
        ("hpa(0.7)", "'hpa(0.7)': expected arguments by name, such as hpa(maximum=8)"),
        ("fixed(3, 4)", "'fixed(3, 4)': expected arguments by name, such as fixed(3)"),
        ("fixed(3, replicas=4)", "'fixed(3, replicas=4)': replicas is given twice"),
        ("hpa(target=1, target=2)", "'hpa(target=1, target=2)': target is given twice"),
        ("hpa(goal=1)", "'hpa(goal=1)': hpa has no 'goal', expected one of minimum, maximum, "),
        ("hpa(**{})", "hpa has no None, expected one of "),
        ("hpa(target=[1])", "'hpa(target=[1])': [1] is not a number, True, False or a metric's name"),
        ("hpa(target=open('x'))", "open('x') is not a number"),
        ("hpa(target=None)", "None is not a number"),
        ("hpa(target=0)", "'hpa(target=0)': target must be greater than 0, got 0"),
        ("hpa(target=1e999)", "target must be a finite number, got inf"),
        ("hpa(target=True)", "target must be a finite number, got True"),
        ("hpa(target=high)", "target must be a finite number, got 'high'"),
        ("hpa(tolerance=-0.1)", "tolerance must be at least 0, got -0.1"),
        ("hpa(metric=cpu)", "metric must be one of utilisation, waiting, running, requests, rate_rps, got 'cpu'"),
        ("hpa(minimum=0)", "minimum must be at least 1, got 0"),
        ("keda(minimum=-1)", "minimum must be at least 0, got -1"),
        ("kpa(minimum=-1)", "minimum must be at least 0, got -1"),
        ("slo(minimum=0)", "minimum must be at least 1, got 0"),
        ("queue(minimum=0)", "minimum must be at least 1, got 0"),
        ("hpa(minimum=1.5)", "minimum must be a whole number, got 1.5"),
        ("hpa(minimum=5, maximum=4)", "maximum must be at least 5, got 4"),
        ("kpa(maximum=0)", "maximum must be at least 1, got 0"),
        ("hpa(maximum=10001)", "maximum must be at most 10000, got 10001"),
        ("hpa(no_data_is_zero=1)", "no_data_is_zero must be True or False, got 1"),
        ("hpa(scale_down_window_s=-1)", "scale_down_window_s must be at least 0, got -1"),
        ("hpa(scale_up_window_s=2000000)", "scale_up_window_s must be at most 1e+06, got 2000000"),
        ("hpa(scale_down_percent=101)", "scale_down_percent must be at most 100, got 101"),
        ("hpa(scale_down_percent=-1)", "scale_down_percent must be at least 0, got -1"),
        ("hpa(scale_up_pods=-1)", "scale_up_pods must be at least 0, got -1"),
        ("hpa(scale_up_percent=100001)", "scale_up_percent must be at most 100000, got 100001"),
        ("keda(metric=cpu)", "metric must be one of "),
        ("keda(threshold=0)", "threshold must be greater than 0, got 0"),
        ("keda(activation=-1)", "activation must be at least 0, got -1"),
        ("keda(polling_s=-1)", "polling_s must be at least 0, got -1"),
        ("keda(cooldown_s=-1)", "cooldown_s must be at least 0, got -1"),
        ("keda(tolerance=-1)", "tolerance must be at least 0, got -1"),
        ("kpa(concurrency=-1)", "concurrency must be at least 0, got -1"),
        ("kpa(target_utilisation=1.1)", "target_utilisation must be at most 1, got 1.1"),
        ("kpa(target_utilisation=0)", "target_utilisation must be greater than 0, got 0"),
        ("kpa(stable_window_s=0)", "stable_window_s must be greater than 0, got 0"),
        ("kpa(panic_window_percent=0.5)", "panic_window_percent must be at least 1, got 0.5"),
        ("kpa(panic_window_percent=101)", "panic_window_percent must be at most 100, got 101"),
        ("kpa(panic_threshold_percent=100)", "panic_threshold_percent must be greater than 100, got 100"),
        ("kpa(max_scale_up_rate=1)", "max_scale_up_rate must be greater than 1, got 1"),
        ("kpa(max_scale_down_rate=1)", "max_scale_down_rate must be greater than 1, got 1"),
        ("kpa(scale_to_zero_grace_s=-1)", "scale_to_zero_grace_s must be at least 0, got -1"),
        ("slo(target=1)", "target must be less than 1, got 1"),
        ("slo(target=0)", "target must be greater than 0, got 0"),
        ("slo(comfort=1)", "comfort must be less than 1, got 1"),
        ("slo(headroom=1.0)", "headroom must be less than 1, got 1.0"),
        ("slo(smoothing_s=-1)", "smoothing_s must be at least 0, got -1"),
        ("slo(cap=0)", "cap must be greater than 0, got 0"),
        ("queue(queue_threshold=0)", "queue_threshold must be greater than 0, got 0"),
        ("queue(queue_spare=6)", "queue_spare must be at most 5, got 6"),
        ("queue(slots_threshold=0)", "slots_threshold must be greater than 0, got 0"),
        ("queue(slots_spare=0.9)", "slots_spare must be at most 0.8, got 0.9"),
        ("fixed(0)", "replicas must be at least 1, got 0"),
        ("fixed(10001)", "replicas must be at most 10000, got 10001"),
    ],
)  # fmt: skip
def test_a_bad_text_is_one_line_with_the_way_out(text: str, message: str) -> None:
    with pytest.raises(InvalidPolicyError) as error:
        parse(text)

    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("now_s", math.nan, "now_s must be a finite number, got nan"),
        ("replicas", -1, "replicas must be at least 0, got -1"),
        ("ready", 1.0, "ready must be a whole number, got 1.0"),
        ("reporting", None, "reporting must be a whole number, got None"),
        ("slots", 0, "slots must be at least 1, got 0"),
        ("waiting", -1.0, "waiting must be at least 0, got -1.0"),
        ("running", math.nan, "running must be a finite number, got nan"),
        ("rate_rps", math.inf, "rate_rps must be a finite number, got inf"),
        ("utilisation", -0.1, "utilisation must be at least 0, got -0.1"),
        ("first_token_attained", 1.1, "first_token_attained must be at most 1, got 1.1"),
        ("token_gap_attained", math.nan, "token_gap_attained must be a finite number, got nan"),
    ],
)
def test_an_observation_of_nonsense_is_an_error(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{message}$"):
        seen(**{field: value})
