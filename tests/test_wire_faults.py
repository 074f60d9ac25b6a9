"""Faults on the wire: options, seeds, proof and revert."""

import random
import re
from dataclasses import replace

import pytest
from support.fake_runtime import FakeRuntime
from support.primitives import ON_WIRE

from fault_agent import faults as agent_faults
from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import BadScenario, HealFailed, NotReady, NoVictim
from pytest_llmchaos.faults.compositions import wired_services
from pytest_llmchaos.faults.leases import LONGEST_LEASE_S
from pytest_llmchaos.faults.wire_match import Match
from pytest_llmchaos.model import FaultCounts, LeasedFaults, LeasedFaultState, Undo
from pytest_llmchaos.plan.schedule import plan_trial, schedule, schedule_bytes
from pytest_llmchaos.runtime.fault_agent import AgentAbility
from pytest_llmchaos.runtime.leased_faults import read_fault

SERVICES = ("api", "model-1", "model-2")
PARTITIONS = [faults.partition("model-1", how="drop"), faults.partition("model-1", how="reject")]


def primitive(fault, seed=1):
    return fault.plan(random.Random(seed), SERVICES)[0].fault


class Scripted(FakeRuntime):
    """A runtime whose agent reports what the test sets."""

    def __init__(self, report=None, opened="model-1:8080 accepts a connection from outside"):
        super().__init__()
        self.report, self.opened, self.started = report, opened, []

    def wire_start(self, service, kind, **about):
        self.started.append((service, kind, about))
        return "f1"

    def wire_faults(self, service):
        return self.report

    def wire_open(self, service):
        return self.opened


def listed(kind, *, at=1000.0, active=True, **counters):
    state = LeasedFaultState(id="f1", kind=kind, active=active, started_unix_s=at, counters=counters)
    return LeasedFaults(at_unix_s=at + 1, faults=(state,))


# Options


@pytest.mark.parametrize("fault", ON_WIRE + PARTITIONS, ids=str)
def test_a_fault_on_the_wire_is_as_real_as_a_proxy(fault):
    assert (fault.fidelity, fault.lifetime, fault.needs) == ("proxy", "passing", {"proxy"})
    with pytest.raises(BadScenario, match=r"needs more than .* has \(proxy\): .* real or kernel"):
        experiment(load=loads.open_loop(rate_rps=2), fault=fault, fault_s=5, fidelity="kernel")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: faults.stall("api", for_s=0),
            r"stall\(for_s=\.\.\.\) must be a number above 0 and at most 3600, got 0",
        ),
        (lambda: faults.stall("api", keep_alive_s=True), r"stall\(keep_alive_s=\.\.\.\) must .* got True"),
        (
            lambda: faults.flaky("api", retry_after_s=0.5),
            r"retry_after_s=\.\.\.\) must be a whole .* 0 to 86400, got 0.5",
        ),
        (lambda: faults.wrong_model("api", model=" "), r"wrong_model\(model=\.\.\.\) must be a text, got ' '"),
        (lambda: faults.wrong_model("api", model=7), r"must be a text, got 7"),
        (
            lambda: faults.partition("api", how="close"),
            r"partition\(how=\.\.\.\) must be one of 'drop', 'reject', got 'c",
        ),
        (
            lambda: faults.stall("api", match={"path": "/"}),
            r"stall\(match=.* must be faults\.match\(path=.*got \{'path'",
        ),
        (faults.match, r"faults\.match\(\) is empty: give a condition"),
        (lambda: faults.match(path=""), r"match\(path=\.\.\.\) must be a text, got ''"),
        (
            lambda: faults.match(path="v1/chat"),
            r"match\(path=.* must begin with a slash or a wildcard, .*got 'v1/chat'",
        ),
        (lambda: faults.match(method=7), r"match\(method=\.\.\.\) must be a text, got 7"),
        (lambda: faults.match(header="x-tenant"), r"match\(header=.*a name, a colon and a glob, .*got 'x-tenant'"),
        (lambda: faults.match(header=": a"), r"match\(header=.*a name, a colon and a glob, .*got ': a'"),
        (lambda: faults.match(streaming=1), r"match\(streaming=\.\.\.\) must be True, False or None, got 1"),
    ],
)
def test_a_wrong_option_is_refused_with_its_value(make, message):
    with pytest.raises(BadScenario, match=message):
        make()


def test_options_that_are_not_given_are_left_to_the_agent():
    assert dict(faults.stall("api").primitive.options) == {"after_tokens": 0, "share": 1.0}
    assert dict(faults.flaky("api", retry_after_s=0).primitive.options)["retry_after_s"] == 0
    assert faults.match(streaming=False).conditions == (("streaming", False),)


def test_the_agent_gets_the_options_with_the_match_as_an_object():
    runtime, chosen = Scripted(), faults.match(path="/v1/*", method="POST", header="x-a: b*", streaming=True)
    one = replace(primitive(faults.stall("model-1", for_s=2, share=0.5, match=chosen)), seed=7)

    one.inject(runtime, "model-1")

    about = {"lease_s": 300.0, "seed": 7, "after_tokens": 0, "for_s": 2.0, "share": 0.5}
    match = {"path": "/v1/*", "method": "POST", "header": "x-a: b*", "streaming": True}
    assert runtime.started == [("model-1", "stall", {**about, "match": match})]


def test_the_name_of_one_of_several_shows_what_they_differ_in():
    chats = faults.match(path="/v1/chat/*", streaming=True)
    made = experiment(
        load=loads.open_loop(rate_rps=2),
        fault=[faults.stall("api"), faults.stall("api", match=chats), faults.partition("api", how="drop")],
        fault_s=5,
    ).kwargs["experiment"]

    assert [str(one) for one in made.faults] == [
        "stall api",
        "stall(match=path=/v1/chat/*, streaming=True) api",
        "partition api",
    ]
    assert str(faults.partition("api", how="reject").named_by(["how"])) == "partition(how=reject) api"


# Seeds and leases


@pytest.mark.parametrize("fault", ON_WIRE + PARTITIONS, ids=str)
def test_the_seed_of_decisions_depends_on_the_trials_seed_alone(fault):
    assert primitive(fault, seed=1) == primitive(fault, seed=1)
    assert primitive(fault, seed=1).seed != primitive(fault, seed=2).seed
    assert 0 <= primitive(fault).seed < 2**32


def test_two_victims_of_one_fault_decide_independently():
    first, second = faults.flaky(["model-1", "model-2"]).plan(random.Random(1), SERVICES)

    assert first.fault.seed != second.fault.seed


def test_the_seed_of_a_wire_fault_changes_no_draw_of_others():
    drawn = faults.kill("model-*").plan(random.Random(5), SERVICES)

    assert faults.flaky("model-*").plan(random.Random(5), SERVICES)[0].victim == drawn[0].victim


def test_the_schedule_has_seed_and_match_so_that_a_replay_with_others_is_refused():
    def entry(fault, seed=1):
        made = experiment(load=loads.open_loop(rate_rps=2), fault=fault, fault_s=5).kwargs["experiment"]
        plan = plan_trial(
            scenario="s", hypothesis="", experiment=made, fault=made.faults[0], repeat=0, seed=seed, services=SERVICES
        )
        return schedule([plan])[0].entry

    chats, others = (faults.match(path=path) for path in ("/v1/chat/*", "/v1/*"))
    one = entry(faults.flaky("api", match=chats))

    assert schedule_bytes([one]) == schedule_bytes([entry(faults.flaky("api", match=chats))])
    assert schedule_bytes([one]) != schedule_bytes([entry(faults.flaky("api", match=others))])
    assert ["match", [["path", "/v1/chat/*"]]] in one.injections[0].options["options"]
    assert one.injections[0].options["seed"] != entry(faults.flaky("api"), seed=2).injections[0].options["seed"]
    assert entry(PARTITIONS[0]).injections[0].options["how"] == "drop"


@pytest.mark.parametrize(("for_s", "lease_s"), [(0.0, 300.0), (300.5, 300.5), (3600.0, 3600.0)])
def test_a_lease_is_lengthened_and_never_shortened(for_s, lease_s):
    assert faults.stall("model-1").with_lease(for_s).primitive.lease_s == lease_s
    assert faults.partition("api", how="drop").with_lease(for_s).primitive.lease_s == lease_s


def test_a_lease_beyond_the_longest_is_refused_with_the_fault():
    with pytest.raises(
        BadScenario, match=r"may need 'stall model-1' for 3600\.5 s, .* the fault agent ends every fault"
    ):
        faults.stall("model-1").with_lease(3600.5)


# Proof


def test_the_proof_has_the_agents_counts():
    proof = primitive(faults.flaky("model-1")).observed(Scripted(listed("flaky", met=45.0, hit=14.0)), "model-1", 999.0)

    assert proof.witness == "the fault agent reports flaky f1 in force, hit 14 of 45 requests"
    assert (proof.step, proof.at_unix_s) == ("injected", 1000.0)


def test_proofs_have_the_counts_as_values_with_the_first_hit():
    one, report = primitive(faults.flaky("model-1")), listed("flaky", met=45.0, hit=14.0)
    late = replace(report, faults=(replace(report.faults[0], hit_after_s=1.234),))
    ended = replace(late, faults=(replace(late.faults[0], active=False),))

    injected, healed = one.observed(Scripted(late), "model-1", 999.0), one.healed(Scripted(ended), "model-1", 0.0)

    said = "hit 14 of 45 requests, the first after 1.23 s"
    counts = FaultCounts(counters={"met": 45.0, "hit": 14.0}, unit="requests", first_hit_after_s=1.234)
    assert injected.counts == healed.counts == counts
    assert str(counts) == said
    assert injected.witness.endswith(f"in force, {said}")
    assert f"ended, {said}; " in healed.witness
    gone = one.healed(Scripted(LeasedFaults(at_unix_s=1.0, faults=())), "model-1", 0.0)
    assert gone.counts is None


def test_the_counts_of_a_revert_are_those_of_the_newest_fault_of_its_kind():
    old, new, other = (
        listed(kind, active=False, met=met).faults[0] for kind, met in (("flaky", 1), ("flaky", 2), ("stall", 3))
    )
    report = LeasedFaults(at_unix_s=1.0, faults=(old, new, other))

    healed = primitive(faults.flaky("model-1")).healed(Scripted(report), "model-1", 0.0)

    assert healed.counts.counters == {"met": 2, "hit": 0}


@pytest.mark.parametrize(
    ("counters", "unit", "said"),
    [
        ({"met": 1234567, "hit": 1}, "requests", "hit 1 of 1,234,567 requests"),
        (
            {"met": 3, "hit": 2, "unread": 1, "own_refused": 1},
            "connections",
            "hit 2 of 3 connections, and refused the agent's own connection, 1 connections carried no HTTP/1.1",
        ),
        ({"requests_failed": 3, "steps": 40}, "", "counted 3 requests failed, 40 steps"),
        ({}, "", ""),
    ],
)
def test_counts_in_words_have_all_of_them(counters, unit, said):
    assert str(FaultCounts(counters=counters, unit=unit)) == said


@pytest.mark.parametrize(
    ("times", "after_s"),
    [
        ({"started_unix_s": 50.0, "hit_unix_s": 51.5}, 1.5),
        ({"started_unix_s": 50.0, "hit_unix_s": 49.9}, 0.0),
        ({"started_unix_s": 50.0, "hit_unix_s": None}, None),
        ({"hit_unix_s": 51.5}, None),
    ],
)
def test_the_first_hit_is_measured_by_the_agents_clock_alone(times, after_s):
    about = {"id": "f1", "kind": "flaky", "state": "active", "lease_s": 60, "left_s": 50, "counters": {}}

    assert read_fault({**about, **times}, 9000.0).hit_after_s == after_s


@pytest.mark.parametrize(
    "report",
    [
        None,
        LeasedFaults(at_unix_s=1001.0, faults=()),
        listed("flaky", met=45.0, hit=0.0),
        listed("flaky"),
        listed("flaky", at=998.0, met=1.0, hit=1.0),
        listed("flaky", active=False, met=1.0, hit=1.0),
        listed("stall", met=1.0, hit=1.0),
    ],
    ids=["no answer", "nothing", "met but not hit", "no counts", "from before", "ended", "another kind"],
)
def test_a_fault_that_hit_nothing_or_is_not_in_force_is_not_proven(report):
    assert primitive(faults.flaky("model-1")).observed(Scripted(report), "model-1", 999.0) is None


def test_a_closed_port_is_proven_by_the_agents_own_connection():
    runtime = Scripted(listed("reject", met=0.0, hit=0.0, own_refused=1.0))

    for fault in (faults.reject("model-1"), faults.partition("model-1", how="reject")):
        proof = primitive(fault).observed(runtime, "model-1", 999.0)
        assert proof.witness.endswith("hit 0 of 0 connections, and refused the agent's own connection")


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (None, "the fault agent does not answer"),
        (listed("stall"), "the fault agent lists no flaky in force"),
        (listed("flaky", unread=4.0), r"0 requests met it, and 4 connections carried no HTTP/1\.1: .*TLS or HTTP/2"),
        (listed("flaky", met=12.0), r"12 requests met it, and it hit 0 of them \(raise the rate, or check match"),
        (
            listed("flaky"),
            r"0 requests met it.* \(raise the rate, or check match and that model-1 gets HTTP/1.1 without TLS",
        ),
    ],
)
def test_an_unproven_fault_has_the_counts_in_words(report, words):
    assert re.search(words, primitive(faults.flaky("model-1")).counted(Scripted(report), "model-1"))


def test_a_fault_of_connections_counts_these_and_has_ten_seconds():
    latency = primitive(faults.latency("model-1", delay_s=1))

    counted = latency.counted(Scripted(listed("latency", met=3.0)), "model-1")
    assert counted == "3 connections met it, and it hit 0 of them (raise the rate)"
    assert latency.proof_within_s == 10


def test_a_fault_ended_early_if_the_agent_no_longer_lists_it_in_force():
    one = primitive(faults.stall("model-1"))

    assert not one.ended_early(Scripted(listed("stall")), "model-1")
    assert not one.ended_early(Scripted(None), "model-1"), "an agent that does not answer has decided nothing"
    assert one.ended_early(Scripted(listed("stall", active=False)), "model-1")
    assert one.ended_early(Scripted(LeasedFaults(at_unix_s=1.0, faults=())), "model-1"), "a new agent has no fault"


def test_the_revert_is_proven_by_the_agent_and_by_a_connection_from_outside():
    one, ended = primitive(faults.stall("model-1")), listed("stall", active=False, met=9.0, hit=4.0)

    assert one.healed(Scripted(None), "model-1", 0.0) is None
    assert one.healed(Scripted(listed("stall")), "model-1", 0.0) is None
    assert one.healed(Scripted(ended, opened=None), "model-1", 0.0) is None
    assert one.healed(Scripted(ended), "model-1", 0.0).witness == (
        "the fault agent lists stall f1 ended, hit 4 of 9 requests; model-1:8080 accepts a connection from outside"
    )
    gone = one.healed(Scripted(LeasedFaults(at_unix_s=1.0, faults=())), "model-1", 0.0)
    assert gone.witness.startswith("the fault agent lists no stall; ")


def test_a_partition_by_the_agent_is_a_black_hole_or_a_refusal_there():
    drop, reject = map(primitive, PARTITIONS)
    runtime = Scripted()

    drop.inject(runtime, "model-1")
    reject.inject(runtime, "model-1")

    assert [(kind, about["seed"]) for _, kind, about in runtime.started] == [
        ("black_hole", drop.seed),
        ("reject", reject.seed),
    ]
    assert [one.undo("model-1").args for one in (drop, reject)] == [{"kind": "black_hole"}, {"kind": "reject"}]
    assert faults.partition("model-1").fidelity == "kernel"


# Services in whose way an agent stands


@pytest.mark.parametrize(
    ("made", "wired"),
    [
        ([faults.kill("model-*")], ()),
        ([faults.partition("api")], ()),
        ([faults.stall("model-1")], ("model-1",)),
        ([faults.stall("model-*"), faults.none()], ("model-1", "model-2")),
        ([faults.stall("model-1#2")], ("model-1",)),
        ([faults.together(faults.kill("api"), faults.stall("model-2"))], ("model-2",)),
        ([faults.random(n=2, among=[faults.kill("api"), faults.flaky("model-*")])], ("model-1", "model-2")),
        ([faults.sequence(faults.flaky(["api", "model-1"]), then=faults.reset("model-2"), after_s=3)], SERVICES),
    ],
    ids=lambda value: str([*map(str, value)]),
)
def test_agents_stand_in_the_way_of_all_services_that_a_wire_fault_may_hit(made, wired):
    assert wired_services(made, SERVICES) == wired


def test_some_faults_have_to_read_requests_and_others_act_on_connections():
    made = [
        faults.flaky("api"),
        faults.latency("model-1", delay_s=1),
        faults.kill("model-1"),
        faults.together(faults.stall("model-2"), faults.reset("model-1")),
    ]
    timed = faults.timed(faults.kill("model-1"), at="after:chat#1.received", on="api")
    services = ["api", "model-1", "model-2"]

    assert wired_services(made, services, reads_http=True) == ("api", "model-2")
    assert wired_services([timed], services, reads_http=True) == ("api",)
    assert wired_services(made[1:3], services, reads_http=True) == ()


def test_a_target_without_a_service_has_no_agent():
    with pytest.raises(NoVictim, match="'worker-9' matches no service"):
        wired_services([faults.stall("worker-9")], SERVICES)


# Against the agent's own reader


@pytest.mark.parametrize("fault", ON_WIRE + PARTITIONS, ids=str)
def test_the_agent_takes_the_options_of_each_fault(fault):
    runtime, one = Scripted(), primitive(fault)

    one.inject(runtime, "model-1")

    ((_, kind, about),) = runtime.started
    parsed = agent_faults.parse({"kind": kind, **about})
    assert (parsed.fault.kind, parsed.lease_s, parsed.seed) == (one.agent_kind, one.lease_s, one.seed)
    asked = {name: value for name, value in one.options if name != "match"}
    assert asked.items() <= agent_faults.options(parsed.fault).items()


def test_each_kind_of_the_agent_is_a_fault_of_its_name():
    others = {kind for kind in agent_faults.KINDS if kind == "hold" or kind.startswith("tool_")}
    assert {one.primitive.agent_kind for one in ON_WIRE} - others == set(agent_faults.KINDS) - others
    assert LONGEST_LEASE_S == agent_faults.LONGEST_LEASE_S


@pytest.mark.parametrize(
    "fault",
    [
        faults.latency("api", delay_s=600, jitter_s=600, distribution="normal"),
        faults.bandwidth("api", bytes_per_s=2**40),
        faults.reset("api", after_bytes=2**40, share=0.001),
        faults.late_first_token("api", delay_s=3600),
        faults.stall("api", after_tokens=1_000_000, for_s=3600, keep_alive_s=3600),
        faults.slow_drip("api", every_s=60, bytes_per_piece=2**20),
        faults.slow_drip("api", every_s=0.001),
        faults.truncate("api", after_tokens=1_000_000, how="mid_event"),
        faults.truncate("api", how="false_stop"),
        faults.flaky("api", status=599, retry_after_s=86400),
        faults.flaky("api", status=400, retry_after_s=0),
        faults.slow_error("api", delay_s=3600, status=400),
        faults.stall("api", match=faults.match(path="*", method="*", model="q*", header="x-a: *", streaming=True)),
        faults.stall("api", match=faults.match(header=" x-a :", streaming=False)),
    ],
    ids=lambda fault: f"{fault} {dict(fault.strength)}",
)
def test_the_agent_takes_the_bounds_of_options(fault):
    runtime = Scripted()

    primitive(fault).inject(runtime, "api")

    ((_, kind, about),) = runtime.started
    agent_faults.parse({"kind": kind, **about})


# The ability


class Agents(AgentAbility):
    """An agent in memory. `answer` is its next answer, None without an agent."""

    def __init__(self, answer=None):
        self.asked, self.answer = [], answer

    def _ask_agent(self, service, asked):
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def told(kind="stall", state="active", **more):
    about = {"id": "f1", "kind": kind, "state": state, "ended_by": None, "lease_s": 30, "left_s": 20.0, "counters": {}}
    return {**about, **more}


def listing(*told_faults):
    return {"ok": {"at_unix_s": 1.0, "faults": list(told_faults)}}


def test_a_fault_is_started_with_its_lease_seed_and_options():
    agents = Agents({"ok": told(id="f7")})

    started = agents.wire_start("model-1", "stall", lease_s=30, seed=7, share=0.5, match={"path": "/v1/*"})

    fault = {"kind": "stall", "lease_s": 30, "seed": 7, "share": 0.5, "match": {"path": "/v1/*"}}
    assert (started, agents.asked) == ("f7", [{"do": "start", "fault": fault}])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "model-1 has no fault agent in its way: call wire_arm"),
        ({"error": "share must be at most 1"}, "the fault agent of model-1 refused `start`: share must be at most 1"),
        ({}, "refused `start`: got {}"),
        (NotReady("no answer"), "no answer"),
    ],
)
def test_a_fault_that_the_agent_did_not_start_is_an_error(answer, message):
    with pytest.raises(NotReady, match=message):
        Agents(answer).wire_start("model-1", "stall", lease_s=30, seed=7)


def test_the_list_has_starts_by_our_clock():
    report = Agents(listing(told(counters={"met": 3}), told("reset", "ended"))).wire_faults("model-1")

    assert report.in_force("stall").started_unix_s == pytest.approx(report.at_unix_s - 10)
    assert report.in_force("stall").counters == {"met": 3.0}
    assert report.in_force("reset") is None


def test_no_agent_lists_nothing_and_a_silent_one_is_unknown():
    assert Agents(None).wire_faults("model-1").faults == ()
    assert Agents(NotReady("no answer")).wire_faults("model-1") is None
    assert Agents({"error": "busy"}).wire_faults("model-1") is None


def test_the_undo_ends_its_own_kind_and_leaves_others_alone():
    agents = Agents(listing(told(), told("reset", id="f2"), told(state="ended", id="f3")))

    agents.undo_wire(Undo(op="wire_end", service="model-1", args={"kind": "stall"}))

    assert agents.asked == [{"do": "list"}, {"do": "end", "id": "f1"}]


def test_the_undo_is_content_without_an_agent():
    agents = Agents(None)

    agents.undo_wire(Undo(op="wire_end", service="model-1", args={"kind": "stall"}))

    assert agents.asked == [{"do": "list"}]


def test_an_undo_that_the_agent_does_not_answer_has_failed():
    with pytest.raises(HealFailed, match="cannot end stall on model-1: no answer; run `llmchaos heal`"):
        Agents(NotReady("no answer")).undo_wire(Undo(op="wire_end", service="model-1", args={"kind": "stall"}))


@pytest.mark.parametrize("args", [{}, {"kind": None}, {"kinds": "stall"}])
def test_an_undo_that_names_no_kind_is_not_taken_for_done(args):
    with pytest.raises(HealFailed, match=r"wire_end model-1 must name a kind of fault, got .*revert it by hand"):
        Agents(listing()).undo_wire(Undo(op="wire_end", service="model-1", args=args))


def test_a_runtime_without_agents_has_no_such_undo():
    class Armed(Agents):
        agent_abilities = frozenset({"proxy"})

    assert (Agents().agent_abilities, Agents().agent_undo_ops) == (frozenset(), {})
    assert list(Armed().agent_undo_ops) == ["wire_end"]


def test_a_match_prints_as_its_conditions():
    assert str(Match(conditions=(("path", "/v1/*"), ("streaming", False)))) == "path=/v1/*, streaming=False"


# Reads of metrics

HEADERS = {"autoscaler": "user-agent: lab_autoscaler*", "judge": "user-agent: Prometheus/*"}


@pytest.mark.parametrize("make", [faults.scrape_gap, faults.stale_metrics])
class TestScrapes:
    @pytest.mark.parametrize(("of", "target"), [("autoscaler", "prometheus"), ("judge", "pushgateway")])
    def test_each_reader_has_a_target_and_requests_of_its_own(self, make, of, target):
        runtime, fault = Scripted(), make(of=of)
        fault.primitive.inject(runtime, "x")

        assert (fault.target, fault.primitive.blinds_judge) == (target, of == "judge")
        assert make("model-1", of=of).target == "model-1"
        ((_, kind, about),) = runtime.started
        assert (kind, about["match"]["header"], about["share"]) == (fault.primitive.agent_kind, HEADERS[of], 1.0)
        agent_faults.parse({"kind": kind, **about})

    def test_its_strength_names_the_reader_and_the_share(self, make):
        fault = make(of="judge", share=0.5, match=faults.match(method="GET", path="/metrics"))

        assert fault.strength == {"of": "judge", "share": 0.5}
        assert fault.primitive.match == {"method": "GET", "path": "/metrics"}

    @pytest.mark.parametrize("of", ["remediator", None, 5])
    def test_another_reader_is_refused(self, make, of):
        with pytest.raises(BadScenario, match=r"\(of=\.\.\.\) must be"):
            make(of=of)


def test_a_stale_answer_needs_a_second_read():
    assert (
        faults.stale_metrics(of="judge").primitive.proof_within_s
        > faults.scrape_gap(of="judge").primitive.proof_within_s
    )
