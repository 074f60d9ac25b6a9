"""Recovery times of clients and victims."""

import json
from dataclasses import replace

import pytest

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.trial_record import Record
from pytest_llmchaos.lab.injector import Injected
from pytest_llmchaos.model import Injection, RuntimeEvent, Sample
from pytest_llmchaos.plan.experiment import TrialPlan
from pytest_llmchaos.stats.recovery import ClientsSaw, clients_from
from pytest_llmchaos.stats.windows import DEFAULT_TARGETS
from pytest_llmchaos.trial.recovery import Known, Recovery, Sightings, VictimsSeen, Watched, recovery, settling

FAULT_S, REVERTED_S, END_S = 10.0, 40.0, 50.0


def asked(bad, until_s=END_S):
    """Return a request every 0.5 s, refused if `bad` is true for its due time."""
    made = []
    for i in range(int(until_s * 2)):
        due = i / 2
        ok = not bad(due)
        made.append(
            Sample(due, due, due + 0.1 if ok else None, due + 0.2, 0.0, 5, "ok" if ok else "refused", "", f"r{i}")
        )
    return made


def event(at_s, action, service="api", **attributes):
    """An event as read from the runtime, with words that are not literals here."""
    action, service, attributes = json.loads(json.dumps([action, service, attributes]))
    return RuntimeEvent(at_unix_s=1000 + at_s, service=service, action=action, attributes=attributes)


DIED_AND_STARTED = (event(FAULT_S, "die"), event(11.2, "start"), event(11.2, "restart"))


@pytest.fixture
def record(tmp_path):
    made = Record(Journal(tmp_path / "journal.jsonl"), "001", tmp_path)
    made.anchor(1000.0, 0.0)
    return made


def hit(*victims, fault=None):
    done = Injected()
    primitive = (fault or faults.kill("api")).primitive
    done.acts = [Injection(after_s=0.0, fault=primitive, victim=victim) for victim in victims or ("api",)]
    done.start_unix_s = done.last_unix_s = 1000 + FAULT_S
    done.reverted_unix_s = 1000 + REVERTED_S
    return done


def plan_of(fault):
    made = experiment(
        load=loads.open_loop(rate_rps=2),
        fault=fault,
        stable_s=4,
        **({"fault_s": 5} if fault.lifetime == "passing" else {}),
    )
    made = made.kwargs["experiment"]
    about = {"scenario": "s", "hypothesis": "", "repeat": 0, "seed": 1, "injections": ()}
    return TrialPlan(experiment=made, load=made.load, fault=fault, **about)


def known(bad=lambda _: False, events=DIED_AND_STARTED, watched=None, **more):
    return Known(
        samples=asked(bad),
        limits=DEFAULT_TARGETS,
        fault_s=FAULT_S,
        known_s=END_S,
        ended_s=END_S,
        victims=VictimsSeen(events=events, watched=watched or {}),
        **more,
    )


@pytest.fixture
def judged(record):
    def of(what, fault=None, injected=None):
        return recovery(record, plan_of(fault or faults.kill("api")), injected or hit(), what)

    return of


@pytest.fixture
def settled(record):
    def of(what, fault=None, injected=None):
        fault = fault or faults.pause("api")
        return settling(record, plan_of(fault), injected or hit(fault=fault), what)

    return of


def between(from_s, to_s):
    return lambda due: from_s <= due < to_s


class TestClients:
    def test_a_good_spell_before_the_damage_is_not_a_recovery(self, judged):
        late = (event(20, "die"), event(22, "start"))

        found = judged(known(lambda due: due >= 20, late))

        assert found.took_s is None
        assert (
            "clients never had 4 s without a bad request after kill api until the end of the evidence" in found.why_not
        )
        assert found.relapsed_s is None

    def test_a_recovery_lasts_to_the_end_of_the_evidence(self, judged):
        found = judged(known(lambda due: 10 <= due < 12 or due >= 45))

        assert (found.took_s, found.relapsed_s) == (None, 35.0)
        assert found.why_not.endswith("; it had recovered, and relapsed 35.0 s after the fault")

    @pytest.mark.parametrize("again", [between(20, 24), lambda due: due == 20], ids=["a spell", "a single request"])
    def test_what_was_bad_again_recovers_when_it_is_good_for_good(self, judged, again):
        found = judged(known(lambda due: 10 <= due < 12 or again(due)))

        assert found.relapsed_s == 10.0
        assert found.took_s == (14.0 if again(23) else 10.5)

    def test_a_lucky_answer_in_an_outage_is_not_a_relapse(self, judged):
        found = judged(known(lambda due: 10 <= due < 16 and due != 12))

        assert (found.took_s, found.relapsed_s) == (6.0, None)

    def test_clients_that_never_suffered_leave_it_to_the_victim(self, judged):
        assert judged(known()) == Recovery(took_s=1.2, resolution_s=0.0)

    def test_a_recovery_after_our_own_revert_does_not_count(self, judged):
        found = judged(known(between(10, 42)))

        assert "came back 32.0 s after the fault, but only after the instrument's own revert at 30.0 s" in found.why_not

    def test_a_recovery_in_the_very_instant_of_our_revert_counts(self, judged):
        assert judged(known(between(10, 40))) == Recovery(took_s=30.0, resolution_s=0.5)

    def test_a_late_recovery_is_named_whatever_followed(self, judged):
        again = (*DIED_AND_STARTED, event(44, "die"))
        found = judged(known(lambda due: 10 <= due < 12 or 20 <= due < 42, again))

        assert "but only after the instrument's own revert at 30.0 s" in found.why_not
        assert found.relapsed_s == 10.0

    def test_clients_that_suffered_only_before_the_last_fault_count(self, judged):
        """The second of two faults hit at 15 s. Clients were served from then on."""
        done = hit()
        done.last_unix_s = 1015.0

        assert judged(known(between(10, 12)), injected=done) == Recovery(took_s=5.0, resolution_s=0.0)

    def test_the_time_it_took_is_known_to_the_millisecond(self, judged):
        events = (event(10.0, "die"), event(11.23456, "start"))
        points = ((9.5, True), (10.5, False), (11.5, False), (12.34567, True))
        watched = {"api": Watched(sightings=(Sightings(what="scraped by Prometheus", points=points),))}

        def of(**more):
            return judged(replace(known(**more), fault_s=10.0004))

        assert of(events=events) == Recovery(took_s=1.235, resolution_s=0.0)
        assert of(events=events, watched=watched) == Recovery(took_s=2.345, resolution_s=0.846)
        lost = of(events=(*events, event(44.45678, "die")))
        assert lost.relapsed_s == 34.457

    def test_a_service_that_was_not_good_when_the_trial_stopped_waiting_has_not_recovered(self, judged):
        assert "stopped waiting" in judged(known(between(10, 12), settled=False)).why_not

    def test_its_resolution_is_the_spacing_of_the_requests_around_it(self, judged):
        assert judged(known(between(10, 12))) == Recovery(took_s=2.0, resolution_s=0.5)

    def test_alternating_answers_have_the_resolution_of_the_last_bad_ones(self):
        seen = asked(lambda due: due in {10.0, 10.5, 13.0})

        assert clients_from(seen, 10, 4) == ClientsSaw(suffered=True, good_s=13.5, resolution_s=2.5)

    def test_a_bad_request_of_an_earlier_spell_does_not_change_the_resolution(self):
        seen = asked(lambda due: due in {10.0, 20.0})

        assert clients_from(seen, 10, 4) == ClientsSaw(suffered=True, good_s=20.5, resolution_s=0.5, relapsed_s=20.0)


class TestVictims:
    def test_a_process_that_exists_is_not_back_before_it_is_healthy(self, judged):
        healthy = event(45 - FAULT_S, "health_status", detail="healthy")
        seen = known(events=(*DIED_AND_STARTED, healthy), watched={"api": Watched(health_every_s=0.4)})

        assert judged(seen) == Recovery(took_s=25.0, resolution_s=0.4)

    def test_one_that_never_became_healthy_is_not_back(self, judged):
        found = judged(known(watched={"api": Watched(health_every_s=0.4)}))

        assert found.why_not == (
            "api was not healthy by its own check when the instrument reverted the fault, 30.0 s after it"
        )

    def test_one_that_is_not_scraped_again_is_not_back(self, judged):
        points = ((9.0, True), (10.5, False), (11.5, False), (20.5, True), (21.5, True))
        seen = Sightings(what="scraped by Prometheus", points=points)

        assert judged(known(watched={"api": Watched(sightings=(seen,))})) == Recovery(took_s=10.5, resolution_s=9.0)
        gone = replace(seen, points=points[:3])
        assert "was not scraped by Prometheus" in judged(known(watched={"api": Watched(sightings=(gone,))})).why_not

    def test_the_first_look_after_its_start_is_the_earliest_proof(self, judged):
        seen = Sightings(what="scraped by Prometheus", points=((9.5, True), (10.5, True), (11.5, True)))

        assert judged(known(watched={"api": Watched(sightings=(seen,))})) == Recovery(took_s=1.5, resolution_s=0.3)

    def test_looks_count_from_its_start_to_our_revert(self, judged):
        """Both ends count. A look before the start is about the old process."""

        def found(*points):
            seen = Sightings(what="scraped by Prometheus", points=((9.0, True), *points))
            return judged(known(watched={"api": Watched(sightings=(seen,))}))

        assert found((11.1, True), (13.0, True)) == Recovery(took_s=3.0, resolution_s=1.8)
        assert found((11.2, True)) == Recovery(took_s=1.2, resolution_s=0.0)
        assert found((11.5, False), (40.0, True)).took_s == 30.0
        assert found((11.5, False), (40.1, True)).why_not.startswith("api was not scraped by Prometheus when")

    def test_the_last_look_before_the_fault_decides_whether_a_watcher_counts(self, judged):
        def found(*points):
            seen = Sightings(what="used by the gateway", points=(*points, (20.0, True)))
            return judged(known(watched={"api": Watched(sightings=(seen,))})).took_s

        assert found((8.0, False), (9.0, True)) == 10.0
        assert found((8.0, True), (9.0, False)) == 1.2
        assert found((7.0, True), (8.0, True), (9.0, False)) == 1.2
        assert found((7.0, False), (8.0, False), (9.0, True)) == 10.0
        # A look at the instant of the fault is not one before it.
        assert found((10.0, True)) == 1.2

    @pytest.mark.parametrize("points", [(), ((11.5, False),), ((9.0, False), (11.5, False))])
    def test_a_watcher_that_never_saw_it_take_part_does_not_count(self, judged, points):
        seen = Sightings(what="used by the gateway", points=points)

        assert judged(known(watched={"api": Watched(sightings=(seen,))})).took_s == 1.2

    def test_a_gateway_that_had_not_noticed_yet_that_it_was_gone_has_not_seen_it_back(self, judged):
        points = ((9.5, True), (10.5, True), (11.5, True), (12.5, False), (34.5, False), (35.5, True), (49.5, True))
        watched = {"api": Watched(sightings=(Sightings(what="used by the gateway", points=points),))}

        assert judged(known(watched=watched)) == Recovery(took_s=25.5, resolution_s=1.0)

    @pytest.mark.parametrize("until_s", [20, 39.5])
    def test_one_that_drops_out_before_our_revert_is_not_back(self, judged, until_s):
        points = tuple((9.5 + i, 9.5 + i < 10 or 11 < 9.5 + i < until_s) for i in range(41))
        watched = {
            "api": Watched(sightings=(Sightings(what="scraped by Prometheus", points=points, may_lose_one=True),))
        }

        found = judged(known(watched=watched))

        assert found.why_not == (
            "api was not scraped by Prometheus when the instrument reverted the fault, 30.0 s after it"
        )

    def test_one_that_takes_no_part_after_it_was_back_has_relapsed(self, judged):
        points = tuple((9.5 + i, 9.5 + i != 10.5 and not 44 < 9.5 + i < 46) for i in range(41))
        watched = {"api": Watched(sightings=(Sightings(what="used by the gateway", points=points),))}

        found = judged(known(watched=watched))

        assert (found.took_s, found.relapsed_s) == (None, 34.5)
        assert "but a victim then went down or stopped taking part" in found.why_not

    @pytest.mark.parametrize(
        ("looks", "bad", "bad_where_one_may_be_lost"),
        [
            ("ggg", "", ""),
            ("gbg", "1", ""),
            ("gbbg", "12", "12"),
            ("gb", "1", ""),
            ("bg", "0", "0"),
            ("gbgbg", "13", ""),
            ("gbgbbg", "134", "34"),
            ("gbbgbg", "124", "12"),
            ("ggbbgg", "23", "23"),
            ("gggbggbb", "367", "67"),
        ],
    )
    def test_only_a_single_look_counts_as_lost(self, looks, bad, bad_where_one_may_be_lost):
        seen = Sightings(what="scraped by Prometheus", points=tuple((float(i), x == "g") for i, x in enumerate(looks)))

        assert seen.bad_looks(0.0) == [float(i) for i in bad]
        assert replace(seen, may_lose_one=True).bad_looks(0.0) == [float(i) for i in bad_where_one_may_be_lost]

    def test_the_first_of_all_looks_is_not_lost(self):
        seen = Sightings(
            what="scraped by Prometheus", points=((1.0, True), (2.0, False), (3.0, True)), may_lose_one=True
        )

        assert (seen.bad_looks(1.0), seen.bad_looks(2.0), seen.bad_looks(2.5)) == ([], [2.0], [])

    def test_a_watcher_that_never_saw_it_take_part_sees_no_relapse(self, judged):
        seen = Sightings(what="used by the gateway", points=((9.5, False), (20.5, False), (45.5, False)))

        assert judged(known(watched={"api": Watched(sightings=(seen,))})) == Recovery(took_s=1.2, resolution_s=0.0)

    @pytest.mark.parametrize(
        ("lost", "took_s"),
        [((20.5,), 1.5), ((45.5,), 1.5), ((49.5,), 1.5), ((20.5, 21.5), 12.5), ((11.5,), 2.5)],
        ids=["between good ones", "after our revert", "the last of all", "two in a row", "the first since its return"],
    )
    def test_a_single_lost_scrape_is_not_an_absence(self, judged, lost, took_s):
        points = tuple((9.5 + i, 9.5 + i != 10.5 and 9.5 + i not in lost) for i in range(41))
        scraped = Sightings(what="scraped by Prometheus", points=points, may_lose_one=True)

        assert judged(known(watched={"api": Watched(sightings=(scraped,))})).took_s == took_s

    @pytest.mark.parametrize(
        "events",
        [
            (),
            (event(10, "die"),),
            (event(10, "die"), event(12, "start"), event(14, "die")),
            (event(10, "die"), event(41, "start")),
            (event(10, "die"), event(12, "start", "db")),
        ],
        ids=["no event", "never started", "died again", "after our revert", "another service"],
    )
    def test_one_that_was_not_up_at_the_revert_is_not_back(self, judged, events):
        assert judged(known(events=events)).why_not == (
            "api had not started again when the instrument reverted the fault, 30.0 s after it"
        )

    @pytest.mark.parametrize(
        "again",
        [event(44, "die"), event(44, "health_status", detail="unhealthy")],
        ids=["died", "unhealthy"],
    )
    def test_one_that_went_down_again_has_relapsed(self, judged, again):
        found = judged(known(events=(*DIED_AND_STARTED, again, event(44.1, "start", "db"))))

        assert (found.took_s, found.relapsed_s) == (None, 34.0)
        assert (
            "the service came back 1.2 s after the fault, but a victim then went down or stopped taking part"
            in found.why_not
        )

    def test_events_count_from_the_fault_to_our_revert(self, judged):
        assert judged(known(events=(event(10, "die"), event(40, "start")))).took_s == 30.0
        # Events before the fault do not count.
        assert judged(known(events=(event(9, "die"), event(9.5, "start")))).why_not.startswith("api had not started")

    def test_a_start_in_the_instant_of_the_fault_took_no_time(self, judged):
        assert judged(known(events=(event(10, "die"), event(10, "start")))) == Recovery(took_s=0.0, resolution_s=0.0)

    @pytest.mark.parametrize("action", ["exec_die", "health_status", "restart", "stop"])
    def test_only_a_start_or_a_thaw_brings_it_back(self, judged, action):
        assert judged(known(events=(event(10, "die"), event(12, action)))).why_not.startswith("api had not started")
        assert judged(known(events=(*DIED_AND_STARTED, event(12, action, detail="healthy")))).took_s in {1.2, 2.0}

    def test_a_check_that_fails_after_a_start_holds_it_up_until_it_passes(self, judged):
        sick, well = event(13, "health_status", detail="unhealthy"), event(16, "health_status", detail="healthy")
        watched = {"api": Watched(health_every_s=0.4)}

        assert judged(known(events=(*DIED_AND_STARTED, sick), watched=watched)).why_not.startswith(
            "api was not healthy"
        )
        assert judged(known(events=(*DIED_AND_STARTED, sick, well), watched=watched)).took_s == 6.0
        assert judged(known(events=(*DIED_AND_STARTED, well, sick), watched=watched)).took_s is None

    def test_a_check_with_an_unknown_interval_is_exact(self, judged):
        well = event(16, "health_status", detail="healthy")

        assert judged(known(events=(*DIED_AND_STARTED, well))) == Recovery(took_s=6.0, resolution_s=0.0)

    @pytest.mark.parametrize("service", ["aaa", "zzz"])
    def test_events_of_another_service_do_not_count(self, judged, service):
        others = (event(12, "die", service), event(30, "start", service), event(44, "die", service))

        assert judged(known(events=(*DIED_AND_STARTED, *others))).took_s == 1.2

    def test_what_goes_down_after_the_trials_end_is_of_no_interest(self, judged):
        assert judged(known(events=(*DIED_AND_STARTED, event(50.1, "die")))).took_s == 1.2
        assert judged(known(events=(*DIED_AND_STARTED, event(50, "die")))).took_s is None

    def test_a_death_before_the_return_is_not_a_relapse(self, judged):
        """Clients were served again at 20 s, after the victim's second start."""
        events = (*DIED_AND_STARTED, event(15, "die"), event(16, "start"))

        assert judged(known(between(10, 20), events)).took_s == 10.0
        assert judged(known(between(10, 15), (event(10, "die"), event(15, "start"), event(15, "die")))).took_s is None

    def test_only_a_failed_check_is_a_relapse(self, judged):
        for detail in ("healthy", "starting", "unknown"):
            again = event(44, "health_status", detail=detail)
            assert judged(known(events=(*DIED_AND_STARTED, again))).took_s == 1.2
        other = event(44, "exec_create", detail="unhealthy")
        assert judged(known(events=(*DIED_AND_STARTED, other))).took_s == 1.2

    def test_a_victim_that_went_down_again_at_our_revert_is_named(self, judged):
        found = judged(known(between(10, 40), (*DIED_AND_STARTED, event(44, "die"))))

        assert "but a victim then went down or stopped taking part" in found.why_not
        assert found.relapsed_s == 34.0

    def test_one_with_events_is_not_back_with_the_end_of_its_fault(self, judged):
        over = hit(fault=faults.hang("model-1"))
        over.over_unix_s = 1014.0

        assert judged(known(events=(event(11, "health_status", detail="unhealthy"),)), injected=over).took_s is None
        assert judged(known(), injected=over) == Recovery(took_s=1.2, resolution_s=0.0)

    def test_each_must_be_back(self, judged):
        both = hit("api", "model-1")
        events = (*DIED_AND_STARTED, event(10, "die", "model-1"))

        assert judged(known(events=events), injected=both).why_not.startswith("model-1 had not started again")
        later = (*events, event(14, "start", "model-1"))
        assert judged(known(events=later), injected=both).took_s == 4.0

    def test_a_thaw_brings_it_back_and_begins_no_health_check(self, judged):
        events = (event(10, "pause"), event(13, "unpause"))

        assert judged(known(events=events, watched={"api": Watched(health_every_s=0.4)})).took_s == 3.0
        assert judged(known(events=events)).took_s == 3.0

    def test_one_that_never_went_down_is_back_with_the_end_of_its_fault(self, judged):
        over = hit(fault=faults.hang("model-1"))
        assert judged(known(events=()), injected=over).why_not.startswith("api had not started again")
        over.over_unix_s = 1014.0

        assert judged(known(events=()), injected=over) == Recovery(took_s=4.0, resolution_s=0.5)

    def test_without_an_injection_there_is_no_recovery(self, judged):
        assert judged(known(), injected=Injected()).why_not == "no fault was injected, so nothing had to recover"

    @pytest.mark.parametrize("unknown", ["acts", "reverted_unix_s", "last_unix_s"])
    def test_a_fault_without_its_times_has_no_recovery(self, judged, unknown):
        done = hit()
        setattr(done, unknown, [] if unknown == "acts" else None)

        assert judged(known(), injected=done).why_not == "no fault was injected, so nothing had to recover"

    def test_a_passing_fault_has_no_recovery(self, judged):
        assert "use trial.time_to_settle_s" in judged(known(), fault=faults.pause("api")).why_not


class TestSettling:
    def test_settling_counts_from_the_end_of_the_fault_to_a_lasting_good_state(self, settled):
        events = (event(10, "pause"), event(40.1, "unpause"))

        assert settled(known(between(10, 42), events)) == Recovery(took_s=2.0, resolution_s=0.5)

    def test_clients_whom_another_replica_served_leave_it_to_the_victim(self, settled):
        points = ((9.5, True), (10.5, False), (43.5, False), (44.5, True))
        watched = {"api": Watched(sightings=(Sightings(what="scraped by Prometheus", points=points),))}
        events = (event(10, "pause"), event(40.1, "unpause"))

        assert settled(known(events=events, watched=watched)) == Recovery(took_s=4.5, resolution_s=1.0)
        never = {"api": Watched(sightings=(Sightings(what="scraped by Prometheus", points=points[:3]),))}
        assert settled(known(events=events, watched=never)).why_not.endswith("api was not scraped by Prometheus")

    def test_a_watcher_that_missed_it_counts_from_the_end_of_the_fault(self, settled):
        """The victim never went down, so a look that missed it counts."""

        def found(*points, until_s=END_S):
            seen = Sightings(what="used by the gateway", points=((9.5, True), *points))
            return settled(replace(known(events=(), watched={"api": Watched(sightings=(seen,))}), ended_s=until_s))

        assert found((10.0, False), (43.0, True)) == Recovery(took_s=3.0, resolution_s=3.0)
        assert found((9.9, False), (43.0, True)).took_s == 0.0
        assert found((20.0, True), (41.0, False), (43.0, True), (44.0, True)).took_s == 3.0
        assert found((41.0, False), (42.0, True), (44.0, False), (47.0, True)) == Recovery(took_s=7.0, resolution_s=3.0)
        assert found((41.0, False), (50.0, True)).took_s == 10.0
        assert found((41.0, False), (50.0, True), until_s=49.9).why_not.endswith("api was not used by the gateway")

    def test_a_miss_between_two_faults_does_not_delay_the_return(self, settled):
        done = hit(fault=faults.pause("api"))
        done.last_unix_s = 1015.0
        seen = Sightings(what="used by the gateway", points=((9.5, True), (12.0, False)))

        assert settled(known(events=(), watched={"api": Watched(sightings=(seen,))}), injected=done).took_s == 0.0

    def test_a_watcher_without_a_miss_does_not_delay_the_return(self, settled):
        seen = Sightings(what="scraped by Prometheus", points=((9.5, True), (10.5, True), (41.5, True)))

        assert settled(known(events=(), watched={"api": Watched(sightings=(seen,))})).took_s == 0.0

    def test_one_that_was_good_all_along_took_no_time(self, settled):
        assert settled(known(events=())) == Recovery(took_s=0.0, resolution_s=0.0)

    def test_one_that_relapsed_has_the_time_of_it(self, settled):
        found = settled(known(lambda due: due in {40.0, 45.5} or due > 48, events=()))

        assert found.took_s is None
        assert found.why_not == (
            "the service did not settle within 40 s of the fault's end; "
            "it had recovered, and relapsed 35.5 s after the fault"
        )

    def test_one_that_timed_out_did_not_settle(self, settled):
        assert "did not settle within" in settled(known(events=(), settled=False)).why_not

    def test_a_lasting_fault_has_no_settling(self, settled):
        assert settled(known(), fault=faults.kill("api")).why_not == (
            "kill api is not a passing fault that ended, so nothing settled after it"
        )

    def test_a_fault_before_its_revert_has_no_settling(self, settled):
        done = hit(fault=faults.pause("api"))
        done.reverted_unix_s = None

        assert settled(known(), injected=done).why_not.endswith(
            "is not a passing fault that ended, so nothing settled after it"
        )

    def test_the_reason_is_given_once(self, settled):
        limit = "the service did not settle within 40 s of the fault's end"

        assert settled(known(events=(), settled=False)).why_not == limit
        assert settled(known(events=(event(10, "pause"),))).why_not == f"{limit}: api had not started again"

    def test_a_restart_in_the_fault_needs_no_thaw(self, settled):
        events = (event(20, "restart"), event(21, "health_status", detail="healthy"))

        assert settled(known(events=events)) == Recovery(took_s=0.0, resolution_s=0.0)
