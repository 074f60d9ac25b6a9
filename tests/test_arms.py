"""Arms of an experiment: settings, plans, schedule, and effects with intervals."""

import math
import random
from fractions import Fraction

import msgspec
import pytest
from msgspec import UNSET

from pytest_llmchaos import BadScenario, arm, experiment, faults, loads
from pytest_llmchaos.errors import Inconclusive, TooFewSamples, VacuousClaim
from pytest_llmchaos.evidence.trial_result import ArmEffect, LoadResult
from pytest_llmchaos.model import Sample
from pytest_llmchaos.plan.arms import settings_words, with_fewest_changes
from pytest_llmchaos.plan.schedule import _pair_of, entry_of, plan_trial, schedule
from pytest_llmchaos.stats.intervals import Estimate, Z, contrast, difference, least_for_interval, ranks, ratio, share
from pytest_llmchaos.stats.quantiles import Quantiles
from pytest_llmchaos.stats.windows import windows
from pytest_llmchaos.trial.arms import Arms
from pytest_llmchaos.trial.recovery import Recovery
from pytest_llmchaos.trial.result import effect_note, plan_note
from pytest_llmchaos.trial.trial import Trial

LOAD = loads.open_loop(rate_rps=2, max_tokens=8)
OFF = arm(environment={"api": {"LAB_BREAKER": "off"}})
BOTH = {"on": arm(), "off": OFF}
SERVICES = ("api", "model-1", "model-2")


def made(**arguments):
    given = {"load": LOAD, "fault": faults.kill("model-*"), "arms": BOTH, **arguments}
    return experiment(**given).kwargs["experiment"]


def planned(name, *, of=None, number=0, repeat=0, scenario="s"):
    of = of or made()
    return plan_trial(
        scenario=scenario,
        hypothesis="",
        experiment=of,
        fault=of.faults[number],
        repeat=repeat,
        seed=7,
        services=SERVICES,
        arm=name,
    )


class TestAutoscaler:
    @pytest.mark.parametrize(
        ("given", "text"),
        [
            ("slo", "slo()"),
            (" hpa(target=0.7, maximum=8) ", "hpa(target=0.7, maximum=8)"),
            ("fixed(2)", "fixed(2)"),
            ("queue( )", "queue( )"),
            ("keda(metric='waiting', no_data_is_zero=True)", "keda(metric='waiting', no_data_is_zero=True)"),
        ],
    )
    def test_a_policy_is_a_name_with_arguments(self, given, text):
        assert made(autoscaler=given).autoscaler == arm(autoscaler=given).autoscaler == text

    @pytest.mark.parametrize(
        "given", [2, True, "", "slo(", "slo()()", "hpa(0.7 0.8)", "Slo", "fixed(2)\n; rm", "a(b=)"]
    )
    def test_anything_else_is_refused(self, given):
        with pytest.raises(BadScenario, match=r"experiment\(autoscaler=\.\.\.\) must be a policy by name"):
            made(autoscaler=given)
        with pytest.raises(BadScenario, match=r"arm\(autoscaler=\.\.\.\) must be a policy by name"):
            arm(autoscaler=given)

    def test_the_policy_of_an_arm_goes_before_that_of_the_experiment(self):
        arms = {"slo": arm(autoscaler="slo", environment={"autoscaler": {"LAB_DRAIN_S": "0"}}), "hpa": arm()}
        plans = [
            plan_trial(
                scenario="s",
                hypothesis="",
                experiment=(of := made(arms=arms, autoscaler="hpa")),
                fault=of.faults[0],
                repeat=0,
                seed=7,
                services=(*SERVICES, "autoscaler"),
                arm=name,
            )
            for name in arms
        ]

        assert [plan.autoscaler for plan in plans] == ["slo()", "hpa()"]
        assert [plan.variables for plan in plans] == [
            {"autoscaler": {"LAB_DRAIN_S": "0", "LAB_POLICY": "slo()"}},
            {"autoscaler": {"LAB_POLICY": "hpa()"}},
        ]
        assert [plan.environment for plan in plans] == [{"autoscaler": {"LAB_DRAIN_S": "0"}}, {}]
        assert [entry_of(plan).autoscaler for plan in plans] == ["slo()", "hpa()"]
        assert [plan_note(plan).autoscaler for plan in plans] == ["slo()", "hpa()"]
        assert all("configure" in plan.needs for plan in plans)
        assert len({_pair_of(entry_of(plan)) for plan in plans}) == 1

    def test_without_a_policy_there_is_no_autoscaler(self):
        plan = planned("on")

        assert (plan.autoscaler, plan.variables, entry_of(plan).autoscaler) == (None, {}, UNSET)
        assert [made(autoscaler=policy).is_scaled for policy in (None, "slo")] == [False, True]
        assert made(arms={"on": arm(autoscaler="slo"), "off": arm()}).is_scaled


class TestSettings:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"environment": 5}, r"arm\(environment=\.\.\.\) must map services to their variables, .*got 5"),
            ({"environment": {"api": {"LAB_BREAKER": 0}}}, r"arm\(environment=\.\.\.\) must give LAB_BREAKER .* got 0"),
            ({"remediator": "no"}, r"arm\(remediator=\.\.\.\) must be True, False or None, got 'no'"),
        ],
        ids=["no mapping", "no text", "remediator"],
    )
    def test_a_wrong_argument_is_refused_when_the_arm_is_made(self, arguments, message):
        with pytest.raises(BadScenario, match=message):
            arm(**arguments)

    @pytest.mark.parametrize(
        ("arms", "message"),
        [
            ([arm()], "must map names to arms, such as .*LAB_BREAKER.* got "),
            ({}, "needs 2 or more arms to compare, .*got 0: add one or drop arms"),
            ({"on": arm()}, ".*got 1: add one"),
            ({"on": arm(), "Off": OFF}, "must name arms by lower-case words, such as 'on' or 'no_retry', got 'Off'"),
            ({"on": arm(), "not on": OFF}, "must name arms .*got 'not on'"),
            ({"on": arm(), "": OFF}, "must name arms .*got ''"),
            ({"on": arm(), 5: OFF}, "must name arms .*got 5"),
            ({"on": arm(), "off": {"LAB_BREAKER": "off"}}, "must give 'off' an arm, such as .* got {'LAB_BREAKER'"),
        ],
        ids=["list", "none", "one", "capital", "blank", "empty", "number", "no arm"],
    )
    def test_what_are_not_two_named_arms_is_refused(self, arms, message):
        with pytest.raises(BadScenario, match=rf"experiment\(arms=\.\.\.\) {message}"):
            made(arms=arms)

    def test_an_arm_is_a_value_and_an_experiment_keeps_their_order(self):
        assert arm(environment={"api": {"LAB_BREAKER": "off"}, "model-1": {}}, remediator=None) == OFF
        assert arm() != OFF
        assert list(made(arms={"on": arm(), "no_retry": OFF, "a2": arm()}).arms) == ["on", "no_retry", "a2"]
        assert made(arms=None).arms == {}

    def test_variables_are_shown_by_service(self):
        shown = {"api": {"A": "1", "B": "2"}, "model-1": {"C": "x y"}}

        assert settings_words(shown) == "api: A=1 B=2; model-1: C=x y"
        assert settings_words({}) == ""


class TestAPlan:
    def test_arms_have_the_same_acts_and_requests(self):
        fault = faults.random(n=4, among=[faults.kill("api"), faults.kill("model-*")], within_s=20)
        plans = [planned(name, of=made(fault=fault)) for name in BOTH]
        on, off = map(entry_of, plans)

        assert (on.injections, on.arrivals_sha256) == (off.injections, off.arrivals_sha256)
        assert ((on.arm, on.environment), (off.arm, off.environment)) == (
            ("on", UNSET),
            ("off", {"api": {"LAB_BREAKER": "off"}}),
        )
        assert plans[0].key != plans[1].key

    def test_the_arm_decides_on_the_remediator_or_leaves_it_to_the_experiment(self):
        of = made(remediator=False, arms={"bare": arm(), "helped": arm(remediator=True)})

        assert [planned(name, of=of).remediator for name in of.arms] == [False, True]
        assert [entry_of(planned(name, of=of)).remediator for name in of.arms] == [False, True]
        assert plan_note(planned("helped", of=of)).remediator is True

    def test_an_arm_with_variables_needs_the_ability_to_configure(self):
        assert planned("on").needs == faults.kill("api").needs
        assert planned("off").needs == faults.kill("api").needs | {"configure"}
        assert planned("", of=made(arms=None)).needs == faults.kill("api").needs

    def test_its_note_has_the_arm_and_its_variables(self):
        on, off, plain = (
            plan_note(planned(name, of=of)) for name, of in (*dict.fromkeys(BOTH).items(), ("", made(arms=None)))
        )

        assert [(one.arm, one.environment) for one in (on, off, plain)] == [
            ("on", {}),
            ("off", {"api": {"LAB_BREAKER": "off"}}),
            (None, {}),
        ]

    def test_variables_of_a_service_that_may_not_be_hit_are_refused_with_its_scenario_and_arm(self):
        of = made(arms={"on": arm(), "off": arm(environment={"apii": {"LAB_BREAKER": "off"}})})

        with pytest.raises(BadScenario, match=r"scenario 's', arm 'off': .*\(api, model-1, model-2\), got 'apii'"):
            planned("off", of=of)

    def test_the_schedule_of_an_experiment_without_arms_has_no_word_of_them(self):
        entry = msgspec.to_builtins(entry_of(planned("", of=made(arms=None))))

        assert not {"arm", "environment"} & set(entry)


class TestTheOrder:
    def test_arms_of_one_pair_follow_each_other_and_the_next_pair_begins_where_it_ended(self):
        of = made(fault=[faults.kill("api"), faults.kill("model-1")])
        plans = [
            planned(name, of=of, number=number, repeat=repeat)
            for name in BOTH
            for number in (1, 0)
            for repeat in (1, 0)
        ]
        in_order = [(one.entry.fault, one.entry.repeat, one.entry.arm) for one in schedule(plans)]

        assert in_order == [
            ("kill api", 0, "on"),
            ("kill api", 0, "off"),
            ("kill api", 1, "off"),
            ("kill api", 1, "on"),
            ("kill model-1", 0, "on"),
            ("kill model-1", 0, "off"),
            ("kill model-1", 1, "off"),
            ("kill model-1", 1, "on"),
        ]
        assert [one.plan for one in schedule(reversed(plans))] == [one.plan for one in schedule(plans)]

    def test_equal_settings_stand_together_and_names_keep_their_order(self):
        of = made(arms={"off": OFF, "on": arm(), "bare": arm(remediator=False), "again": OFF})

        assert [one.plan.arm for one in schedule([planned(name, of=of) for name in of.arms])] == [
            "on",
            "bare",
            "off",
            "again",
        ]
        assert with_fewest_changes(list("abc"), [{}, OFF.environment, {}], OFF.environment) == ["b", "a", "c"]

    def test_two_experiments_of_a_file_keep_their_pairs(self):
        slow, fast = (made(load=loads.open_loop(rate_rps=rate)) for rate in (2, 3))
        plans = [planned(name, of=of) for name in BOTH for of in (slow, fast)]
        found = schedule(plans)

        assert [one.plan.arm for one in found] == ["on", "off", "off", "on"]
        assert found[0].plan.experiment is found[1].plan.experiment is not found[2].plan.experiment

    def test_the_selection_of_one_arm_is_a_schedule_too(self):
        assert [one.plan.arm for one in schedule([planned("off")])] == ["off"]


class TestIntervals:
    @pytest.mark.parametrize(("q", "least"), [(0.5, 6), (0.95, 72), (0.99, 368), (0.05, 72), (0.01, 368)])
    def test_both_ends_of_a_quantile_need_so_many_values(self, q, least):
        low, high = ranks(q, least)

        assert least_for_interval(q) == least
        assert 1 <= low <= high <= least
        low, high = ranks(q, least - 1)
        assert low == 0 or high == least

    @pytest.mark.parametrize("n", [1, 20, 368, 1000, 1001])
    @pytest.mark.parametrize("q", [Fraction(1, 2), Fraction(9, 10), Fraction(99, 100)], ids=str)
    def test_the_ranks_are_those_of_the_binomial(self, q, n):
        ways = [math.comb(n, k) * q.numerator**k * (q.denominator - q.numerator) ** (n - k) for k in range(n + 1)]
        rare = Fraction(1, 40) * q.denominator**n  # 2.5 %
        low, high = ranks(float(q), n)

        assert sum(ways[:low]) <= rare < sum(ways[: low + 1])
        assert sum(ways[high:]) <= rare < sum(ways[high - 1 :])

    def test_the_ranks_of_a_million_are_near_those_of_the_normal_distribution(self):
        half = Z * math.sqrt(1e6 * 0.01 * 0.99)

        assert ranks(0.99, 1_000_000) == pytest.approx((990_000 - half, 990_000 + half), abs=3)

    def test_a_finite_contrast_is_the_difference(self):
        assert contrast(share(9, 10), share(3, 10)) == difference(share(9, 10), share(3, 10))

    @pytest.mark.parametrize(
        ("first", "second", "ends"),
        [
            ((1, 1, 2), (math.inf, 5, math.inf), (-math.inf, -math.inf, -3)),
            ((1, 1, 2), (math.inf, math.inf, math.inf), (-math.inf, -math.inf, -math.inf)),
            ((math.inf, 5, math.inf), (1, 1, 2), (math.inf, 3, math.inf)),
            ((math.inf, 5, math.inf), (1, 1, math.inf), (math.inf, -math.inf, math.inf)),
            ((1, 1, math.inf), (math.inf, 5, math.inf), (-math.inf, -math.inf, math.inf)),
            ((1, 1, math.inf), (math.inf, math.inf, math.inf), (-math.inf, -math.inf, math.inf)),
            ((math.inf, math.inf, math.inf), (1, 1, math.inf), (math.inf, -math.inf, math.inf)),
        ],
    )
    def test_a_contrast_with_an_infinite_value_has_the_ends_that_both_intervals_allow(self, first, second, ends):
        found = contrast(*(Estimate(value=value, low=low, high=high) for value, low, high in (first, second)))

        assert (found.value, found.low, found.high) == ends

    def test_nothing_is_known_of_two_infinite_values(self):
        failed = Estimate(value=math.inf, low=5, high=math.inf)

        assert contrast(failed, failed) is None
        assert ratio(failed, failed) is None

    def test_a_ratio_is_a_difference_of_logarithms(self):
        found = ratio(Estimate(value=2, low=1, high=4), Estimate(value=8, low=8, high=8))
        wide = ratio(Estimate(value=2, low=1, high=4), Estimate(value=8, low=4, high=16))

        assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.125, 0.5))
        assert math.log(wide.high / wide.value) == pytest.approx(math.hypot(math.log(2), math.log(2)))

    @pytest.mark.parametrize(
        ("first", "second", "ends"),
        [
            ((0, 0, 2), (8, 4, 16), (0, 0, 0.5)),
            ((8, 4, 16), (0, 0, 2), (math.inf, 2, math.inf)),
            ((1, 0, 2), (8, 4, 16), (0.125, 0, None)),
            ((1e300, 1e300, 1e300), (1e-300, 1e-300, 1e-300), (math.inf, math.inf, math.inf)),
        ],
    )
    def test_a_ratio_with_a_zero_has_the_ends_that_both_intervals_allow(self, first, second, ends):
        found = ratio(*(Estimate(value=value, low=low, high=high) for value, low, high in (first, second)))

        assert [found.value, found.low] == pytest.approx(ends[:2])
        assert ends[2] is None or found.high == pytest.approx(ends[2])

    def test_two_zeros_have_no_ratio(self):
        assert ratio(share(0, 20), share(0, 30)) is None

    def test_intervals_of_quantiles_and_ratios_hold_the_truth_about_as_often_as_they_claim(self):
        rng = random.Random(42)

        def tails(n=400):
            return [Quantiles("t", [rng.lognormvariate(mu, 0.5) for _ in range(n)]).estimate(0.95) for mu in (0.7, 0.0)]

        truth = math.exp(0.5 * 1.6448536)  # of the second arm
        pairs = [tails() for _ in range(300)]
        for found, true in (
            ([contrast(*pair) for pair in pairs], truth * (math.exp(0.7) - 1)),
            ([ratio(*pair) for pair in pairs], math.exp(0.7)),
        ):
            assert sum(one.low <= true <= one.high for one in found) / 300 >= 0.93


class TestAQuantile:
    def test_its_interval_lies_between_two_of_its_values(self):
        found = Quantiles("ttft_s", [one / 100 for one in range(1, 101)]).estimate(0.5)

        assert (found.value, found.low, found.high) == (0.5, 0.4, 0.61)

    def test_failed_requests_are_its_slowest(self):
        found = Quantiles("ttft_s", [0.1] * 95, failed=5).estimate(0.95)

        assert (found.value, found.low, found.high) == (0.1, 0.1, math.inf)

    def test_requests_of_unknown_end_are_the_fastest_for_one_end_and_failed_for_the_other(self):
        values = [one / 100 for one in range(1, 101)]
        known = Quantiles("ttft_s", values).estimate(0.5)
        some = Quantiles("ttft_s", values, unknown=20).estimate(0.5)
        many = Quantiles("ttft_s", values, unknown=400).estimate(0.5)

        assert some.value == known.value
        assert some.low < known.low
        assert some.high > known.high
        assert (many.low, many.high) == (0.0, math.inf)

    def test_too_few_requests_for_its_interval_are_an_error(self):
        seen = Quantiles("ttft_s", [0.1] * 120, where="during the fault", hint="raise rate_rps")

        assert seen.p99 == pytest.approx(0.1)
        with pytest.raises(
            TooFewSamples,
            match="interval of p99 of ttft_s needs 368 requests, during the fault has 120: raise rate_rps",
        ):
            seen.estimate(0.99)
        with pytest.raises(BadScenario, match="a quantile lies between 0 and 1"):
            seen.estimate(1.5)


def requests(n, *, failed=0, cancelled=0, first_s=0.1, from_s=0.0):
    """Requests of one second in 10, of which the last ones failed or were open."""
    outcomes = ["ok"] * (n - failed - cancelled) + ["refused"] * failed + ["cancelled"] * cancelled
    due_s = [from_s + 10 * number / n for number in range(n)]
    return [
        Sample(
            due,
            due,
            due + first_s * (1 + number % 10 / 10) if outcome == "ok" else None,
            due + 1,
            0.0,
            8,
            outcome,
            "",
            "",
        )
        for number, (due, outcome) in enumerate(zip(due_s, outcomes, strict=True))
    ]


PARTS = [("before", 0.0, 10.0), ("during", 10.0, 20.0), ("after", 20.0, 30.0), ("whole", 0.0, 30.0)]


def trial(name, during, *, of=None, before=()):
    samples = [*(before or requests(100)), *during, *requests(100, from_s=20.0)]
    return Trial(
        name="001",
        plan=planned(name, of=of),
        windows={one.name: one for one in windows(samples, PARTS)},
        slos={},
        slo_errors={},
        detect_s=None,
        detected_by=None,
        coincident=(),
        recover=Recovery(why_not="x"),
        settle=Recovery(why_not="x"),
        repaired_by=None,
        victims=(),
        fired=(),
        acted=(),
        noticed=(),
        restarts={},
        findings=(),
        events=(),
        load=LoadResult(),
    )


def compared(on, off, **about):
    given = {"on": {"n": 600, **on}, "off": {"n": 598, **off}}
    return Arms({name: trial(name, requests(from_s=10.0, **each), **about) for name, each in given.items()})


class TestAnEffect:
    def test_it_is_the_first_arm_minus_the_second_with_its_interval(self):
        arms = compared({"failed": 4}, {"failed": 131})
        effect = arms.during_fault.availability

        assert repr(effect) == (
            "<availability on - off: +0.212 (95 % +0.179 to +0.248), 0.993 against 0.781, 600 and 598 requests>"
        )
        assert effect.low >= 0.15
        assert effect.high <= 0.26
        assert (effect.value, effect.first, effect.second) == pytest.approx(
            (596 / 600 - 467 / 598, 596 / 600, 467 / 598)
        )
        assert difference(share(596, 600), share(467, 598)) == Estimate(
            value=float(effect.value), low=float(effect.low), high=float(effect.high)
        )
        back = arms.compare("off", "on").during_fault.availability
        assert (back.low, back.high) == pytest.approx((-float(effect.high), -float(effect.low)))

    def test_each_window_has_the_values_of_both_trials(self):
        arms = compared({"failed": 4}, {"failed": 131}, before=requests(100, failed=0))

        assert arms.before_fault.availability.value == 0
        assert arms.after_fault.availability.value == 0
        assert arms.whole.availability.first == (100 + 596 + 100) / 800
        assert arms.during_fault.goodput_ratio.first == 596 / 600
        assert arms.during_fault.goodput_rps.first == pytest.approx(59.6)
        assert arms.during_fault.goodput_rps.low == pytest.approx(
            float(arms.during_fault.goodput_rps.value)
            - math.hypot(59.6 - 60 * share(596, 600).low, 59.8 * share(467, 598).high - 46.7)
        )
        assert arms.during_fault.failed_ratio.value == pytest.approx(4 / 600 - 131 / 598)
        for of, value in ((arms.whole.ttft_s, 0.14), (arms.whole.e2e_s, 1), (arms.whole.max_gap_s, 0)):
            assert of.p50.first == pytest.approx(value)
        assert repr(arms.whole.ttft_s) == "<whole.ttft_s on - off>"
        assert repr(arms.during_fault) == "<during_fault on - off: 600 and 598 requests>"
        assert repr(arms.compare("on", "off")) == "<on - off>"

    def test_its_ratio_claims_that_a_value_is_a_multiple_of_another(self):
        arms = compared({"failed": 4, "first_s": 0.1}, {"failed": 131, "first_s": 0.4})
        failures = arms.during_fault.failed_ratio.ratio
        first = arms.during_fault.ttft_s.p50.ratio

        assert repr(failures) == (
            "<failed_ratio on / off: 0.0304 (95 % 0.0117 to 0.0787), 0.00667 against 0.219, 600 and 598 requests>"
        )
        assert failures.high <= 0.5
        assert first.high <= 0.3
        with pytest.raises(BadScenario, match=r"on / off: .* is a ratio already: drop the second \.ratio"):
            _ = first.ratio

    def test_a_latency_has_an_effect_in_seconds(self):
        arms = compared({"first_s": 0.1}, {"first_s": 0.4})

        effect = arms.during_fault.ttft_s.p99
        assert effect.measure == "during_fault.ttft_s.p99"
        assert effect.value == pytest.approx(0.19 - 0.76)
        assert effect.high <= -0.5
        assert arms.during_fault.ttft_s.p95.value < arms.during_fault.ttft_s.at(0.5).value

    def test_a_side_without_enough_requests_makes_it_an_error(self):
        arms = compared({"n": 300}, {})

        with pytest.raises(TooFewSamples, match="interval of p99 of ttft_s needs 368 requests, during has 300"):
            _ = arms.during_fault.ttft_s.p99
        with pytest.raises(TooFewSamples, match="availability needs 1 request, got 0"):
            _ = compared({"n": 0}, {}).during_fault.availability

    def test_requests_of_unknown_end_widen_it_by_both_of_their_ends(self):
        known = compared({}, {"failed": 131}).during_fault.availability
        half_known = compared({"cancelled": 60}, {"failed": 131}).during_fault.availability

        assert half_known.low < known.low - 0.08
        assert half_known.high >= known.high - 0.001
        assert half_known.value == pytest.approx(float(known.value))
        other = compared({}, {"failed": 131, "cancelled": 60}).during_fault.availability
        ends = share(407, 598), share(467, 598)
        assert other.low == pytest.approx(
            float(other.value) - math.hypot(1 - share(600, 600).low, ends[1].high - 407 / 538)
        )
        assert other.high == pytest.approx(float(other.value) + 407 / 538 - ends[0].low)

    def test_failures_in_both_arms_leave_no_value_to_compare(self):
        arms = compared({"failed": 500}, {"failed": 500})

        with pytest.raises(
            Inconclusive, match=r"during_fault\.ttft_s\.p50 on - off is unknown, because both arms have inf"
        ):
            _ = arms.during_fault.ttft_s.p50
        with pytest.raises(Inconclusive, match="failed_ratio on / off is unknown, because both arms have 0: compare"):
            _ = arms.before_fault.failed_ratio.ratio

    def test_an_end_that_failures_make_infinite_satisfies_no_claim(self):
        effect = compared({"failed": 500}, {}).during_fault.ttft_s.p50

        assert repr(effect) == "<ttft_s.p50 on - off: +inf (95 % +inf to +inf), inf against 0.14, 600 and 598 requests>"
        assert not effect.high <= 5

    @pytest.mark.parametrize(
        "claim",
        [
            lambda effect: effect.low >= -1,
            lambda effect: effect.high <= 1,
            lambda effect: effect.low > 1,
            lambda effect: effect.ratio.low >= 0,
            lambda effect: effect.ratio.low < 0,
        ],
    )
    def test_a_bound_that_no_arms_could_break_or_hold_proves_nothing(self, claim):
        with pytest.raises(VacuousClaim, match=r"'on' had the (least|most) and 'off' the (least|most), it would be"):
            claim(compared({"failed": 4}, {"failed": 131}).during_fault.availability)

    @pytest.mark.parametrize(
        "claim",
        [
            lambda effect: effect >= 0.05,
            lambda effect: effect > 0.05,
            lambda effect: effect == 0,
            lambda effect: effect != 0,
            bool,
        ],
    )
    def test_the_whole_effect_is_no_claim(self, claim):
        with pytest.raises(BadScenario, match=r"<availability on - off: .*> .*such as .low >= 0.05 or .high <= 0"):
            claim(compared({}, {}).during_fault.availability)

    def test_it_is_a_key_as_other_objects_are(self):
        effect = compared({}, {}).during_fault.availability

        assert {effect: 1}[effect] == 1

    def test_its_note_has_no_infinite_number(self):
        noted = effect_note(compared({"failed": 500}, {}).during_fault.ttft_s.p50)

        assert noted == ArmEffect(
            measure="during_fault.ttft_s.p50",
            first="on",
            second="off",
            is_ratio=False,
            first_value=None,
            second_value=0.14,
            value=None,
            low=None,
            high=None,
            first_requests=600,
            second_requests=598,
        )


class TestArms:
    def test_they_are_the_trials_by_name_in_order(self):
        arms = compared({}, {})

        assert list(arms) == ["on", "off"]
        assert arms["off"].arm == "off"
        assert len(arms) == 2
        assert ("on" in arms, "naive" in arms) == (True, False)
        assert repr(arms) == "<arms on, off>"
        assert repr(arms["on"]) == "<trial 001: s, kill model-*, arm on>"
        assert {arms: 1}[arms] == 1

    def test_a_name_that_does_not_exist_is_an_error(self):
        with pytest.raises(BadScenario, match="there is no arm 'of': did you mean 'off'"):
            _ = compared({}, {})["of"]

    @pytest.mark.parametrize(
        "value",
        [
            lambda arms: arms,
            lambda arms: arms.whole,
            lambda arms: arms.whole.ttft_s,
            lambda arms: arms.compare("on", "off"),
        ],
    )
    def test_none_of_them_is_a_claim_by_itself(self, value):
        with pytest.raises(BadScenario, match="is neither true nor false: write an assertion that can fail, such as"):
            bool(value(compared({}, {})))

    def test_an_arm_is_not_compared_with_itself(self):
        with pytest.raises(BadScenario, match=r"arms.compare\('on', 'on'\) needs two different arms of on, off"):
            _ = compared({}, {}).compare("on", "on")

    @pytest.mark.parametrize("window", ["before_fault", "during_fault", "after_fault", "whole"])
    def test_a_claim_on_three_arms_names_two(self, window):
        of = made(arms={**BOTH, "naive": arm(environment={"api": {"LAB_BREAKER": "naive"}})})
        during = requests(600, from_s=10.0)
        arms = Arms({name: trial(name, during, of=of) for name in of.arms})

        with pytest.raises(
            BadScenario,
            match=rf"arms.{window} needs two arms to compare, got on, off, naive: use arms.compare\('on', 'naive'\).{window}",
        ):
            getattr(arms, window)
        assert getattr(arms.compare("off", "naive"), window).availability.arms == ("off", "naive")

    def test_they_keep_the_effects_that_a_claim_read(self):
        arms = compared({"failed": 4}, {"failed": 131})
        _ = arms.during_fault.availability.low
        _ = arms.during_fault.failed_ratio.ratio.high

        assert [(one.measure, one.is_ratio) for one in arms.effects] == [
            ("during_fault.availability", False),
            ("during_fault.failed_ratio", False),
            ("during_fault.failed_ratio", True),
        ]

    def test_an_effect_is_a_value_that_was_read_of_both_trials(self):
        arms = compared({}, {})
        read = [one.note_reads() for one in arms.values()]

        assert arms["on"].arm == "on"
        assert read == [{"arm", "plan"}, set()]
        _ = arms.during_fault.availability
        assert all("windows" in names for names in read)


def test_without_arms_there_is_one():
    assert (made().arm_count, made(arms=None).arm_count) == (2, 1)
