"""Ejection of replicas with late first tokens, on a clock that is an argument."""

from __future__ import annotations

import pytest

from lab_api.breaker import Cause, Circuit
from lab_api.outcomes import Outcome
from lab_api.pool import Lease, Pool
from lab_api.replica import Probed, Replica
from lab_api.settings import Admission, Ejection, Patterns, Probing, Shedding

POLICY = {"latency_min_requests": 4, "latency_factor": 3, "latency_floor_s": 0.5, "open_s": 5, "slow_start_s": 0}


class Lab:
    """Replicas `a`, `b`, ... whose times to first token the test decides."""

    def __init__(self, count: int, *, patterns: Patterns | None = None, **policy: float) -> None:
        self.now_s = 0.0
        self.pool = Pool(
            {name: f"http://{name}" for name in "abcdef"[:count]},
            admission=Admission(concurrency=8),
            shedding=Shedding(),
            probing=Probing(),
            ejection=Ejection(**POLICY | policy),
            patterns=patterns or Patterns(),
            clock=lambda: self.now_s,
        )
        for replica in self.pool.replicas:
            replica.probed(Probed.GOOD, 0, took_s=0)

    def __getitem__(self, name: str) -> Replica:
        return next(replica for replica in self.pool.replicas if replica.name == name)

    def circuit(self, name: str) -> Circuit:
        return self[name].breaker.state(self.now_s)

    def sent_to_b(self, count: int = 1) -> list[Lease]:
        """Streams at `b` that wait for their first token."""
        leases = [lease for _ in range(count) if (lease := self.pool._take(["a"])) is not None]
        for lease in leases:
            lease.sent()
        return leases

    def hear(self, times: int = 4, **took_s: float) -> None:
        """First tokens of the named replicas, after these seconds."""
        for _ in range(times):
            for name, one_s in took_s.items():
                self.pool.outliers.heard(self[name], one_s, self.now_s, trial=False)


def test_a_replica_that_is_late_by_the_factor_is_ejected_for_the_time_of_a_circuit() -> None:
    lab = Lab(3)
    lab.hear(a=0.3, b=0.3, c=0.8)
    assert lab.circuit("c") is Circuit.CLOSED, "less than three times as late"

    lab.hear(c=1.5)

    assert [lab.circuit(name).name for name in "abc"] == ["CLOSED", "CLOSED", "OPEN"]
    assert lab["c"].breaker.ejections == {Cause.ERRORS: 0, Cause.LATENCY: 1}
    lab.now_s = 5
    assert lab.circuit("c") is Circuit.HALF_OPEN


def test_replicas_that_are_all_slow_are_left_alone() -> None:
    lab = Lab(3)
    lab.hear(times=20, a=30, b=35, c=40)

    assert all(lab.circuit(name) is Circuit.CLOSED for name in "abc")


def test_a_replica_below_the_floor_is_left_alone_however_quick_its_peers_are() -> None:
    lab = Lab(2)
    lab.hear(times=20, a=0.001, b=0.45)
    lab.hear(times=2, b=0.6)

    assert lab.circuit("b") is Circuit.CLOSED


def test_one_late_token_among_many_ejects_nothing() -> None:
    lab = Lab(2)
    for _ in range(5):
        lab.hear(times=3, a=0.1, b=0.1)
        lab.hear(times=1, b=60)

    assert lab.circuit("b") is Circuit.CLOSED


def test_too_few_requests_of_the_replica_or_of_its_peers_are_no_evidence() -> None:
    lab = Lab(2)
    lab.hear(times=3, a=0.1)
    lab.hear(times=10, b=9)
    assert lab.circuit("b") is Circuit.CLOSED, "nothing to compare with"

    lab = Lab(2)
    lab.hear(times=10, a=0.1)
    lab.hear(times=3, b=9)
    assert lab.circuit("b") is Circuit.CLOSED

    lab.hear(times=1, b=9)
    assert lab.circuit("b") is Circuit.OPEN


def test_a_peer_that_takes_no_requests_is_no_measure() -> None:
    lab = Lab(2)
    lab.hear(a=0.1)
    lab["a"].probed(Probed.REFUSED, 0, took_s=0)
    lab.hear(times=8, b=9)

    assert lab.circuit("b") is Circuit.CLOSED


def test_times_older_than_the_window_are_forgotten() -> None:
    lab = Lab(2, window_s=10)
    lab.hear(times=3, a=0.1, b=9)
    lab.now_s = 11
    lab.hear(times=1, a=0.1, b=9)

    assert lab.circuit("b") is Circuit.CLOSED


def test_no_more_than_the_share_is_ejected() -> None:
    for share, ejected in ((0.5, 2), (0.49, 1), (0.2, 0)):
        lab = Lab(4, latency_share=share)
        lab.hear(times=5, a=0.1, b=0.1, c=9, d=9)

        assert sum(lab.circuit(name) is Circuit.OPEN for name in "abcd") == ejected


def test_a_replica_ejected_for_errors_counts_in_the_share() -> None:
    lab = Lab(4, latency_share=0.25, connect_failures=1)
    lab["a"].breaker.record(0, Outcome.CONNECT_ERROR, trial=False)
    lab.hear(b=0.1, c=0.1, d=9)

    assert lab.circuit("d") is Circuit.CLOSED


def test_the_last_replica_is_never_ejected() -> None:
    lab = Lab(2, latency_share=1)
    lab.hear(a=0.1, b=9)
    assert lab.circuit("b") is Circuit.OPEN
    lab.hear(times=20, a=60)

    assert lab.circuit("a") is Circuit.CLOSED


@pytest.mark.parametrize(("took_s", "after"), [(9.0, Circuit.OPEN), (0.1, Circuit.CLOSED)])
def test_a_trial_is_judged_by_its_own_first_token(took_s: float, after: Circuit) -> None:
    lab = Lab(2)
    lab.hear(a=0.1, b=9)
    lab.now_s = 5.0
    lab.hear(a=0.1)
    taken = [lab.pool._take(()) for _ in range(2)]
    trial = next(lease for lease in taken if lease is not None and lease.replica.name == "b")
    trial.sent()
    lab.now_s += took_s
    lab.hear(a=0.1)
    trial.first_token()
    trial.end(Outcome.OK)

    assert lab.circuit("b") is after
    if after is Circuit.OPEN:
        lab.now_s += 9.9
        assert lab.circuit("b") is Circuit.OPEN, "twice as long"
        assert lab["b"].breaker.ejections[Cause.LATENCY] == 2


def test_a_trial_after_errors_is_not_judged_by_its_first_token() -> None:
    lab = Lab(2, connect_failures=1)
    lab["b"].breaker.record(0, Outcome.CONNECT_ERROR, trial=False)
    lab.hear(a=0.1)

    assert not lab.pool.outliers.heard(lab["b"], 9, lab.now_s, trial=True)


def test_requests_from_before_the_ejection_do_not_count_after_it() -> None:
    lab = Lab(2)
    lab.hear(a=0.1, b=9)
    lab.hear(times=8, b=9)  # were in flight
    lab.now_s = 5
    lab.hear(a=0.1)
    lab["b"].breaker.record(5, Outcome.OK, trial=lab["b"].breaker.admit(5))
    lab.hear(times=3, a=0.1, b=0.1)
    lab.hear(times=1, b=9)

    assert lab.circuit("b") is Circuit.CLOSED


@pytest.mark.parametrize(("waited_s", "after"), [(2.0, Circuit.OPEN), (0.4, Circuit.CLOSED)])
def test_clients_who_left_are_evidence_only_if_they_waited_beyond_the_bound(waited_s: float, after: Circuit) -> None:
    lab = Lab(2)
    lab.hear(a=0.1)
    leases = [lab.pool._take(["a"]) for _ in range(6)]
    lab.now_s = waited_s
    for lease in leases:
        assert lease is not None
        lease.sent()
        lease.end(Outcome.CLIENT_CANCELLED)

    assert lab.circuit("b") is after


def test_clients_who_left_early_do_not_hide_late_tokens() -> None:
    lab = Lab(2)
    lab.hear(a=0.1)
    for _ in range(6):
        lease = lab.pool._take(["a"])
        assert lease is not None
        lease.sent()
        lease.end(Outcome.CLIENT_CANCELLED)
    lab.hear(b=9)

    assert lab.circuit("b") is Circuit.OPEN


def test_answers_without_streaming_are_no_evidence() -> None:
    lab = Lab(2)
    lab.hear(a=0.1)
    for _ in range(6):
        lease = lab.pool._take(["a"])
        assert lease is not None
        lab.now_s += 1
        lease.first_token()
        lease.end(Outcome.OK)

    assert lab.circuit("b") is Circuit.CLOSED


def test_nothing_is_ejected_with_the_switch_off() -> None:
    lab = Lab(2, patterns=Patterns(latency_ejection=False))
    lab.hear(times=20, a=0.1, b=60)

    assert lab.circuit("b") is Circuit.CLOSED


def test_a_hung_replica_is_ejected_though_its_clients_leave_before_the_gateways_deadline() -> None:
    """As few wait there at a time as at its quick peer: too few for a median."""
    lab = Lab(2, latency_min_requests=10, min_requests=5)
    waiting: list[tuple[float, Lease]] = []
    for tenth in range(300):
        lab.now_s = tenth / 10
        lab.hear(times=1, a=0.1)
        while waiting and waiting[0][0] <= lab.now_s:
            waiting.pop(0)[1].end(Outcome.CLIENT_CANCELLED)
        if len(waiting) < 4 and (lease := lab.pool._take(["a"])) is not None:
            lease.sent()
            waiting.append((lab.now_s + 9.9, lease))
        if lab.circuit("b") is not Circuit.CLOSED:
            break

    assert lab.circuit("b") is Circuit.OPEN
    assert lab.now_s <= 21, "the second time that four clients left"
    lab.now_s += 5
    trial = lab.pool._take(["a"])
    assert trial is not None
    trial.sent()
    lab.now_s += 8
    lab.hear(times=10, a=0.1)
    trial.end(Outcome.CLIENT_CANCELLED)
    assert lab.circuit("b") is Circuit.OPEN, "its trial was left too"


def test_clients_who_leave_count_only_while_the_replica_gives_no_request_a_first_token() -> None:
    circuits = {}
    for case in ("mute", "mute by now", "serves others", "lost their races"):
        lab = Lab(2, latency_min_requests=10, min_requests=5)
        lab.hear(times=10, a=0.1)
        if case == "mute by now":
            lab.sent_to_b()[0].first_token()
            lab.now_s = 0.1
        *left, other = lab.sent_to_b(6)
        lab.now_s += 1
        if case == "serves others":
            other.first_token()
        lab.now_s += 1
        for lease in left:
            lease.end(Outcome.CLIENT_CANCELLED, lost=case == "lost their races")
        circuits[case] = lab.circuit("b").name

    assert circuits == {"mute": "OPEN", "mute by now": "OPEN", "serves others": "CLOSED", "lost their races": "CLOSED"}


def test_a_trial_that_is_left_proves_nothing_about_a_replica_ejected_for_errors() -> None:
    """A good one may have had a long prompt: the time is that of the last ejection."""
    circuits = {}
    for case in ("mute", "mute twice", "serves others", "lost its race", "answered 4xx"):
        lab = Lab(2, connect_failures=1)
        [old] = lab.sent_to_b()
        lab["b"].breaker.record(0, Outcome.CONNECT_ERROR, trial=False)
        for _ in range(2 if case == "mute twice" else 1):
            lab.now_s += 5
            [trial] = lab.sent_to_b()
            lab.now_s += 2
            lab.hear(a=0.1)
            if case == "serves others":
                old.first_token()
            outcome = Outcome.UPSTREAM_4XX if case == "answered 4xx" else Outcome.CLIENT_CANCELLED
            trial.end(outcome, lost=case == "lost its race")
        after = lab.circuit("b").name
        lab.now_s += 5
        circuits[case] = (after, lab.circuit("b").name, lab["b"].breaker.cause.value)

    again = ("OPEN", "HALF_OPEN", "errors")
    waits = ("HALF_OPEN", "HALF_OPEN", "errors")
    assert circuits == {
        "mute": again,
        "mute twice": again,
        "serves others": waits,
        "lost its race": waits,
        "answered 4xx": waits,
    }
