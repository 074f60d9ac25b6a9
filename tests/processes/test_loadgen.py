"""The load generator against a misbehaving server: outcomes and ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from support.load_server import Server
from support.waiting import until

from pytest_llmchaos.errors import LoadNotHeld, NotReady
from pytest_llmchaos.evidence import readiness_file, samples_file
from pytest_llmchaos.host.ports import http_url, loopback
from pytest_llmchaos.loadgen.load_plan import DIRECTORY_VARIABLE, LoadPlan
from pytest_llmchaos.loadgen.process import LOCUSTFILE, LoadProcess
from pytest_llmchaos.loadgen.tail import merge
from pytest_llmchaos.loads.arrivals import Arrival, Impatience
from pytest_llmchaos.model import OUTCOMES
from pytest_llmchaos.stats.windows import windows
from pytest_llmchaos.subject.headers import Header
from pytest_llmchaos.subject.requests import Requests

DEADLINE_S = 30
LEAD_S = 0.1  # LEAD_S in locustfile.py
BEHAVIOURS = {
    "ok": "ok",
    "crlf": "ok",
    "role": "ok",
    "gap": "ok",
    "split": "ok",
    "nodone": "truncated",
    "nofinish": "truncated",
    "cleanend": "truncated",
    "cut": "cut",
    "short": "truncated",
    "wrong": "corrupted",
    "double": "corrupted",
    "malformed": "corrupted",
    "garbage": "corrupted",
    "error": "inband_error",
    "s500": "http_5xx",
    "s503": "http_5xx",
    "s404": "http_4xx",
    "s307": "http_3xx",
    "s429": "http_429",
    "stall": "stalled",
    "trickle": "timeout",
    "silent": "timeout",
    "hang": "timeout",
    "reset": "refused",
}


def free_port():
    with socket.create_server(("", 0)) as probe:
        return probe.getsockname()[1]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def plan(server, prompts, *, every_s=0.02, **more):
    arrivals = tuple(Arrival(round(i * every_s, 6), prompt, 5) for i, prompt in enumerate(prompts))
    return LoadPlan(url=server.url, model="m", arrivals=arrivals, **{"check": "sim-v1", **more})


@pytest.fixture(scope="module")
def performed(tmp_path_factory):
    """One load with each kind of misbehaviour once, watched while it runs."""
    directory = tmp_path_factory.mktemp("load")
    with Server() as server:
        whole = plan(
            server,
            [f"{behaviour} {i}" for i, behaviour in enumerate(BEHAVIOURS)],
            timeout_s=2,
            stall_s=1,
            push_url=server.url,
            requests=Requests(headers=(Header("Authorization", "Bearer abc"),)),
            replica_header="X-Llmlab-Replica",
            drain_s=5,
        )
        with LoadProcess(whole, directory) as process:
            live, settled = [], []

            def look():
                seen = process.recent(0)
                live.append(process.status())
                settled.append((len(seen), live[-1].settled_s))

            while process.alive:
                look()
                time.sleep(0.05)
            summary = process.stop()
            look()
            yield {
                "process": process,
                "summary": summary,
                "live": live,
                "settled": settled,
                "server": server,
                "samples": list(samples_file.read(directory / "samples.jsonl")),
                "all": process.recent(0),
                "recent": process.recent(0.2),
            }


def by_prompt(performed):
    """The sample of each behaviour, by the prompt that the server received."""
    asked = {headers["x-request-id"]: body["messages"][0]["content"] for headers, body in performed["server"].seen}
    return {asked[s.request_id].split()[0]: s for s in performed["samples"]}


@pytest.mark.parametrize(("behaviour", "outcome"), BEHAVIOURS.items())
def test_every_way_to_misbehave_has_its_name(performed, behaviour, outcome):
    assert by_prompt(performed)[behaviour].outcome == outcome


def test_clients_keep_the_status_and_the_time_to_come_back(performed):
    seen = by_prompt(performed)

    assert {
        name: (seen[name].status, seen[name].retry_after_s) for name in ("ok", "s307", "s429", "s503", "reset")
    } == {
        "ok": (200, None),
        "s307": (307, None),
        "s429": (429, 2.0),
        "s503": (503, None),
        "reset": (0, None),
    }


def test_each_request_is_one_sample_and_leaves_on_its_second(performed):
    arrivals = performed["process"].plan.arrivals

    assert sorted(s.due_s for s in performed["samples"]) == [a.due_s for a in arrivals]
    assert all(s.sent_s >= s.due_s and s.end_s >= s.sent_s for s in performed["samples"])


def test_the_first_token_is_timed_when_it_comes_not_the_first_event(performed):
    process, seen = performed["process"], by_prompt(performed)

    for behaviour in ("ok", "role"):
        wrote_s = performed["server"].wrote_s[seen[behaviour].request_id] - process.t0_monotonic_s
        assert wrote_s <= seen[behaviour].first_s <= wrote_s + 0.5
    assert seen["role"].ttft_s >= 0.1
    assert seen["silent"].first_s is None


def test_a_keep_alive_comment_does_not_hide_a_gap(performed):
    assert by_prompt(performed)["gap"].max_gap_s >= 0.28


def test_tokens_are_counted_and_the_replica_is_named(performed):
    seen = by_prompt(performed)

    assert (seen["ok"].tokens, seen["role"].tokens, seen["split"].tokens, seen["cleanend"].tokens) == (5, 5, 5, 4)
    assert (seen["ok"].replica, seen["s500"].replica) == ("model-1", "")


def test_a_request_has_the_fields_of_its_plan(performed):
    headers, body = performed["server"].seen[0]

    assert body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "ok 0"}],
    }
    assert headers["authorization"] == "Bearer abc"


def test_a_request_ends_at_the_timeout_of_its_plan(performed):
    seen = by_prompt(performed)

    for behaviour in ("stall", "trickle", "silent", "hang"):
        assert 2 <= seen[behaviour].e2e_s < 3


def test_samples_come_while_the_load_runs_each_once(performed):
    assert 0 < performed["settled"][len(performed["settled"]) // 2][0] < len(performed["samples"])
    assert performed["all"] == performed["samples"]
    assert performed["recent"] == [s for s in performed["samples"] if s.due_s >= 0.2]


def test_the_status_counts_the_requests_so_far(performed):
    last, total = performed["live"][-1], len(BEHAVIOURS)
    waiting = [status for status in performed["live"] if status.inflight]

    assert (last.offered, last.sent, last.done, last.shed, last.inflight) == (total, total, total, 0, 0)
    assert sum(last.outcomes.values()) == total
    assert any(status.at_s - status.settled_s > 1 for status in waiting)


def test_what_is_settled_has_been_seen(performed):
    """No earlier sample may follow, because recovery is judged up to `settled_s`."""
    for seen, settled_s in performed["settled"]:
        assert all(s.due_s >= settled_s for s in performed["samples"][seen:])
    assert performed["settled"][-1][1] > performed["process"].plan.arrivals[-1].due_s


@pytest.mark.parametrize(("first", "has_begun"), [("stall", True), ("hang", False)])
def test_a_request_that_waits_has_begun_once_its_first_token_is_there(tmp_path, first, has_begun):
    with Server() as server:
        whole = plan(server, [f"{first} 0", *(f"ok {i}" for i in range(1, 400))], stall_s=60, timeout_s=60, drain_s=0.1)
        with LoadProcess(whole, tmp_path) as process:
            until(
                lambda: process.recent(0) and process.status().done > 20,
                "twenty answers to later requests",
                DEADLINE_S,
            )
            status = process.status()

    assert status.settled_s == 0.0
    assert (status.begun_s > 0.0) is has_begun


def test_the_summary_counts_all_requests(performed):
    summary, total = performed["summary"], len(BEHAVIOURS)

    assert (summary.offered, summary.sent, summary.done, summary.shed) == (total, total, total, 0)
    assert (summary.achieved_ratio, summary.ended, summary.push_failures) == (1.0, "schedule_end", 0)
    assert 0 < summary.lateness_p99_s < 1
    assert 0 < summary.generator_cpu < 1


def series(text, name):
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)
    }


def test_zeros_are_pushed_before_the_first_arrival(performed):
    at_s, path, text = performed["server"].pushed[0]

    assert path == "/metrics/job/load"
    assert at_s < performed["process"].t0_monotonic_s
    assert series(text, "llmchaos_client_offered_total") == {"llmchaos_client_offered_total": 0}
    assert set(series(text, "llmchaos_client_requests_total").values()) == {0}
    assert len(series(text, "llmchaos_client_requests_total")) == len(OUTCOMES) - 1  # `left` is counted as cancelled


def test_the_last_push_agrees_with_the_samples(performed):
    text = performed["server"].pushed[-1][2]
    (window,) = windows(performed["samples"], [("all", 0, 100)])
    ok = {
        kind: f'llmchaos_client_{kind}_seconds_count{{result="ok"}}'
        for kind in ("time_to_first_token", "request_duration")
    }
    counted = series(text, "llmchaos_client_")

    assert counted["llmchaos_client_offered_total"] == window.offered
    assert counted["llmchaos_client_good_total"] == window.good
    assert counted["llmchaos_client_inflight"] == 0
    for outcome in set(OUTCOMES) - {"left"}:
        assert counted[f'llmchaos_client_requests_total{{outcome="{outcome}"}}'] == window.outcomes.get(outcome, 0)
    assert [counted[name] for name in ok.values()] == [window.ok, window.ok]


LEAVERS = {
    "end": {"ok": "ok", "trickle": "left", "silent": "left", "stall": "stalled", "s500": "http_5xx"},
    "first_token": {"ok": "ok", "trickle": "timeout", "silent": "left", "stall": "stalled", "s500": "http_5xx"},
}


@pytest.mark.parametrize("patient_from", LEAVERS)
def test_an_impatient_client_closes_its_connection_and_its_outcome_is_left(tmp_path, patient_from):
    expected = LEAVERS[patient_from]
    with Server() as server:
        load = plan(
            server,
            list(expected),
            timeout_s=1.2,
            stall_s=0.3,
            impatience=Impatience(after_s=0.5, until=patient_from),
            drain_s=5,
        )
        with LoadProcess(load, tmp_path) as process:
            until(lambda: not process.alive, "the end of the load", DEADLINE_S)
            process.stop()
    samples = {s.due_s: s for s in samples_file.read(tmp_path / "samples.jsonl")}
    seen = {arrival.prompt: samples[arrival.due_s] for arrival in load.arrivals}

    assert {prompt: sample.outcome for prompt, sample in seen.items()} == expected
    assert all(0.45 <= s.e2e_s <= 0.9 for s in seen.values() if s.outcome == "left")
    silent = seen["silent"]
    assert silent.end_s <= server.gone_s[silent.request_id] - process.t0_monotonic_s <= silent.end_s + 0.2


SILENCES = {"ok": "ok", "gap": "ok", "trickle": "timeout", "silent": "timeout", "hang": "timeout", "stall": "stalled"}


def test_a_client_with_an_idle_timeout_gives_up_a_connection_without_bytes(tmp_path):
    """Comments are bytes: the stream `gap` has one every 0.1 s, for 0.3 s."""
    with Server() as server:
        seen, _, process = ended(server, list(SILENCES), tmp_path, timeout_s=1.2, stall_s=60, idle_timeout_s=0.25)

    assert {prompt: sample.outcome for prompt, sample in seen.items()} == SILENCES
    assert all(0.25 <= seen[prompt].e2e_s < 0.7 for prompt in ("silent", "hang", "stall"))
    assert seen["stall"].max_gap_s >= 0.25
    assert seen["trickle"].e2e_s >= 1.2
    silent = seen["silent"]
    assert silent.end_s <= server.gone_s[silent.request_id] - process.t0_monotonic_s <= silent.end_s + 0.2


def test_a_client_who_waited_for_longer_than_a_good_answer_takes_saw_a_failure(tmp_path):
    with Server() as server:
        load = plan(server, ["silent"], timeout_s=2, good_ttft_s=0.2, impatience=Impatience(after_s=0.4), drain_s=5)
        with LoadProcess(load, tmp_path) as process:
            until(lambda: not process.alive, "the end of the load", DEADLINE_S)
            process.stop()
    (sample,) = samples_file.read(tmp_path / "samples.jsonl")

    assert (sample.outcome, sample.e2e_s < 1) == ("timeout", True)


def ended(server, prompts, folder, **more):
    """The samples of one load by their prompts, its summary, and the process."""
    load = plan(server, prompts, **{"timeout_s": 4, "drain_s": 5, **more})
    with LoadProcess(load, folder) as process:
        until(lambda: not process.alive, "the end of the load", DEADLINE_S)
        summary = process.stop()
    prompt_at = {arrival.due_s: arrival.prompt for arrival in load.arrivals}
    return {prompt_at[s.due_s]: s for s in samples_file.read(folder / "samples.jsonl")}, summary, process


def test_a_server_that_pings_after_the_end_keeps_no_connection(tmp_path):
    with Server() as server:
        # The last request keeps the load alive until long after the first one's end.
        samples, _, process = ended(server, ["pings", *["ok"] * 4], tmp_path, every_s=0.9)
    pinged = samples["pings"]

    assert (pinged.outcome, pinged.e2e_s < 0.5) == ("ok", True)
    assert server.gone_s[pinged.request_id] - process.t0_monotonic_s <= pinged.end_s + 2


def test_a_body_without_end_is_not_read_on(tmp_path):
    with Server() as server:
        samples, _, process = ended(server, ["endless"], tmp_path)
    endless = samples["endless"]

    assert (endless.outcome, endless.status, endless.e2e_s < 3) == ("corrupted", 200, True)
    assert server.gone_s[endless.request_id] - process.t0_monotonic_s <= endless.end_s + 1


def test_a_request_that_met_a_closing_idle_connection_is_sent_again_once_and_counted(tmp_path):
    with Server() as server:
        samples, summary, _ = ended(server, ["ok", "stale"], tmp_path, every_s=0.3)

    assert {prompt: sample.outcome for prompt, sample in samples.items()} == {"ok": "ok", "stale": "ok"}
    assert (summary.reconnected, len(server.seen)) == (1, 3)
    assert (summary.offered, summary.sent, summary.done, summary.achieved_ratio) == (2, 2, 2, 1.0)


@pytest.mark.parametrize("prompts", [["ok", "late"], ["reset"]], ids=["late", "on a fresh connection"])
def test_a_request_that_was_lost_otherwise_is_not_sent_again(tmp_path, prompts):
    with Server() as server:
        samples, summary, _ = ended(server, prompts, tmp_path, every_s=0.3)

    assert samples[prompts[-1]].outcome == "refused"
    assert (summary.reconnected, len(server.seen)) == (0, len(prompts))


def test_what_the_readiness_path_answers_is_recorded_while_the_load_runs(tmp_path):
    with Server() as server:
        load = plan(
            server,
            ["ok"] * 4,
            every_s=0.9,
            ready_path="/readyz",
            requests=Requests(headers=(Header("Authorization", "Bearer abc"),)),
        )
        server.ready_status = 503
        with LoadProcess(load, tmp_path) as process:
            until(lambda: len(server.looked) >= 2, "two looks", DEADLINE_S)
            server.ready_status = 200
            until(lambda: not process.alive, "the end of the load", DEADLINE_S)
            process.stop()
    first, second = readiness_file.load(tmp_path)
    path, headers = server.looked[0]

    assert (path, headers["authorization"]) == ("/readyz", "Bearer abc")
    assert [(s.status, s.ready) for s in (first, second)] == [(503, False), (200, True)]
    assert (first.from_s, first.to_s) == (pytest.approx(0, abs=0.2), pytest.approx(2, abs=0.3))
    assert [asked["stream"] for _, asked in server.seen] == [True] * 4


def test_a_failed_request_is_observed_as_infinite(performed):
    text = performed["server"].pushed[-1][2]
    failed = series(text, "llmchaos_client_request_duration_seconds_bucket{")

    assert failed['llmchaos_client_request_duration_seconds_bucket{le="327.68",result="failed"}'] == 0
    assert failed['llmchaos_client_request_duration_seconds_bucket{le="+Inf",result="failed"}'] == 20


def test_stopping_gives_up_open_requests_and_records_them(tmp_path):
    with Server() as server:
        prompts = ["ok 1", "silent 2", "silent 3", *[f"ok {i}" for i in range(4, 2000)]]
        process = LoadProcess(plan(server, prompts, timeout_s=60, drain_s=0.2), tmp_path)
        process.start()
        until(lambda: process.status().done >= 10, "ten answers", DEADLINE_S)
        began_s = time.monotonic()
        summary = process.stop()

        assert time.monotonic() - began_s < 10
        assert process.stop() is summary
        assert not process.alive
    (window,) = windows(samples_file.read(tmp_path / "samples.jsonl"), [("all", 0, 100)])
    cancelled = [s for s in samples_file.read(tmp_path / "samples.jsonl") if s.outcome == "cancelled"]
    assert {0.02, 0.04} <= {s.due_s for s in cancelled}
    assert (window.offered, window.unknown) == (int(window.ok), len(cancelled))
    assert summary.ended == "stopped"
    assert summary.offered == summary.sent == summary.done == window.offered + len(cancelled)
    assert 10 <= summary.offered < 1000


def test_a_request_that_becomes_due_while_locust_stops_is_not_sent_late(tmp_path, monkeypatch):
    """Locust looks at its stack when it stops. Here that takes half a second."""
    (tmp_path / "sitecustomize.py").write_text(
        "import inspect, time\n"
        "sleep, stack = time.sleep, inspect.stack\n"
        "inspect.stack = lambda *given: (sleep(0.5), stack(*given))[1]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Server() as server:
        process = LoadProcess(plan(server, ["ok"] * 500), tmp_path / "load")
        process.start()
        until(lambda: process.status().done >= 10, "ten answers", DEADLINE_S)
        summary = process.stop()

    samples = samples_file.read(tmp_path / "load" / "samples.jsonl")
    assert summary.ended == "stopped"
    assert max(one.sent_s - one.due_s for one in samples) < 0.25
    assert summary.achieved_ratio > 0.9


def test_a_stop_interrupts_no_request(tmp_path):
    """As an exception it would hit the greenlet that runs, such as a client."""
    with Server() as server:
        for number in range(4):
            folder = tmp_path / str(number)
            folder.mkdir()
            busy = plan(server, [f"ok {i}" for i in range(5000)], every_s=0.002, timeout_s=60)
            process = LoadProcess(busy, folder)
            process.start()
            until(lambda process=process: process.status().done >= 50, "fifty answers", DEADLINE_S)
            process.stop()

            assert {s.outcome for s in samples_file.read(folder / "samples.jsonl")} <= {"ok", "cancelled"}
            assert "KeyboardInterrupt" not in (folder / "load.log").read_text()


def test_what_is_open_and_older_than_its_limits_at_the_end_is_bad_to_samples_and_counters_alike(tmp_path):
    """20 good answers and 80 hanging requests, without a wait for timeouts."""
    with Server() as server:
        prompts = [f"{'ok' if i % 5 == 0 else 'silent' if i % 5 < 4 else 'stall'} {i}" for i in range(100)]
        limits = {"good_ttft_s": 0.3, "good_e2e_s": 0.6}
        load = plan(server, prompts, every_s=0.005, timeout_s=60, stall_s=60, push_url=server.url, **limits)
        began_s = time.monotonic()
        with LoadProcess(load, tmp_path) as process:
            until(lambda: process.status().sent == 100, "all requests sent", DEADLINE_S)
        took_s = time.monotonic() - began_s
        text = server.pushed[-1][2]
    (window,) = windows(samples_file.read(tmp_path / "samples.jsonl"), [("all", 0, 100)])

    assert took_s < 30
    assert dict(window.outcomes) == {"ok": 20, "unfinished": 80}
    assert (window.offered, window.unknown, window.availability) == (100, 0, 0.2)
    assert window.e2e_s.p95 == float("inf")
    assert series(text, 'llmchaos_client_requests_total{outcome="unfinished"}').popitem()[1] == 80
    assert series(text, "llmchaos_client_good_total").popitem()[1] == window.good


def test_a_load_that_is_not_judged_ends_at_once(tmp_path):
    with Server() as server:
        process = LoadProcess(plan(server, ["silent"] * 5, timeout_s=60, good_ttft_s=50, good_e2e_s=50), tmp_path)
        process.start()
        until(lambda: process.status().sent == 5, "all requests sent", DEADLINE_S)
        began_s = time.monotonic()
        process.stop(drain=False)

    assert time.monotonic() - began_s < 10
    assert [one.outcome for one in samples_file.read(tmp_path / "samples.jsonl")] == ["cancelled"] * 5


@pytest.fixture
def in_the_background():
    """Ignore SIGINT, as a shell does for a command with `&`. Children inherit that."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_the_background")
def test_a_load_in_the_background_of_a_shell_ends_as_quickly_as_any_other(tmp_path):
    with Server() as server:
        process = LoadProcess(plan(server, [f"ok {i}" for i in range(2000)]), tmp_path)
        process.start()
        until(lambda: process.status().done >= 10, "ten answers", DEADLINE_S)
        began_s = time.monotonic()
        summary = process.stop()

    assert time.monotonic() - began_s < process.plan.drain_s + 2.0  # an ignored SIGINT would cost 5 s of waiting
    assert summary.ended == "stopped"


def test_two_workers_share_one_schedule_and_one_clock(tmp_path):
    with Server() as server:
        whole = plan(server, [f"ok {i}" for i in range(100)], stream=False, processes=2, push_url=server.url)
        with LoadProcess(whole, tmp_path) as process:
            until(lambda: not process.alive, "the end of the schedule", DEADLINE_S)
            summary = process.stop()
        groups = {path for _, path, _ in server.pushed}
    seen = list(samples_file.read(tmp_path / "samples.jsonl"))

    assert [len(list(samples_file.read(tmp_path / f"samples-{worker}.jsonl"))) for worker in range(2)] == [50, 50]
    assert sorted(s.due_s for s in seen) == [a.due_s for a in whole.arrivals]
    assert {s.outcome for s in seen} == {"ok"}
    assert (summary.offered, summary.done, summary.achieved_ratio, summary.ended) == (100, 100, 1.0, "schedule_end")
    assert groups == {"/metrics/job/load/worker/0", "/metrics/job/load/worker/1"}
    started = [json.loads((tmp_path / f"started-{worker}.json").read_text()) for worker in range(2)]
    assert started[0]["t0_monotonic_s"] == pytest.approx(started[1]["t0_monotonic_s"], abs=0.005)


def test_workers_started_by_hand_share_a_load_as_documented(tmp_path):
    """The commands of docs/load.md for several machines, with a folder for each."""
    port = str(free_port())
    with Server() as server:
        whole = plan(server, [f"ok {i}" for i in range(40)])
        processes = []
        for name in ("master", "first", "second"):
            (tmp_path / name).mkdir()
            whole.write(tmp_path / name)
            role = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
            if name == "master":
                role = ["--master", "--expect-workers", "2", "--headless", "--users", "2", "--spawn-rate", "2"]
                role += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port]
            command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--exit-code-on-error", "0", *role]
            environment = {**os.environ, DIRECTORY_VARIABLE: str(tmp_path / name)}
            quiet = subprocess.DEVNULL
            processes.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=quiet, stderr=quiet))
        try:
            codes = [process.wait(DEADLINE_S * 2) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    files = sorted(tmp_path.glob("*/samples-*.jsonl"))
    merge(files, tmp_path / "samples.jsonl")

    assert codes == [0, 0, 0]
    assert [len(list(samples_file.read(file))) for file in files] == [20, 20]
    assert sorted(s.due_s for s in samples_file.read(tmp_path / "samples.jsonl")) == [a.due_s for a in whole.arrivals]
    assert {s.outcome for s in samples_file.read(tmp_path / "samples.jsonl")} == {"ok"}


def test_a_load_ends_with_the_process_that_started_it(tmp_path):
    with Server() as server:
        code = (
            "import sys, time; from pathlib import Path; from pytest_llmchaos.loadgen.process import *\n"
            f"arrivals = tuple(Arrival(i / 50, f'ok {{i}}', 5) for i in range(50000))\n"
            f"process = LoadProcess(LoadPlan(url={server.url!r}, model='m', arrivals=arrivals), Path({str(tmp_path)!r}))\n"
            "process.start(); print(process.pid, flush=True); time.sleep(600)\n"
        )
        parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        try:
            pid = int(parent.stdout.readline())
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait(DEADLINE_S)
            parent.stdout.close()
        until(lambda: gone(pid), "the load generator to notice that its parent is gone", DEADLINE_S)
        assert json.loads((tmp_path / "summary.json").read_text())["ended"] == "stopped"


def test_a_load_that_cannot_start_reports_the_reason_and_leaves_no_process(tmp_path):
    with Server() as server:
        server.push_status = 500
        process = LoadProcess(plan(server, ["ok 1"], push_url=server.url), tmp_path)
        with pytest.raises(NotReady, match=rf"the pushgateway at {server.url} did not accept the clients' counters"):
            process.start()
    assert not process.alive
    assert gone(process.pid)


def test_the_last_push_arrives_last_even_if_another_is_open_at_the_end(tmp_path):
    with Server() as server:
        whole = plan(server, [f"ok {i}" for i in range(400)], stream=False, push_url=server.url)
        with LoadProcess(whole, tmp_path) as process:
            server.push_s = 0.8
            until(lambda: server.pushing, "a push that takes its time", DEADLINE_S)
            server.push_s, answered = 0.0, len(server.seen)
            until(lambda: len(server.seen) > answered + 2, "answers after this push", DEADLINE_S)
            summary = process.stop()
        until(lambda: not server.pushing, "the slow push to have arrived", DEADLINE_S)
        _, _, last = server.pushed[-1]

    assert summary.ended == "stopped"
    assert series(last, "llmchaos_client_requests")['llmchaos_client_requests_total{outcome="ok"}'] == summary.done > 0


def test_what_was_due_but_not_sent_is_counted_and_served_to_prometheus(tmp_path):
    port = free_port()
    with Server() as server:
        whole = plan(server, ["silent 1"] * 5, every_s=0.01, timeout_s=60, drain_s=0.1, max_inflight=2, serve_port=port)
        late = Arrival(60.0, "ok", 5)
        with LoadProcess(replace(whole, arrivals=(*whole.arrivals, late)), tmp_path) as process:
            until(lambda: process.status().offered == 5, "five arrivals", DEADLINE_S)
            with urllib.request.urlopen(f"{http_url(loopback(), port)}/metrics", timeout=DEADLINE_S) as answer:
                counted = series(answer.read().decode(), "llmchaos_client_")
            status, summary = process.status(), process.stop()

    assert (counted["llmchaos_client_offered_total"], counted["llmchaos_client_inflight"]) == (5, 2)
    assert (status.sent, status.shed, status.inflight, status.done) == (2, 3, 2, 0)
    assert (summary.offered, summary.sent, summary.shed, summary.achieved_ratio) == (5, 2, 3, 0.4)


def test_a_generator_that_was_killed_is_not_a_quiet_service(tmp_path):
    with Server() as server:
        process = LoadProcess(plan(server, [f"ok {i}" for i in range(3000)], every_s=0.01), tmp_path)
        process.start()
        until(lambda: process.status().done >= 3, "three answers", DEADLINE_S)
        os.killpg(process.pid, signal.SIGKILL)
        until(lambda: not process.alive, "the kill", DEADLINE_S)
        sent = process.status().sent
        until(lambda: process.now_s() > sent * 0.01 + 1, "a second without arrivals", DEADLINE_S)
        summary = process.stop()

    assert summary.achieved_ratio < 0.98
    assert summary.ended == "stopped"


def test_a_load_that_was_not_started_has_no_clock(tmp_path):
    with Server() as server:
        process = LoadProcess(plan(server, ["ok 1"]), tmp_path)
    with pytest.raises(LoadNotHeld, match="call start"):
        process.now_s()
    assert not process.alive
    assert process.status().sent == 0


def launched(process, tmp_path):
    """A launched program that waits for its start."""
    process.launch()
    until(lambda: "users spawned" in (tmp_path / "load.log").read_text(), "Locust to be ready", DEADLINE_S)


def test_a_load_that_was_launched_begins_when_it_is_started(tmp_path):
    with Server() as server:
        process = LoadProcess(plan(server, ["ok 1", "ok 2"]), tmp_path)
        launched(process, tmp_path)
        with pytest.raises(LoadNotHeld, match="call start"):
            process.now_s()
        called_s = time.monotonic()
        process.start()
        decided_s = process.t0_monotonic_s - LEAD_S
        until(lambda: process.status().done == 2, "two answers", DEADLINE_S)
        process.stop()

    assert decided_s >= called_s


def test_a_load_that_was_launched_and_never_started_sends_nothing_and_is_gone(tmp_path):
    with Server() as server:
        process = LoadProcess(plan(server, ["ok 1"]), tmp_path)
        launched(process, tmp_path)
        summary = process.stop()

    assert gone(process.pid)
    assert (summary.offered, summary.sent) == (0, 0)
    assert not (tmp_path / "started.json").exists()


def test_a_load_that_waits_ends_with_the_process_that_launched_it(tmp_path):
    with Server() as server:
        code = (
            "import time; from pathlib import Path; from pytest_llmchaos.loadgen.process import *\n"
            f"process = LoadProcess(LoadPlan(url={server.url!r}, model='m', arrivals=(Arrival(0, 'ok 1', 5),)), Path({str(tmp_path)!r}))\n"
            "process.launch(); print(process.pid, flush=True); time.sleep(600)\n"
        )
        parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        try:
            pid = int(parent.stdout.readline())
            until(lambda: "users spawned" in (tmp_path / "load.log").read_text(), "Locust to be ready", DEADLINE_S)
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait(DEADLINE_S)
            parent.stdout.close()
        until(lambda: gone(pid), "the load generator to notice that its parent is gone", DEADLINE_S)
        assert not (tmp_path / "started.json").exists()


def test_a_closed_port_is_refused_not_waited_for(tmp_path):
    url = f"http://127.0.0.1:{free_port()}"
    whole = LoadPlan(url=url, model="m", arrivals=tuple(Arrival(i / 50, "a", 1) for i in range(20)))
    with LoadProcess(whole, tmp_path) as process:
        until(lambda: not process.alive, "the end of the schedule", DEADLINE_S)
    (window,) = windows(samples_file.read(tmp_path / "samples.jsonl"), [("all", 0, 100)])

    assert dict(window.outcomes) == {"refused": 20}
