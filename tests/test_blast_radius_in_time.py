"""Blast radius over time: compositions stay within it, acts wait for earlier ones."""

import contextlib
import itertools
import random
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from support.fake_runtime import FakeRuntime

from pytest_llmchaos import experiment, faults
from pytest_llmchaos.errors import Aborted, BadScenario, HealFailed, NoVictim
from pytest_llmchaos.evidence.journal import Journal, read
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.loads import open_loop
from pytest_llmchaos.model import Injection
from pytest_llmchaos.plan.schedule import most_at_once, plan_trial
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.trial.own_load import judge_own_load

SERVICES = ("api", "model-1", "model-2")
TARGETS = st.sampled_from([*SERVICES, "model-*"])
SINGLE = st.builds(
    lambda make, target: make(target), st.sampled_from([faults.kill, faults.pause, faults.restart]), TARGETS
)


def unless_an_act_is_there_twice(compose):
    """The composition. One with an act twice at an instant is not an example."""

    def made(*parts):
        try:
            return compose(*parts)
        except BadScenario:
            reject()

    return made


together = unless_an_act_is_there_twice(faults.together)
sequence = unless_an_act_is_there_twice(lambda one, other, gap: faults.sequence(one, then=other, after_s=gap))


COMPOSED = st.recursive(
    SINGLE,
    lambda inner: st.one_of(
        st.builds(together, inner, inner),
        st.builds(sequence, inner, inner, st.integers(1, 9)),
        st.builds(
            lambda n, among: faults.random(n=n, among=among), st.integers(1, 6), st.lists(inner, min_size=1, max_size=3)
        ),
    ),
    max_leaves=5,
)


def in_force(injections):
    """The most victims at once if lasting faults are repaired before the next act."""
    most, staying = 0, set()
    for _, group in itertools.groupby(injections, key=lambda act: act.after_s):
        acts = list(group)
        most = max(most, len(staying | {act.victim for act in acts}))
        staying |= {act.victim for act in acts if act.fault.lifetime == "passing"}
    return most


@settings(max_examples=1000, deadline=None)
@given(fault=COMPOSED, radius=st.integers(0, 4), seed=st.integers(0, 999))
def test_a_plan_keeps_to_its_blast_radius_or_is_refused(fault, radius, seed):
    fault_s = 1 if fault.lifetime == "passing" else None
    with contextlib.suppress(BadScenario, NoVictim):
        made = experiment(load=open_loop(rate_rps=1), fault=fault, fault_s=fault_s, blast_radius=radius).kwargs[
            "experiment"
        ]
        about = {"scenario": "s", "hypothesis": "", "experiment": made, "fault": fault, "repeat": 0, "seed": seed}
        plan = plan_trial(**about, services=SERVICES)
        assert in_force(plan.injections) <= radius


@settings(max_examples=300, deadline=None)
@given(fault=COMPOSED, seed=st.integers(0, 999))
@example(
    fault=faults.random(n=4, among=[faults.random(n=1, among=[faults.kill("api"), faults.pause("model-1")])]), seed=0
)
@example(fault=faults.random(n=2, among=[faults.together(faults.pause("model-*"), faults.pause("model-*"))]), seed=0)
def test_a_fault_never_hits_more_than_its_blast_radius(fault, seed):
    with contextlib.suppress(NoVictim):
        assert most_at_once(fault.plan(random.Random(seed), SERVICES)) <= fault.blast_radius


def test_a_lasting_fault_after_a_passing_one_counts_both():
    acts = [
        Injection(after_s=0.0, fault=faults.pause("model-1").primitive, victim="model-1"),
        Injection(after_s=9.0, fault=faults.kill("api").primitive, victim="api"),
    ]

    assert most_at_once(acts) == 2
    assert most_at_once(acts[::-1]) == 2
    assert most_at_once([replace(acts[1], after_s=0.0), replace(acts[1], victim="model-2")]) == 1


@pytest.fixture
def lab(tmp_path):
    runtime = FakeRuntime()
    runtime._clock = itertools.count(int(time.time()) + 1)  # its events come after the acts, by the wall clock too
    subject = replace(lab_subject("sim"), pushgateway=None)
    journal = Journal(tmp_path / "journal.jsonl")
    made = Lab(
        runtime=runtime,
        subject=subject,
        journal=journal,
        directory=tmp_path,
        seed=1,
        say=lambda *_: None,
        judge=judge_own_load,
    )
    with made.recording():
        yield made


TWO_KILLS = [
    Injection(after_s=0.0, fault=faults.kill("api").primitive, victim="api"),
    Injection(after_s=0.01, fault=faults.kill("model-1").primitive, victim="model-1"),
]


def kinds(lab):
    return [
        (line["kind"], line.get("victim")) for line in read(lab.journal.path) if line["kind"] in {"intent", "undone"}
    ]


def test_an_act_waits_until_the_system_has_repaired_the_one_before(lab):
    runtime, seen = lab.runtime, []
    kill = runtime.kill
    repair = threading.Timer(0.3, lambda: runtime.start("api"))

    def kill_and_repair(service):
        seen.append(runtime.state("api").running)
        kill(service)
        if service == "api":
            repair.start()

    runtime.kill = kill_and_repair

    with lab.inject(TWO_KILLS, blast_radius=1, patience_s=10):
        pass

    repair.join()
    assert seen == [True, True]
    assert kinds(lab) == [("intent", "api"), ("intent", "model-1"), ("undone", "model-1"), ("undone", "api")]


def test_a_wider_radius_does_not_wait(lab):
    with lab.inject(TWO_KILLS, blast_radius=2, patience_s=10):
        assert not lab.runtime.state("api").running
        assert not lab.runtime.state("model-1").running


def test_an_act_that_waits_too_long_is_not_done_and_the_others_are_reverted(lab):
    with (
        pytest.raises(
            Aborted, match=r"kill model-1 .* was not injected: api, model-1 would be hit at once, blast_radius=1"
        ),
        lab.inject(TWO_KILLS, blast_radius=1, patience_s=0.2),
    ):
        raise AssertionError("the block must not be reached")

    assert kinds(lab) == [("intent", "api"), ("undone", "api")]
    assert lab.runtime.state("api").running
    assert "model-1" not in lab.runtime.touched


def test_a_dead_victim_is_not_hit_again_before_it_is_back(lab):
    again = [TWO_KILLS[0], replace(TWO_KILLS[1], victim="api")]

    with pytest.raises(Aborted), lab.inject(again, blast_radius=1, patience_s=0.2):
        raise AssertionError("the block must not be reached")


def test_a_removed_victim_needs_no_revert_and_supports_no_claim(lab):
    with (
        pytest.raises(NoVictim, match=r"api was removed by another process while kill was in force"),
        lab.inject(TWO_KILLS),
    ):
        lab.runtime.remove("api")

    assert kinds(lab)[2:] == [("undone", "model-1"), ("undone", "api")]
    assert lab.runtime.state("model-1").running


def test_an_undo_that_fails_is_retried_until_its_deadline_and_does_not_keep_the_others_from_theirs(lab, monkeypatch):
    monkeypatch.setattr("pytest_llmchaos.runtime.undo.revert_until_done.__defaults__", (0.3,))
    real, tried = lab.runtime.undo, []

    def refuses(undo):
        tried.append(undo.service)
        if undo.service == "model-1":
            raise HealFailed("the daemon refuses")
        real(undo)

    lab.runtime.undo = refuses
    with (
        pytest.raises(HealFailed, match=r"could not revert ensure_running on model-1 .* run `llmchaos heal`"),
        lab.inject(TWO_KILLS),
    ):
        pass

    assert tried.count("model-1") >= 2
    assert tried.count("api") == 1
    assert lab.runtime.state("api").running


def test_a_revert_that_works_at_the_second_try_counts(lab):
    real, tried = lab.runtime.undo, []

    def refuses_once(undo):
        tried.append(undo.service)
        if len(tried) == 1:
            raise OSError("the daemon is being restarted")
        real(undo)

    lab.runtime.undo = refuses_once
    with lab.inject(TWO_KILLS[:1]):
        pass

    assert tried == ["api", "api"]
    assert lab.record.healed


def test_a_journal_that_is_full_keeps_no_undo_from_its_work(lab):
    with lab.inject(TWO_KILLS):
        lab.journal.close()  # every later write fails, as on a full disk

    assert lab.journal.lost is not None
    assert lab.runtime.state("api").running
    assert lab.runtime.state("model-1").running
