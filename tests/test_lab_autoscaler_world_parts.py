"""Parts of the autoscaler's simulated world: faults, gateway, scraper, outcome."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.autoscaler_world import arrivals, fixed, run, steps, world

from lab_api.settings import EXAMPLE
from lab_api.settings import Settings as GatewaySettings
from lab_autoscaler.arrivals import Arrival, peak_s
from lab_autoscaler.outcome import ConservationError, ScaleEvent, fates, first_token_quantiles, flaps, judge
from lab_autoscaler.requests import Fate, Request
from lab_autoscaler.seen import Observed
from lab_autoscaler.settings import Phases, Sights
from lab_autoscaler.settings import Settings as SidecarSettings
from lab_autoscaler.world_faults import (
    KINDS,
    InvalidFaultError,
    Kill,
    Nothing,
    at_peak,
    parse,
    parse_all,
    written,
    written_all,
)
from lab_autoscaler.world_settings import WorldSettings, settings_from
from lab_common.values import InvalidValueError

ROOT = Path(__file__).parent.parent

AT = st.floats(0, 80_000) | st.integers(0, 80_000) | st.just("peak")
NAMES = st.sampled_from(["busiest", "all", "model-1", "model-12"])
LASTING = {"at_s": AT, "for_s": st.floats(0.001, 80_000)}
OPTIONS = {
    "none": {},
    "kill": {"at_s": AT, "replica": NAMES},
    "crash_on_boot": LASTING,
    "slow_load": {**LASTING, "factor": st.floats(0.1, 100)},
    "scrape_gap": LASTING,
    "nan": LASTING,
    "throttle": {**LASTING, "factor": st.floats(0.1, 100), "replica": NAMES},
}


class TestFaults:
    @given(st.sampled_from(sorted(KINDS)).flatmap(lambda kind: st.builds(KINDS[kind], **OPTIONS[kind])))
    def test_a_written_fault_reads_as_the_same(self, fault) -> None:
        assert parse(written(fault)) == fault
        assert written(parse(written(fault))) == written(fault)

    def test_written_forms_are_short(self) -> None:
        assert parse("kill(at_s=300)") == Kill(at_s=300)
        assert parse(" kill( at_s = peak ) ") == parse("kill(at_s='peak')") == Kill(at_s="peak")
        assert written(Kill(at_s=300.0)) == "kill(at_s=300)"
        assert written(Kill(at_s="peak", replica="model-2")) == "kill(at_s=peak, replica='model-2')"
        assert written(Nothing()) == "none"
        assert parse("none()") == Nothing()

    def test_a_sum_is_several_faults(self) -> None:
        text = "kill(at_s=peak) + nan(at_s=peak, for_s=60) + scrape_gap(at_s=3, for_s=1)"

        assert [one.kind for one in parse_all(text)] == ["kill", "nan", "scrape_gap"]
        assert written_all(parse_all(text)) == text
        with pytest.raises(InvalidFaultError, match="expected one fault, got"):
            parse(text)

    def test_the_peak_becomes_a_time(self) -> None:
        assert at_peak(parse("kill(at_s=peak)"), 70.0) == Kill(at_s=70.0)
        assert at_peak(parse("kill(at_s=3)"), 70.0) == Kill(at_s=3)
        assert at_peak(Nothing(), 70.0) == Nothing()

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "expected a fault such as kill(at_s=300), got ''"),
            ("kill(", "expected a fault such as"),
            ("kill(300)", "expected a fault such as kill(at_s=300), got 'kill(300)'"),
            ("kill(**{'at_s': 3})", "expected kill(at_s, replica)"),
            ("kill(at_s=[1])", "at_s must be a finite number, got [1]"),
            ("kill(at_s=1e999)", "at_s must be a finite number, got inf"),
            ("kill(at_s=late)", "at_s must be a finite number, got 'late'"),
            (
                "kill(at_s=1, replica=model_1)",
                "replica must be busiest, all or a name such as 'model-1', got 'model_1'",
            ),
            ("nan(at_s=1, for_s=peak)", "for_s must be a finite number, got 'peak'"),
            ("nan(at_s=1)", "expected nan(at_s, for_s), got 'nan(at_s=1)'"),
            ("throttle(at_s=1, for_s=1, factor=0)", "factor must be greater than 0, got 0"),
            ("hang(at_s=1)", "expected a fault among none, kill, crash_on_boot"),
            ("(" * 5000, "expected a fault such as"),
            ("kill(at_s=1) + none", "expected none alone, got 'kill(at_s=1) + none'"),
            ("kill(at_s=1) - nan(at_s=1, for_s=1)", "expected a fault such as"),
        ],
    )
    def test_another_text_is_one_clear_error(self, text: str, complaint: str) -> None:
        with pytest.raises(InvalidFaultError) as refused:
            parse(text)

        assert complaint in str(refused.value)

    def test_a_throttle_ends(self) -> None:
        requests = [Arrival(at_s=at_s, prompt_tokens=1, answer_tokens=100) for at_s in (5.0, 15.0, 25.0)]
        made = world(requests, fixed(1), "throttle(at_s=10, for_s=10, factor=4)", initial=1, until_s=30)
        made.run()
        before_s, within_s, after_s = (one.mean_gap_s for one in made.requests)

        assert within_s == pytest.approx(4 * before_s)
        assert after_s == pytest.approx(before_s)

    def test_throttles_multiply_and_end_with_their_replica(self) -> None:
        requests = [Arrival(at_s=at_s, prompt_tokens=1, answer_tokens=50) for at_s in (5.0, 15.0, 25.0)]
        requests.append(Arrival(at_s=29.0, prompt_tokens=1, answer_tokens=8000))
        both = "throttle(at_s=10, for_s=10, factor=4) + throttle(at_s=1, for_s=30, factor=3) + kill(at_s=30.5)"
        made = world(requests, fixed(1), *both.split(" + "), initial=1, until_s=33)
        outcome = made.run()
        gaps_s = [one.mean_gap_s for one in made.requests[:3]]

        assert gaps_s == [pytest.approx(0.0051 * factor, rel=0.01) for factor in (3, 12, 3)]
        assert (outcome.served, outcome.lost) == (3, 1)

    def test_a_throttle_strikes_from_the_next_step_on(self) -> None:
        requests = [Arrival(at_s=0.0, prompt_tokens=1, answer_tokens=1100)]
        options = {"first_token_s": 0.1, "token_gap_s": 0.1, "tokens_per_s": 1e6, "initial": 1, "until_s": 400.0}
        made = world(requests, fixed(1), "throttle(at_s=50.04, for_s=100, factor=2)", **options)
        made.run()

        # 501 steps of 0.1 s to 50.1 s, 500 of 0.2 s to 150.1 s, and 99 of 0.1 s.
        assert made.requests[0].end_s == pytest.approx(160.0, abs=0.01)


def request(
    at_s: float, fate: Fate, first_s: float | None = None, end_s: float | None = None, answer: int = 11
) -> Request:
    return Request(
        index=0,
        at_s=at_s,
        prompt_tokens=1,
        answer_tokens=answer,
        retries=0,
        fate=fate,
        first_token_s=first_s,
        end_s=end_s,
    )


class TestOutcome:
    def test_a_share_is_over_offered_requests_without_those_that_may_still_attain(self) -> None:
        requests = [
            request(0, Fate.SERVED, 1.0, 1.5),  # attains both
            request(0, Fate.SERVED, 3.0, 3.5),  # late
            request(0, Fate.SERVED, 1.0, 3.5),  # gaps of 0.25 s
            request(0, Fate.SHED),
            request(0, Fate.LOST, 1.0),
            request(97, Fate.OPEN),  # waits for longer than the target
            request(99, Fate.OPEN),  # may still attain it
            request(90, Fate.OPEN, 91.0),  # its mean gap is 0.9 s at least
            request(98, Fate.OPEN, 99.5),  # may still attain the gap
        ]
        judged = judge(requests, WorldSettings(), until_s=100.0)

        assert (judged.first_token_attained, judged.first_token_censored) == (4 / 8, 1)
        assert (judged.token_gap_attained, judged.token_gap_censored) == (2 / 6, 3)
        assert (judged.attained, judged.censored) == (1 / 7, 2)

    def test_without_a_judged_request_there_is_no_share(self) -> None:
        judged = judge([request(99.9, Fate.OPEN)], WorldSettings(), until_s=100.0)

        assert (judged.attained, judged.censored) == (None, 1)

    def test_a_request_that_is_nowhere_is_an_error(self) -> None:
        requests = [request(0, Fate.SERVED, 1.0, 2.0), request(0, Fate.OPEN)]

        assert fates(requests, offered=2, held=1)[Fate.OPEN] == 1
        with pytest.raises(ConservationError, match="expected 2 requests with 0 of them open, got 1 open, 1 served"):
            fates(requests, offered=2, held=0)
        with pytest.raises(ConservationError, match="expected 3 requests"):
            fates(requests, offered=3, held=1)

    def test_quantiles_are_kaplan_meiers(self) -> None:
        """The survival is 4/5 after 1 s, 3/5 after 2 s and 3/5 * 1/2 after 6 s."""
        requests = [
            request(0, Fate.SERVED, 1.0, 9.0),
            request(0, Fate.SERVED, 2.0, 9.0),
            request(7, Fate.OPEN),  # censored at 3 s
            request(0, Fate.OPEN, 6.0),
            request(0, Fate.OPEN),  # censored at 10 s
        ]

        assert first_token_quantiles(requests, (0.2, 0.4, 0.5, 0.7, 0.71), until_s=10.0) == [1, 2, 6, 6, math.inf]

    def test_a_lost_request_waits_for_ever(self) -> None:
        requests = [request(0, Fate.SERVED, 1.0, 2.0), request(9, Fate.LOST, 9.5), request(9, Fate.SHED)]

        assert first_token_quantiles(requests, (1 / 3, 0.34, 0.99), until_s=10.0) == [1.0, math.inf, math.inf]

    def test_a_flap_is_a_reversal_within_the_window(self) -> None:
        counts = [(0.0, 1, 2), (10.0, 2, 3), (20.0, 3, 1), (400.0, 1, 2), (410.0, 2, 1), (420.0, 1, 2)]
        events = [ScaleEvent(at_s=at_s, before=before, after=after, reason="") for at_s, before, after in counts]

        assert flaps(events, 300.0) == 3
        assert flaps(events, 380.0) == 4
        assert flaps(events[:2], 300.0) == 0

    def test_infinity_becomes_null_in_json(self) -> None:
        out = run([Arrival(at_s=1.0, prompt_tokens=9, answer_tokens=9)], fixed(0), minimum=0, initial=0)

        assert out.lost == out.lost_at_zero == 1
        assert json.loads(json.dumps(out.as_json(), allow_nan=False))["first_token_p50_s"] is None

    def test_replica_seconds_count_from_start_to_stop(self) -> None:
        out = run(
            [Arrival(at_s=1.0, prompt_tokens=9, answer_tokens=9)],
            steps((0, 1), (30, 3), (60, 1)),
            load_s=8.0,
            warmup_s=2.0,
            spread=0.0,
            initial=1,
            until_s=100.0,
        )

        assert out.replica_s == 100 + 2 * 30
        assert out.cold_s == 2 * 10
        assert [(one.at_s, one.before, one.after, one.reason) for one in out.scale_events] == [
            (30.0, 1, 3, "by the clock"),
            (60.0, 3, 1, "by the clock"),
        ]
        assert [(one.at_s, one.desired, one.ready, one.cold) for one in out.trajectory if one.at_s in {30, 40, 60}] == [
            (30.0, 3, 1, 2),
            (40.0, 3, 3, 0),
            (60.0, 1, 1, 0),
        ]
        assert (out.max_replicas, out.min_ready, out.flaps) == (3, 1, 1)

    def test_the_busiest_minute_begins_with_an_arrival(self) -> None:
        times = [0.0, 100.0, 130.0, 159.0, 161.0, 300.0]

        assert peak_s([Arrival(at_s=at_s, prompt_tokens=1, answer_tokens=1) for at_s in times]) == 100.0


def eyes(*faults: str, **settings: object) -> list[Observed]:
    """All observations of a world with one request a second."""
    seen: list[Observed] = []

    def steer(observed: Observed) -> tuple[int, str]:
        seen.append(observed)
        return 2, ""

    requests = [Arrival(at_s=at_s + 0.5, prompt_tokens=10, answer_tokens=10) for at_s in range(100)]
    run(requests, steer, *faults, until_s=100.0, **{"sync_s": 10.0, **settings})
    return seen


class TestScraper:
    def test_it_sees_rates_and_shares(self) -> None:
        first, *later = eyes()

        assert (first.now_s, first.rate_rps) == (10.0, pytest.approx(1.0))
        assert all(one.rate_rps == pytest.approx(1.0) for one in later)
        assert all((one.first_token_attained, one.token_gap_attained) == (1.0, 1.0) for one in later)
        assert all((one.replicas, one.ready, one.reporting, one.slots) == (2, 2, 2, 8) for one in later)

    def test_a_gap_is_unknown_once_the_last_scrape_is_stale(self) -> None:
        seen = {one.now_s: one for one in eyes("scrape_gap(at_s=28.5, for_s=30)", stale_s=5)}

        assert (seen[30].waiting, seen[30].reporting) == (0, 2)
        assert [seen[at_s].waiting for at_s in (40, 50)] == [None, None]
        assert [seen[at_s].reporting for at_s in (40, 50)] == [0, 0]
        assert [seen[at_s].ready for at_s in (40, 50)] == [2, 2]
        assert (seen[60].waiting, seen[60].rate_rps) == (0, pytest.approx(1.0))

    def test_nan_is_unknown_at_once_and_no_base_of_a_rate(self) -> None:
        seen = {one.now_s: one for one in eyes("nan(at_s=29.5, for_s=30)", stale_s=100)}

        assert (seen[30].waiting, seen[30].running, seen[30].utilisation, seen[30].rate_rps) == (None,) * 4
        assert (seen[60].waiting, seen[60].rate_rps) == (0, None)  # one sample alone
        assert seen[70].rate_rps == pytest.approx(1.0)

    def test_a_delay_hides_the_newest_scrapes(self) -> None:
        """Requests come at half seconds, and each takes less than a second."""
        seen = eyes(scrape_delay_s=9.5, scrape_s=5.0, stale_s=20.0)

        assert seen[0].waiting is None  # the scrape at 5 s comes at 14.5 s
        assert seen[1].waiting == 0

    def test_a_share_without_requests_is_unknown_and_that_of_shed_ones_is_zero(self) -> None:
        def last(requests: list[Arrival], **options: object) -> Observed:
            seen: list[Observed] = []
            run(requests, lambda observed: (seen.append(observed), (1, ""))[1], initial=1, until_s=50.0, **options)
            return seen[-1]

        early = last([Arrival(at_s=1.0, prompt_tokens=10, answer_tokens=10)])
        full = last(arrivals(30, 49), concurrency=1, queue_max=0, token_gap_s=1.0)

        assert early.first_token_attained is None
        assert full.first_token_attained is not None
        assert full.first_token_attained < 0.1


class TestGateway:
    def test_the_least_busy_and_least_recent_replica_is_chosen(self) -> None:
        requests = [Arrival(at_s=1.0 + index / 1000, prompt_tokens=9, answer_tokens=500) for index in range(7)]
        made = world(requests, fixed(3), initial=3, until_s=1.5)
        made.run()

        assert [one.in_flight for one in made.fleet.alive] == [3, 2, 2]
        assert [list(one.requests) for one in made.fleet.alive] == [["0", "3", "6"], ["1", "4"], ["2", "5"]]

    def test_a_full_queue_sheds_and_a_deadline_sheds(self) -> None:
        requests = [Arrival(at_s=1.0, prompt_tokens=9, answer_tokens=8000) for _ in range(10)]
        out = run(requests, fixed(1), initial=1, concurrency=2, queue_max=5, queue_timeout_s=3.0, until_s=20.0)

        assert (out.open, out.shed, out.queue_timeouts) == (2, 8, 5)

    def test_a_new_replica_gets_its_places_step_by_step(self) -> None:
        requests = [Arrival(at_s=20 + index / 100, prompt_tokens=9, answer_tokens=8000) for index in range(16)]
        made = world(
            requests,
            steps((0, 1), (15, 2)),
            initial=1,
            load_s=0.0,
            warmup_s=3.9,
            spread=0.0,
            slow_start_s=8.0,
            queue_timeout_s=60.0,
            until_s=22.2,
        )
        made.run()

        # Admitted by the probe at 19 s, so 3.2 s of 8 s at the end.
        assert [one.in_flight for one in made.fleet.alive] == [8, 3]

    def test_a_dead_replica_refuses_requests_until_a_probe_or_its_ejection(self) -> None:
        requests = [Arrival(at_s=10.01 + index / 50, prompt_tokens=9, answer_tokens=2000) for index in range(20)]
        options = {"initial": 2, "repair_s": None, "until_s": 11.0}

        def lost(**more: object) -> int:
            return run(requests, fixed(2), "kill(at_s=10, replica='model-1')", **options, **more).lost

        # The dead one is the least busy: it gets each request for 0.25 s, then 3.
        assert lost(probe_s=0.5125, eject_failures=99) == 12
        assert lost(probe_s=60.0) == 3
        assert lost(probe_s=60.0, retries=1) == 0


class TestSettings:
    def test_they_come_from_json_with_defaults(self) -> None:
        assert settings_from({}) == WorldSettings()
        assert settings_from({"repair_s": None, "maximum": 9}).repair_s is None

    @pytest.mark.parametrize(
        ("given", "complaint"),
        [
            ({"maximum": 0}, "world: maximum must be at least 1, got 0"),
            ({"initial": True}, "world: initial must be a whole number, got True"),
            ({"sync_s": 0}, "world: sync_s must be at least 0.001, got 0"),
            ({"repair_s": 0}, "world: repair_s must be at least 0.1, got 0"),
            ({"at_zero": "hold"}, "world: at_zero must be one of refuse, queue, got 'hold'"),
            ({"slots": 0}, "world: slots must be at least 1, got 0"),
            ({"jitter": 2}, "world: jitter must be at most 0.5, got 2"),
        ],
    )
    def test_a_wrong_one_is_named(self, given: dict[str, object], complaint: str) -> None:
        with pytest.raises(InvalidValueError) as refused:
            settings_from(given)

        assert str(refused.value) == complaint

    def test_the_defaults_are_the_labs(self) -> None:
        """Of the gateway in front of simulated engines, and of the sidecar."""
        compose = yaml.safe_load((ROOT / "stack" / "compose.sim.yaml").read_text())
        env = compose["services"]["api"]["environment"]
        gateway = GatewaySettings.from_env({**env, "LAB_REPLICAS": EXAMPLE, "LAB_MODEL": "m"})
        ours = WorldSettings()

        assert ours.concurrency == gateway.admission.concurrency
        assert ours.queue_max == gateway.admission.queue_max
        assert ours.queue_timeout_s == gateway.admission.queue_timeout_s
        assert ours.slow_start_s == gateway.ejection.slow_start_s
        assert ours.eject_failures == gateway.ejection.connect_failures
        assert ours.probe_s == gateway.probing.interval_s
        sights, sidecar = Sights(), {one.name: one.default_factory for one in fields(SidecarSettings)}
        assert ours.first_token_target_s == float(sights.first_token_s)
        assert ours.token_gap_target_s == float(sights.token_gap_s)
        assert (ours.fresh_s, ours.window_s) == (sights.stale_s, sights.window_s)
        assert ours.flap_window_s == sidecar["flap_s"]()
        assert ours.drain_s == Phases().drain_s
