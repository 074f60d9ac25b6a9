"""Moments of a trial from the onlooker's record."""

import pytest
from moments import Blind, complaints, differences, seen

FAULT_S = 1000.0


def lines(*, hit=FAULT_S, back=1001.0, good_from=1001.5, signal=1000.9, until=1010.0):
    """A service that is hit, detected, restarted and good, observed every 20 ms."""
    steps = [990.0 + 0.02 * step for step in range(round((until - 990.0) / 0.02))]
    made = [
        {"saw": "event", "at": hit, "service": "api", "action": "die"},
        {"saw": "event", "at": back, "service": "api", "action": "start"},
        {"saw": "signal", "at": signal, "name": "alert ServiceDown"},
        {"saw": "signal", "at": signal + 0.05, "name": "remediator rule api-exited"},
        {"saw": "signal", "at": signal + 5, "name": "alert AvailabilityFastBurn"},
    ]
    made += [{"saw": "look", "asked": at, "answered": at, "late": 0.0} for at in steps]
    return made + [{"saw": "probe", "due": at, "good": not hit <= at < good_from, "late": 0.0} for at in steps]


def without(made, saw, from_s, to_s):
    return [one for one in made if one["saw"] != saw or not from_s < one.get("answered", one.get("due")) < to_s]


def test_it_counts_from_the_runtimes_event_to_the_first_signal_and_to_good_answers():
    there = seen(lines(), ["api"], 3.0)

    assert there.detect_s == pytest.approx(0.9)
    assert there.recover_s == pytest.approx(1.5, abs=0.021)
    assert there.detected_by == {"alert ServiceDown", "remediator rule api-exited"}


def test_a_signal_from_before_the_fault_does_not_count():
    made = [*lines(), {"saw": "signal", "at": FAULT_S - 2, "name": "alert Other"}]

    assert seen(made, ["api"], 3.0).detect_s == pytest.approx(0.9)


def test_good_answers_before_every_victim_runs_are_no_recovery():
    made = [
        *lines(back=1001.0, good_from=1001.1),
        {"saw": "event", "at": FAULT_S + 0.02, "service": "model-1", "action": "die"},
        {"saw": "event", "at": 1004.0, "service": "model-1", "action": "start"},
    ]

    assert seen(made, ["api", "model-1"], 3.0).recover_s == pytest.approx(4.0)


def test_where_no_client_suffered_the_victims_return_counts():
    assert seen(lines(good_from=FAULT_S), ["api"], 3.0).recover_s == pytest.approx(1.0)


def part(at, good, what="scrape", service="api"):
    return {"saw": "part", "at": at, "service": service, "what": what, "good": good}


def test_a_victim_is_back_when_it_is_healthy_scraped_and_used():
    healthy = {"saw": "event", "at": 1002.0, "service": "api", "action": "health_status: healthy"}
    scraped = [part(999.5, True), part(1000.5, False), part(1002.5, True)]
    used = [part(at, good, what) for what in ("shallow", "passive") for at, good in ((999.5, True), (1001.5, False))]
    used += [part(1003.5, True, "shallow"), part(1003.5, False, "passive"), part(1004.5, True, "passive")]

    assert seen([*lines(), healthy], ["api"], 3.0).recover_s == pytest.approx(2.0)
    assert seen([*lines(), healthy, *scraped], ["api"], 3.0).recover_s == pytest.approx(2.5)
    assert seen([*lines(), healthy, *scraped, *used], ["api"], 3.0).recover_s == pytest.approx(4.5)
    assert seen([*lines(), part(1000.5, False)], ["api"], 3.0).recover_s == pytest.approx(1.5, abs=0.021)
    with pytest.raises(Blind, match="was not seen to take part again"):
        seen([*lines(), *scraped[:2]], ["api"], 3.0)


def test_a_frozen_victim_settles_from_its_thaw_on():
    made = [{**one, "action": {"die": "pause", "start": "unpause"}[one["action"]]} for one in lines()[:2]]
    made += lines()[2:]
    scraped = [part(999.5, True), part(1000.5, False), part(1001.8, True)]

    assert seen(made, ["api"], 3.0).settle_s == pytest.approx(0.5, abs=0.021)
    assert seen([*made, *scraped], ["api"], 3.0).settle_s == pytest.approx(0.8)
    assert seen([*made, scraped[0], scraped[2]], ["api"], 3.0).settle_s == pytest.approx(0.5, abs=0.021)
    assert seen(made, ["api"], 3.0, 6.0).settle_s == 0.0


def test_without_a_signal_nothing_was_detected():
    there = seen([one for one in lines() if one["saw"] != "signal"], ["api"], 3.0)

    assert (there.detect_s, there.detected_by) == (float("inf"), frozenset())
    assert complaints({"recover_s": there.recover_s}, None, there) == []


def relapsed(*after_s):
    dues = [one["due"] for one in lines() if one["saw"] == "probe"]
    bad = {next(due for due in dues if due > FAULT_S + seconds) for seconds in after_s}
    return [{**one, "good": one["good"] and one["due"] not in bad} if one["saw"] == "probe" else one for one in lines()]


def test_a_relapse_within_the_stable_seconds_moves_the_recovery():
    there = seen(relapsed(*(2.5 + 0.02 * step for step in range(20))), ["api"], 3.0)

    assert there.recover_s == pytest.approx(2.9, abs=0.05)


def test_the_end_is_unknown_while_good_and_bad_alternate():
    with pytest.raises(Blind, match=r"good and bad by turns: the last bad ones 0\.\d+ s apart"):
        seen(relapsed(2.5, 2.8), ["api"], 3.0)


def test_a_number_of_the_instrument_within_the_bound_is_confirmed():
    there = seen(lines(), ["api"], 3.0)
    told = {"detect_s": there.detect_s - 0.099, "recover_s": there.recover_s + 0.099}

    assert complaints(told, "alert ServiceDown", there) == []
    assert differences(told, there) == pytest.approx({"detect_s": -0.099, "recover_s": 0.099})


@pytest.mark.parametrize("shift_s", [0.15, -0.15])
def test_a_fault_start_150_ms_off_is_reported_for_both_times(shift_s):
    made = lines()
    there = seen(made, ["api"], 3.0)
    told = {"detect_s": there.detect_s, "recover_s": there.recover_s}
    made[0]["at"] += shift_s

    found = complaints(told, "alert ServiceDown", seen(made, ["api"], 3.0))

    assert [line.split(":")[0] for line in found] == ["detect_s", "recover_s"]
    assert f"{shift_s:+.3f} s, at most 0.1 s may lie between" in found[0]


def test_another_signal_than_the_first_is_reported():
    there = seen(lines(), ["api"], 3.0)
    told = {"detect_s": there.detect_s, "recover_s": there.recover_s}

    (found,) = complaints(told, "alert AvailabilityFastBurn", there)

    assert found.startswith("detected by alert AvailabilityFastBurn, the onlooker first saw alert ServiceDown")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_missing_number_is_not_confirmed(number):
    there = seen(lines(), ["api"], 3.0)

    assert len(complaints({"detect_s": number, "recover_s": number}, "alert ServiceDown", there)) == 2


BLIND = {
    "no hit": (lambda made: made[1:], "no event shows that api was hit"),
    "no return": (lambda made: [made[0], *made[2:]], "no event shows that api came back"),
    "alerts unseen": (lambda made: without(made, "look", 1000.69, 1000.91), r"alerts went unseen for 0\.2"),
    "clients unseen": (lambda made: without(made, "probe", 1001.2, 1001.4), r"the api went unseen for 0\.2"),
    "a watcher died": (
        lambda made: [*made, {"saw": "blind", "why": "a docker command ended"}],
        "a docker command ended",
    ),
    "a late probe": (
        lambda made: [*made, {"saw": "probe", "due": 1001.0, "good": False, "late": 0.3}],
        r"a probe left 0\.300 s late",
    ),
    "never good": (lambda made: [{**one, "good": False} if one["saw"] == "probe" else one for one in made], "never"),
}


@pytest.mark.parametrize(("change", "said"), BLIND.values(), ids=BLIND)
def test_an_onlooker_that_saw_too_little_neither_contradicts_nor_confirms(change, said):
    with pytest.raises(Blind, match=said):
        seen(change(lines()), ["api"], 3.0)


def test_what_went_unseen_after_the_moment_itself_hides_nothing():
    made = without(without(lines(), "look", 1002.0, 1003.0), "probe", 1002.0, 1002.2)

    assert seen(made, ["api"], 3.0) == seen(lines(), ["api"], 3.0)
