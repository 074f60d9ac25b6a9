"""First task of a user's agent: which answers are refused, with which words."""

import json
from dataclasses import replace

import pytest
from support.api_server import Reply, api
from support.own_stack_keys import make_folder, subject_of

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.loadgen.first_task import require_agent

RUNNING = json.dumps({"id": "t", "status": "running"}).encode()


def answer(asked, sent, **changes):
    """An answer of a good agent, but for the step that is named."""
    step = asked.method
    if step == "POST" and asked.body in sent:
        step = "again"
    sent.append(asked.body)
    if step == "GET":
        step = "unknown" if "unknown" in asked.path else "GET"
    status = {"POST": 202, "again": 200, "GET": 200, "unknown": 404, "DELETE": 202}[step]
    return changes.get(step) or Reply(RUNNING, status, kind="application/json")


def check(tmp_path, **changes):
    """Check an agent. Returns the requests that it got."""
    subject = replace(subject_of(make_folder(tmp_path), agent="agent:8200"), startup_s=0.0)
    sent = []
    with api(lambda asked: answer(asked, sent, **changes)) as (url, asked):
        require_agent(url, subject.agents, subject, lambda _: None)
    return asked


def test_a_good_agent_gets_a_task_without_steps(tmp_path):
    asked = check(tmp_path)

    assert [one.method for one in asked] == ["POST", "POST", "GET", "GET", "DELETE"]
    assert asked[0].body == asked[1].body
    sent = json.loads(asked[0].body)
    assert sent["input"] == "plan:"
    assert [one.path for one in asked[2:]] == [
        f"/tasks/{sent['id']}?wait_s=0",
        f"/tasks/{sent['id']}-unknown?wait_s=0",
        f"/tasks/{sent['id']}",
    ]


WRONG = [
    ({"POST": Reply(b"no", 404)}, r"POST /tasks got 404, 'no', expected 200 or 201 or 202: the contract is in docs"),
    ({"again": Reply(RUNNING, 202)}, r"POST /tasks got 202, .* expected 200: the contract is in docs"),
    ({"GET": Reply(b"<html>", 200)}, r"GET /tasks/\S+\?wait_s=0 got 200, '<html>', expected 200 with a status"),
    ({"GET": Reply(b'{"status": "done"}', 200)}, "expected 200 with a status of running, completed, failed, cancelled"),
    (
        {"GET": Reply(b'{"status": "running", "tokens": "12"}', 200)},
        r"expected 200 with a status of running, .* and whole numbers as counts \(Expected `int \| null`, got `str` - at `\$.tokens`\)",
    ),
    ({"GET": Reply(b'{"status": "running", "steps": 1' + b"0" * 400 + b"}", 200)}, r"counts \(.* at `\$.steps`\)"),
    ({"GET": Reply(b'{"status": "running", "error": ' + b"[" * 100_000, 200)}, r"whole numbers as counts \(.*error"),
    ({"unknown": Reply(RUNNING, 200)}, r"GET /tasks/\S+-unknown\?wait_s=0 got 200, .* expected 404"),
    ({"DELETE": Reply(b"", 405)}, r"DELETE /tasks/\S+ got 405, '', expected 200 or 202 or 204"),
    (
        {"POST": Reply(b"", 503)},
        r"POST /tasks got no answer within 0 s \(it answered 503\): check the port in llmchaos_agent",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_an_agent_with_another_contract_is_refused(tmp_path, changes, message):
    with pytest.raises(NotReady, match=f"the first task of agent failed: {message}|{message}"):
        check(tmp_path, **changes)


def test_an_agent_may_report_counts_or_none(tmp_path):
    states = (
        b'{"status": "completed", "steps": null, "tokens": null, "model_calls": 3, "tool_calls": 0, "error": null, "x": []}',
        b'{"status": "failed", "error": "half a \\ud83d pair"}',
    )
    for state in states:
        check(tmp_path, GET=Reply(state, 200))


def test_answers_to_a_post_need_no_state(tmp_path):
    """A load polls the task if such an answer lacks its state."""
    check(tmp_path, POST=Reply(b"", 202), again=Reply(b'{"id": 1}', 200))


def test_an_agent_that_does_not_listen_is_refused(tmp_path):
    subject = replace(subject_of(make_folder(tmp_path), agent="agent"), startup_s=0.0)
    with api(lambda asked: answer(asked, [])) as (url, _):
        pass

    with pytest.raises(
        NotReady, match=r"POST /tasks got no answer within 0 s \(.*\): check the port in llmchaos_agent"
    ):
        require_agent(url, subject.agents, subject, lambda _: None)
