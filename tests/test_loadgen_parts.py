"""Parts of the load generator: its plan, its verdicts on answers, its counts."""

import json
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.load_server import event, tokens_of

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.evidence import samples_file
from pytest_llmchaos.loadgen import classify, task_client
from pytest_llmchaos.loadgen.driver import Driver
from pytest_llmchaos.loadgen.load_plan import HEADERS_VARIABLE, LoadPlan, header_variable, load
from pytest_llmchaos.loadgen.metrics import DURATION_BUCKETS_S, REPLICAS_MAX, TTFT_BUCKETS_S, Counts
from pytest_llmchaos.loadgen.process import LoadProcess
from pytest_llmchaos.loadgen.recorder import Lateness, Lines, Recorder
from pytest_llmchaos.loadgen.status import status_of
from pytest_llmchaos.loads.agent_tasks import AgentTasks
from pytest_llmchaos.loads.arrivals import Arrival, Impatience
from pytest_llmchaos.model import Sample
from pytest_llmchaos.subject.headers import Header
from pytest_llmchaos.subject.requests import Requests


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"url": "127.0.0.1:8000"}, "url must look like http://127.0.0.1:8000, got '127.0.0.1:8000'"),
        ({"push_url": "ftp://x"}, "push_url must look like"),
        ({"ready_path": "/readyz HTTP"}, "ready_path must begin with / and be one word, got '/readyz HTTP'"),
        ({"arrivals": ()}, "arrivals must not be empty"),
        ({"arrivals": (Arrival(1, "a", 1), Arrival(0, "b", 1))}, "arrivals must be in order of due_s"),
        ({"check": "sim-v2"}, "check must be None or \"sim-v1\", got 'sim-v2'"),
        ({"first_token": "text"}, 'first_token must be "any" or "content", got \'text\''),
        ({"timeout_s": 0}, "timeout_s must be above 0, got 0"),
        ({"idle_timeout_s": 0}, "idle_timeout_s must be above 0, got 0"),
        ({"drain_s": -1}, "drain_s must be at least 0, got -1"),
        ({"processes": 0}, "processes must be at least 1, got 0"),
        ({"max_inflight": 0}, "max_inflight must be at least 1, got 0"),
        (
            {"requests": Requests(dialect="tgi"), "stream": False},
            "the dialect tgi has streams alone, got stream=False and check=None",
        ),
        ({"requests": Requests(dialect="ollama"), "check": "sim-v1"}, "got stream=True and check='sim-v1'"),
    ],
)
def test_a_wrong_plan_is_refused_with_its_value(wrong, message):
    with pytest.raises(BadScenario) as refused:
        LoadPlan(**{"url": "http://127.0.0.1:1", "model": "m", "arrivals": (Arrival(0, "a", 1),), **wrong})
    assert message in str(refused.value)


def test_a_plan_crosses_to_the_other_process_unchanged(tmp_path, monkeypatch):
    headers = (Header("Authorization", "Bearer $LLM_KEY"), Header("Host", "llm.localhost"))
    whole = LoadPlan(
        url="http://127.0.0.1:1",
        model="m",
        arrivals=(Arrival(0.25, 'a "ü"\n', 3),),
        requests=Requests(dialect="ollama", path="/x?y=1", headers=headers, tls="system", template=tmp_path / "t.json"),
        idle_timeout_s=2.5,
        impatience=Impatience(after_s=1, until="first_token", ratio=0.5),
        tasks=AgentTasks(tools=("find_order", "mail"), task_s=9, reads=("find_order",)),
    )
    whole.write(tmp_path, 123)
    for name, value in header_variable(headers).items():
        monkeypatch.setenv(name, value)

    assert load(tmp_path) == (whole, 123)


def test_no_file_of_a_plan_has_the_value_of_a_header(tmp_path):
    headers = (Header("X-Team", "literal-value"), Header("Authorization", "Bearer $LLM_KEY"))
    LoadPlan(
        url="http://127.0.0.1:1", model="m", arrivals=(Arrival(0, "a", 1),), requests=Requests(headers=headers)
    ).write(tmp_path)

    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "X-Team" in written
    assert "literal-value" not in written
    assert "LLM_KEY" not in written


def test_a_plan_whose_headers_are_missing_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv(HEADERS_VARIABLE, raising=False)
    plan = LoadPlan(
        url="http://127.0.0.1:1",
        model="m",
        arrivals=(Arrival(0, "a", 1),),
        requests=Requests(headers=(Header("X-Team", "a"),)),
    )
    plan.write(tmp_path)

    with pytest.raises(NotReady, match=r"plan\.json names the header X-Team: set LLMCHAOS_LOAD_HEADERS to a JSON list"):
        load(tmp_path)


def test_the_simulated_engine_s_tokens_are_known_in_advance():
    assert classify.expected_of("sim-v1", "hi", 2, "m") == ("".join(tokens_of("hi", 2)), "m")
    assert classify.expected_of("sim-v1", "grüß", 1, "m") == (tokens_of("grüß", 1)[0], "m")
    assert classify.expected_of(None, "hi", 2, "m") is None


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}', "ok"),
        (b'{"choices":[{"message":{"content":null},"finish_reason":"stop"}]}', "ok"),
        (b'{"choices":[{"message":{"content":"a"},"finish_reason":null}]}', "truncated"),
        (b'{"error":{"message":"no"}}', "inband_error"),
        (b'{"choices":[]}', "corrupted"),
        (b"[]", "corrupted"),
        (b'{"choices":[{"message":{"content":[{"type":"text"}]},"finish_reason":"stop"}]}', "corrupted"),
        (
            b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"completion_tokens":1e999}}',
            "corrupted",
        ),
        (b"[" * 100_000, "corrupted"),
        (b"<html>", "corrupted"),
        (b"", "corrupted"),
    ],
)
def test_a_whole_answer_is_judged_like_a_stream(body, outcome):
    assert classify.of_whole(body).outcome == outcome


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (event({"content": "a"}, "stop") + b"data: [DONE]", "ok"),
        (event({"content": "a"}, "stop") + b"data: [DONE]\n\n", "ok"),
        (event({"content": "a"}, "stop") + b'data: {"choices":[],"usage":{}}\n\ndata: [DONE]\n\n', "ok"),
        (event({"content": "data: [DONE]"}), "truncated"),
        (event({"content": "a"}, "stop") + b"event: error\ndata: {}\n\ndata: [DONE]\n\n", "inband_error"),
        (event({"content": "a"}, "stop") + b"event: error\ndata: overloaded\n\ndata: [DONE]\n\n", "inband_error"),
        (b'data: {"choices":[1]}\n\ndata: [DONE]\n\n', "corrupted"),
        (b"data: 7\n\ndata: [DONE]\n\n", "corrupted"),
        (b'data: {"a":1},{"b":2}\n\ndata: [DONE]\n\n', "corrupted"),
        (event({"content": {"a": 1}}, "stop") + b"data: [DONE]\n\n", "corrupted"),
        (event({"content": 5}, "stop") + b"data: [DONE]\n\n", "corrupted"),
        (event({"content": "a"}, "stop") + b"data: " + b"[" * 100_000 + b"\n\ndata: [DONE]\n\n", "corrupted"),
        (event({"content": "a"}) + b'data: {"choi', "truncated"),
        (b"", "truncated"),
    ],
    ids=[
        "no newline after the end",
        "whole",
        "usage after the finish",
        "an end inside a token",
        "error event",
        "error event in plain words",
        "no choice",
        "no event",
        "two objects in one event",
        "content that is no text",
        "content that is a number",
        "nested too deep",
        "cut off in an event",
        "empty",
    ],
)
def test_a_stream_is_complete_only_with_a_finish_and_an_end_and_no_error(body, outcome):
    assert classify.of_stream(body).outcome == outcome


def test_a_status_comes_after_the_samples_that_it_counts(tmp_path):
    recorder = Recorder(tmp_path / "samples", tmp_path / "status")
    recorder.add(Sample(0.1, 0.1, 0.2, 0.3, 0.0, 1, "ok", "", "r"))

    recorder.status({"done": 1})

    assert [sample.request_id for sample in samples_file.read(tmp_path / "samples")] == ["r"]
    recorder.close()


def test_what_a_full_disk_did_not_take_is_written_once_there_is_room(tmp_path):
    recorder = Recorder(tmp_path / "samples", tmp_path / "status")
    taken = []
    rooms = [10, 0]  # then for all

    class Full:
        def close(self):
            pass

        def write(self, data):
            room = rooms.pop(0) if rooms else len(data)
            if not room:
                raise OSError(28, "No space left on device")
            taken.append(bytes(data[:room]))
            return room

    recorder._samples._file.close()
    recorder._samples._file = Full()
    recorder.add(Sample(0.1, 0.1, 0.2, 0.3, 0.0, 1, "ok", "", "first"))
    with pytest.raises(OSError, match="No space"):
        recorder.flush()
    recorder.add(Sample(0.2, 0.2, 0.3, 0.4, 0.0, 1, "ok", "", "second"))
    recorder.close()

    (tmp_path / "written").write_bytes(samples_file.HEADER.encode() + b"\n" + b"".join(taken))
    assert [sample.request_id for sample in samples_file.read(tmp_path / "written")] == ["first", "second"]


def test_lines_that_a_full_disk_did_not_take_are_written_at_the_end(tmp_path):
    written = []
    for path in (tmp_path / "lines", Path("/dev/full")):
        lines = Lines(path)
        lines._rest = b"kept\n"
        lines.close()
        written.append(lines._file.closed)

    assert written == [True, True]
    assert (tmp_path / "lines").read_bytes() == b"kept\n"


def test_a_request_that_is_due_and_has_not_left_is_not_settled(tmp_path):
    plan = LoadPlan(url="http://127.0.0.1:1", model="m", arrivals=(Arrival(1.0, "a", 1), Arrival(2.0, "b", 1)))
    driver = Driver(plan, list(enumerate(plan.arrivals)), tmp_path, lambda *_: None)
    driver._client.t0_s = time.monotonic() - 5

    late = driver._status()
    driver._sent = 2
    ended = driver._status()
    driver._recorder.close()

    assert (late["settled_s"], late["begun_s"]) == (1.0, 1.0)
    assert ended["settled_s"] == ended["at_s"] >= 5


def test_a_status_names_the_open_requests_that_are_older_than_their_limits(tmp_path):
    arrivals = tuple(Arrival(due_s, "a", 1) for due_s in (1.0, 2.9, 3.1))
    plan = LoadPlan(url="http://127.0.0.1:1", model="m", arrivals=arrivals, good_ttft_s=2.0)
    driver = Driver(plan, list(enumerate(arrivals)), tmp_path, lambda *_: None)
    driver._client.t0_s = time.monotonic() - 5
    driver._inflight = {index: (arrival, None) for index, arrival in enumerate(arrivals)}

    told = driver._status()
    driver._recorder.close()

    assert told["overdue"] == {driver._client.request_id(0): 1.0, driver._client.request_id(1): 2.9}


# Answers to the POSTs of a task, of which the last one repeats.
# True if the agent may have the task.
REFUSALS = (
    ([("complete", 400)], False),
    ([("complete", 503)], False),
    ([("refused", 0)], False),
    ([("timeout", 0)], True),
    ([("timeout", 0), ("complete", 503), ("complete", 400)], True),
    ([("cut", 200), ("complete", 409)], True),
    ([("complete", 500), ("complete", 400)], True),
    ([("complete", 504)], True),
)


@pytest.mark.parametrize(
    ("answer", "is_confirmed"),
    [
        (("complete", 202), True),
        (("complete", 404), True),
        (("complete", 409), True),
        (("complete", 405), False),
        (("refused", 0), False),
        (("timeout", 0), False),
    ],
)
def test_refused_tasks_that_the_agent_may_have_taken_are_cancelled_at_the_end(
    tmp_path, monkeypatch, answer, is_confirmed
):
    """A paused agent takes a task later than its caller waits."""
    posts, deleted = Counter(), []

    def exchange(task, method, *_):
        place = int(task.name.rpartition("-")[2])
        if method == "DELETE":
            deleted.append(place)
        given = REFUSALS[place][0]
        ended, status = answer if method == "DELETE" else given[min(posts[place], len(given) - 1)]
        posts[place] += method == "POST"
        about = {"end_s": time.monotonic(), "body": b"", "retry_after": b"", "was_sent": ended != "refused"}
        return SimpleNamespace(ended=ended, status=status, **about)

    monkeypatch.setattr(task_client, "RETRY_S", 0.001)
    tasks = AgentTasks(tools=("work",), task_s=0.02)
    arrival = Arrival(0.0, "plan: work 1", 16)
    plan = LoadPlan(url="http://127.0.0.1:1", model="m", arrivals=(arrival,), tasks=tasks)
    client = task_client.TaskClient(plan, tasks, tmp_path / "tasks.jsonl")
    client._exchange = exchange
    for place in range(len(REFUSALS)):
        client.t0_s = time.monotonic()
        client.call(place, arrival)
    client.close()

    may_run = [place for place, (_, is_left) in enumerate(REFUSALS) if is_left]
    assert (deleted, client.uncancelled) == (may_run, 0 if is_confirmed else len(may_run))


def test_a_task_that_never_left_runs_nowhere(tmp_path, monkeypatch):
    """An agent that is down has no task."""
    monkeypatch.setattr(task_client, "RETRY_S", 0.001)
    tasks = AgentTasks(tools=("work",), task_s=0.02)
    arrival = Arrival(0.0, "plan: work 1", 16)
    plan = LoadPlan(url="http://127.0.0.1:1", model="m", arrivals=(arrival,), tasks=tasks)
    client = task_client.TaskClient(plan, tasks, tmp_path / "tasks.jsonl")
    client.t0_s = time.monotonic()
    sample, _ = client.call(0, arrival)
    client.close()

    assert (sample.outcome, client.uncancelled) == ("refused", 0)


def test_tasks_that_run_for_sure_are_cancelled_before_those_that_may(tmp_path, monkeypatch):
    monkeypatch.setattr(task_client, "RETRY_S", 0.001)
    monkeypatch.setattr(task_client, "MOST_LEAVING", 1)
    deleted = []

    def exchange(task, method, *_):
        if method == "DELETE":
            deleted.append(task.name[-1])
        status = 404 if method == "DELETE" else 202 if method == "GET" or task.name.endswith("1") else 500
        return SimpleNamespace(
            ended="complete", status=status, end_s=time.monotonic(), body=b"", retry_after=b"", was_sent=True
        )

    tasks = AgentTasks(tools=("work",), task_s=0.02)
    arrival = Arrival(0.0, "plan: work 1", 16)
    plan = LoadPlan(url="http://127.0.0.1:1", model="m", arrivals=(arrival,), tasks=tasks)
    client = task_client.TaskClient(plan, tasks, tmp_path / "tasks.jsonl")
    client._exchange = exchange
    for place in (0, 1):
        client.t0_s = time.monotonic()
        client.call(place, arrival)
    client.close()

    assert deleted == ["1", "0"]


def test_the_overdue_requests_of_all_workers_are_in_one_status():
    line = {"outcomes": {}, "lateness_p99_s": 0.0, "cpu": 0.0, "at_s": 5.0, "begun_s": 5.0, "inflight": 1}
    counts = dict.fromkeys(("offered", "sent", "done", "shed", "reconnected", "push_failures"), 0)
    lines = [{**line, **counts, "overdue": {"a-1": 1.0}}, {**line, **counts, "overdue": {"b-2": 2.0}}]

    assert status_of(lines, 0.0).overdue == {"a-1": 1.0, "b-2": 2.0}


def test_lateness_is_the_99th_percentile_of_all_requests():
    lateness = Lateness()
    assert lateness.p99_s() == 0
    for _ in range(99):
        lateness.add(0.0011)
    lateness.add(0.04)

    assert lateness.p99_s() == pytest.approx(0.00125)
    for _ in range(5):
        lateness.add(3.0)
    assert lateness.p99_s() == 3.0


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, None),
        (204, None),
        (301, "http_3xx"),
        (307, "http_3xx"),
        (401, "http_4xx"),
        (429, "http_429"),
        (500, "http_5xx"),
        (599, "http_5xx"),
    ],
)
def test_a_status_names_the_outcome_and_a_redirect_is_one_of_its_own(status, outcome):
    assert classify.of_status(status) == outcome


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"120", 120),
        (b" 0 ", 0),
        (b"Thu, 01 Jan 1970 00:02:00 GMT", 20),
        (b"Thu, 01 Jan 1970 00:00:01 GMT", 0),
        (b"9" * 40, 366 * 86_400),
        (b"", None),
        (b"soon", None),
        (b"-5", None),
        (b"1.5", None),
        (b"\xb2", None),
    ],
)
def test_a_time_to_come_back_is_a_number_of_seconds_or_a_date(value, seconds):
    assert classify.retry_after_s(value, 100.0) == seconds


def test_clients_who_left_are_counted_with_those_that_slos_leave_out():
    counts = Counts(lambda: 0)
    for outcome in ("ok", "left", "left", "cancelled"):
        counts.count_end(outcome, 1.0, 1.0, is_good=outcome == "ok")
    families = {family.name: family for family in counts.collect()}
    seen = {sample.labels["outcome"]: sample.value for sample in families["llmchaos_client_requests"].samples}

    assert (seen["ok"], seen["cancelled"], sum(seen.values())) == (1, 3, 4)
    assert "left" not in seen


@pytest.mark.parametrize("load", ["", "001-1700000000.000"])
def test_every_series_names_its_load_if_it_has_a_name(load):
    samples = [sample for family in Counts(lambda: 0, load).collect() for sample in family.samples]

    assert {sample.labels.get("load", "") for sample in samples} == {load}
    assert {sample.name for sample in samples} == {
        sample.name for family in Counts(lambda: 0).collect() for sample in family.samples
    }


def test_clients_count_each_replica_that_answers_name():
    counts = Counts(lambda: 0)
    counts.count_end("ok", 0.2, 1.0, is_good=True, replica="model-1")
    counts.count_end("ok", 3.0, 4.0, is_good=False, replica="model-1")
    counts.count_end("cancelled", 9.0, 9.0, is_good=False, replica="model-1")
    counts.count_end("refused", 0.1, 0.1, is_good=False)
    seen = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in counts.collect()
        for sample in family.samples
        if "replica" in sample.labels
    }

    requests, ttft = "llmchaos_client_replica_requests_total", "llmchaos_client_replica_time_to_first_token_seconds"
    assert seen[requests, "model-1", "ok"] == 2
    assert seen[requests, "cancelled", "model-1"] == 1
    assert seen[requests, "model-1", "refused"] == 0
    assert seen[requests, "refused", "unknown"] == 1
    assert seen["llmchaos_client_replica_good_total", "model-1"] == 1
    assert seen[f"{ttft}_bucket", "0.25", "model-1"] == 1
    assert seen[f"{ttft}_bucket", "+Inf", "model-1"] == seen[f"{ttft}_count", "model-1"] == 2
    assert seen[f"{ttft}_bucket", "160.0", "unknown"] == 0
    assert seen[f"{ttft}_bucket", "+Inf", "unknown"] == 1


def test_a_service_cannot_make_series_without_bound():
    counts = Counts(lambda: 0)
    for number in range(100):
        counts.count_end("ok", 1.0, 1.0, is_good=True, replica=f"replica-{number}")
    good = next(one for one in counts.collect() if one.name == "llmchaos_client_replica_good")
    seen = {sample.labels["replica"]: sample.value for sample in good.samples}

    assert len(seen) == REPLICAS_MAX + 1
    assert seen["other"] == 100 - REPLICAS_MAX


def test_a_value_on_an_edge_is_inside_its_bucket():
    counts = Counts(lambda: 0)
    counts.count_end("ok", 2.0, 2.0, is_good=True)
    families = {family.name: family for family in counts.collect()}
    buckets = {
        sample.labels["le"]: sample.value
        for sample in families["llmchaos_client_time_to_first_token_seconds"].samples
        if sample.name.endswith("_bucket") and sample.labels["result"] == "ok"
    }

    assert (buckets["1.0"], buckets["2.0"], buckets["+Inf"]) == (0, 1, 1)
    assert list(TTFT_BUCKETS_S) == sorted(set(TTFT_BUCKETS_S))
    assert list(DURATION_BUCKETS_S) == sorted(set(DURATION_BUCKETS_S))


@pytest.mark.parametrize("look", ["recent", "ended"])
def test_requests_are_settled_once_their_samples_were_read_in_either_way(tmp_path, look):
    """A wait for a steady state reads ended ones alone."""
    process = LoadProcess(LoadPlan(url="http://127.0.0.1:1", model="m", arrivals=(Arrival(0, "a", 1),)), tmp_path)
    status = {"at_s": 30.0, "offered": 1, "sent": 1, "done": 1, "shed": 0, "reconnected": 0, "inflight": 0}
    more = {"settled_s": 29.0, "begun_s": 29.0, "overdue": {}, "outcomes": {}, "lateness_p99_s": 0, "push_failures": 0}
    (tmp_path / "status.jsonl").write_text(json.dumps({**status, **more, "cpu": 0}) + "\n")

    assert process.status().settled_s == 0
    getattr(process, look)(0)
    assert process.status().settled_s == 29.0
