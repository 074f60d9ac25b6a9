"""Faults on the wire that a load can never meet."""

import json
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.own_stack_keys import make_folder, subject_of
from support.stream_shapes import END, STOP, A, said

from fault_agent.faults import StreamFault, parse
from fault_agent.messages import AnswerHead
from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.loads.arrivals import Arrival
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.session.campaign import Campaign
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.unmet import require_met
from pytest_llmchaos.subject.headers import Header
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.subject.requests import Requests

LAB = lab_subject("sim")
ARRIVALS = tuple(Arrival(due_s, "hi", 8 + due_s % 9) for due_s in range(60))  # one a second, of 8 to 16 tokens


def check(fault, subject=LAB, arrivals=ARRIVALS):
    require_met(subject, "scenario 's'", fault.plan(random.Random(1), subject.may_hit), arrivals)


def refused(fault, message, subject=LAB, arrivals=ARRIVALS):
    with pytest.raises(BadScenario, match=message):
        check(fault, subject, arrivals)


# Tokens


OF_STREAMS = {
    "truncate": lambda **about: faults.truncate("model-1", **about),
    "truncate, mid event": lambda **about: faults.truncate("model-1", how="mid_event", **about),
    "truncate, false stop": lambda **about: faults.truncate("model-1", how="false_stop", **about),
    "inband_error": lambda **about: faults.inband_error("model-1", **about),
    "malformed": lambda **about: faults.malformed("model-1", **about),
    "duplicate": lambda **about: faults.duplicate("model-1", **about),
    "reorder": lambda **about: faults.reorder("model-1", **about),
    "stall": lambda **about: faults.stall("model-1", **about),
}


@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize("name", OF_STREAMS)
def test_the_agent_hits_an_answer_of_the_least_tokens_and_none_of_one_less(name, after):
    primitive = OF_STREAMS[name](after_tokens=after).plan(random.Random(1), ("model-1",))[0].fault
    options = {key: value for key, value in primitive.options if key != "share"}
    fault = parse({"kind": primitive.agent_kind, "lease_s": 60, **options}).fault
    assert isinstance(fault, StreamFault)

    def hits(tokens):
        found = []
        head = AnswerHead(status=200, headers=(("content-type", "text/event-stream"),), request=None)
        editor = fault.editor(head, lambda: found.append(1))
        editor.feed(b"".join([said({"role": "assistant", "content": ""}), *[A] * tokens, STOP, END]))
        editor.end()
        return len(found)

    least = primitive.least_tokens
    assert hits(least) == 1
    assert not least or hits(least - 1) == 0


def test_a_fault_after_more_tokens_than_the_longest_answer_has_is_refused():
    check(faults.stall("model-1", after_tokens=16))
    check(faults.reorder("api", after_tokens=14))
    check(faults.late_first_token("model-1", delay_s=1))

    refused(
        faults.stall("model-1", after_tokens=17),
        r"^scenario 's': stall model-1 with after_tokens=17 needs an answer of at least 17 tokens, and the load's longest has "
        r"max_tokens=16: raise max_tokens of the load, or lower after_tokens$",
    )
    refused(faults.reorder("api", after_tokens=15), r"reorder api .* at least 17 tokens")
    refused(faults.truncate("model-*", after_tokens=16, how="false_stop"), r"at least 17 tokens")
    refused(
        faults.together(faults.kill("api"), faults.stall("model-2", after_tokens=99)), "stall model-2 with after_to"
    )


def test_a_load_without_a_request_in_this_plan_has_no_longest_answer():
    check(faults.stall("model-1", after_tokens=99), arrivals=())


def test_the_answers_of_a_flood_count_too():
    flood = faults.overload("api", max_tokens=64)

    check(faults.together(flood, faults.stall("model-1", after_tokens=64)))
    refused(faults.together(flood, faults.stall("model-1", after_tokens=65)), "max_tokens=64")


@pytest.mark.parametrize(
    "template",
    [{"max_tokens": None}, {"n": 2}, {"echo": True}, {"max_completion_tokens": None, "max_tokens": None}],
    ids=json.dumps,
)
def test_answers_whose_length_a_template_leaves_open_are_not_judged(tmp_path, template):
    (tmp_path / "body.json").write_text(json.dumps(template))

    check(faults.stall("web", after_tokens=999), subject_of(make_folder(tmp_path), request="body.json"))


@pytest.mark.parametrize("dialect", ["chat", "completions", "ollama", "ollama-generate", "tgi"])
def test_every_dialect_limits_answers(tmp_path, dialect):
    (tmp_path / "body.json").write_text(json.dumps({"max_tokens": 5, "seed": 7}))
    subject = subject_of(make_folder(tmp_path), dialect=dialect, request="body.json")

    refused(faults.stall("web", after_tokens=17), "max_tokens=16", subject)
    refused(faults.stall("web", after_tokens=17), "max_tokens=16", replace(subject, requests=Requests(dialect=dialect)))


def test_a_template_may_name_the_limit_otherwise(tmp_path):
    (tmp_path / "body.json").write_text(json.dumps({"max_completion_tokens": 5}))
    subject = subject_of(make_folder(tmp_path), request="body.json")

    refused(faults.stall("web", after_tokens=17), "max_tokens=16", subject)


def test_only_what_is_certain_is_refused(tmp_path):
    own = subject_of(make_folder(tmp_path))
    long = faults.stall(["web", "worker"], after_tokens=99)
    other = faults.flaky("worker", match=faults.match(path="/v1/embeddings"))

    refused(faults.stall("web", after_tokens=99), "stall web", own)
    refused(long, "stall web", own)
    check(faults.stall("worker", after_tokens=99), own)  # its answers are to other services
    check(other, own)
    check(long, replace(own, attach=True))  # others use the stack
    check(faults.stall("prometheus", after_tokens=99))
    check(faults.kill("api"))


# Conditions


@pytest.mark.parametrize(
    ("condition", "sent"),
    [
        ({"path": "/v1/completions"}, r"path=/v1/completions .*to api have path=/v1/chat/completions: change"),
        ({"streaming": False}, r"streaming=False .* are streams"),
        ({"model": "gpt-*"}, r"model=gpt-\* .* have model=smollm2:135m"),
        ({"header": "x-tenant: a*"}, r"header=x-tenant: a\* .* have no header x-tenant"),
        ({"header": "Accept: text/plain"}, r"have another accept"),
        ({"path": "/v1/*", "method": "post", "streaming": False}, "are streams"),
    ],
    ids=str,
)
def test_a_condition_that_no_request_of_the_load_fulfils_is_refused(condition, sent):
    refused(faults.flaky("api", match=faults.match(**condition)), f"^scenario 's': flaky api hits only .*{sent}")


@pytest.mark.parametrize(
    "condition",
    [
        {"path": "/v1/chat/*"},
        {"path": "*", "streaming": True},
        {"model": "smollm2:*"},
        {"method": "*", "path": "/health"},
        {"method": "GET", "path": "/metrics"},
        {"header": "X-Request-Id: ab*"},
        {"header": "content-type: application/*"},
    ],
    ids=str,
)
def test_a_condition_that_a_request_may_fulfil_is_kept(condition):
    check(faults.flaky("api", match=faults.match(**condition)))


def test_conditions_are_judged_where_the_clients_own_requests_arrive():
    check(faults.flaky("model-1", match=faults.match(streaming=False)))  # such as probes of the remediator


def test_parts_of_a_request_that_only_the_environment_has_are_not_judged():
    requests = Requests(path="/$TENANT/chat?x=1", headers=(Header("x-tenant", "$TENANT"), Header("x-kind", "a")))
    subject = replace(LAB, requests=requests)

    check(faults.flaky("api", match=faults.match(path="/acme/chat", header="x-tenant: acme")), subject)
    check(faults.flaky("api", match=faults.match(header="x-kind: a")), subject)
    refused(faults.flaky("api", match=faults.match(header="x-kind: b")), "have another x-kind: change", subject)
    query = replace(LAB, requests=Requests(path="/chat?key=$KEY"))
    refused(faults.flaky("api", match=faults.match(path="/chat?*")), "path=/chat: ", query)


def test_requests_without_a_model_match_none():
    refused(
        faults.flaky("api", match=faults.match(model="*")),
        "name no model",
        replace(LAB, requests=Requests(dialect="tgi", path="/generate_stream")),
    )


# Messages


def timed(at, **about):
    return faults.timed(faults.kill("model-1"), at=at, on="api", **about)


def test_a_message_that_cannot_come_in_time_is_refused():
    check(timed("after:chat#32.received"))
    check(timed("after:chat#60.answered", within_s=58))

    refused(
        timed("after:chat#33.received"),
        r"kill model-1 is to begin after:chat#33\.received within within_s=30, and api gets at most 32 requests of the load in "
        "that time: name an earlier request, or raise within_s or the load's rate$",
    )
    refused(timed("after:chat#60.answered", within_s=57), "at most 59 requests")


def test_a_message_of_another_path_is_refused():
    refused(timed("after:generate#1.received"), r"counts requests with path=\*/generate\*, .* have path=/v1/chat/comp")
    check(timed("after:request#1.received"))
    check(timed("after:completion#1.received"))  # /v1/chat/completions is one


def test_messages_of_other_services_and_in_a_flood_are_not_judged():
    check(faults.timed(faults.kill("model-1"), at="after:chat#999.received"))
    check(faults.together(timed("after:chat#999.received"), faults.overload("api")))
    refused(faults.timed(faults.kill("api"), at="after:chat#999.received"), "api gets at most 32")


# Plans


def planned(fault, load, *, light_load=None, capacity=math.inf):
    made = experiment(load=load, fault=fault, fault_s=5, light_load=light_load).kwargs["experiment"]
    return plan_trial(
        scenario="s",
        hypothesis="",
        experiment=made,
        fault=made.faults[0],
        repeat=0,
        seed=1,
        services=LAB.may_hit,
        capacity_tokens_per_s=capacity,
    )


def campaign(abilities):
    made = Campaign(SimpleNamespace(seed=1, subject=LAB), Progress)
    made._abilities = frozenset(abilities)
    return made


@pytest.mark.parametrize(
    ("load", "longest"),
    [
        (loads.open_loop(rate_rps=2, max_tokens=4), 4),
        (loads.poisson(rate_rps=2), 16),
        (loads.ramp(from_rps=1, to_rps=4, over_s=10, max_tokens=30), 30),
    ],
    ids=str,
)
def test_the_plan_is_checked_with_the_longest_answer_of_its_own_load(load, longest):
    campaign({"proxy"}).require_met(planned(faults.stall("model-1", after_tokens=longest), load))

    with pytest.raises(BadScenario, match=f"max_tokens={longest}: "):
        campaign({"proxy"}).require_met(planned(faults.stall("model-1", after_tokens=longest + 1), load))


def test_the_load_is_the_one_that_the_backend_gets():
    heavy, light = loads.open_loop(rate_rps=8, max_tokens=64), loads.open_loop(rate_rps=2, max_tokens=4)
    fault = faults.stall("model-1", after_tokens=40)

    campaign({"proxy"}).require_met(planned(fault, heavy, light_load=light))
    with pytest.raises(BadScenario, match="max_tokens=4: "):
        campaign({"proxy"}).require_met(planned(fault, heavy, light_load=light, capacity=45))


def test_headers_of_the_load_fulfil_a_condition():
    fault = faults.flaky("api", match=faults.match(header="x-priority: high"))

    campaign({"proxy"}).require_met(planned(fault, loads.open_loop(headers={"X-Priority": "high"})))
    with pytest.raises(BadScenario, match="have another x-priority"):
        campaign({"proxy"}).require_met(planned(fault, loads.open_loop(headers={"x-priority": "low"})))
    with pytest.raises(BadScenario, match="have no header x-priority"):
        campaign({"proxy"}).require_met(planned(fault, loads.open_loop()))


def test_a_trial_that_is_skipped_is_not_refused():
    campaign(set()).require_met(planned(faults.stall("model-1", after_tokens=99), loads.open_loop(rate_rps=2)))


def test_each_trial_is_checked_once(monkeypatch):
    plan, seen = planned(faults.stall("model-1"), loads.open_loop(rate_rps=2)), []
    monkeypatch.setattr("pytest_llmchaos.session.campaign.require_met", lambda *_: seen.append(1))
    made = campaign({"proxy"})

    for _ in range(3):
        made.require_met(plan)

    assert seen == [1]
