"""The fault agent's faults, each seen from both sides by plain sockets."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from support import agent_process, wire
from support.agent_process import SERVICES, free_port
from support.agent_process import Agent as AgentProcess
from support.agent_world import DONE, EVENTS, WORDS, Answer, Service, World
from support.waiting import until

from fault_agent.agent import Agent
from fault_agent.settings import Settings
from lab_common.log import Log
from pytest_llmchaos.loadgen.client import Client as LoadClient
from pytest_llmchaos.loadgen.load_plan import LoadPlan
from pytest_llmchaos.loads.arrivals import Arrival


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path)
    yield one
    one.close()


STREAM = b"".join(EVENTS)


def is_good(answer: Answer) -> bool:
    return answer.end == "complete" and answer.status == 200 and answer.body in (b"hi", STREAM)


def test_without_a_fault_all_passes(world: World) -> None:
    with world.client() as client:
        assert is_good(client.get())
        answer = client.post()
        assert is_good(answer)
        assert b"X-Odd: as it is" in answer.head
    assert [one.head.split(b" ")[0] for one in world.service.requests] == [b"GET", b"POST"]


def test_an_answer_before_the_end_of_its_request_keeps_the_connection(world: World) -> None:
    world.service.is_early = True
    with world.client() as client:
        assert client.ask(b"GET / HTTP/1.1\r\nContent-Length: 4\r\n\r\n").body == b"hi"
        assert client.ask(b"rest" + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").body == b"hi"
    assert len(world.service.requests) == 2


def test_latency_delays_answers_and_not_requests(world: World) -> None:
    with world.client() as pooled:
        assert pooled.get().took_s < 0.25
        with world.fault("latency", delay_s=0.3) as fault, world.client() as fresh:
            for client in (pooled, fresh):
                asked_s = time.monotonic()
                answer = client.get()
                assert is_good(answer)
                assert 0.3 <= answer.took_s < 0.6
                assert world.service.requests[-1].at_s - asked_s < 0.2
            assert fault.count() == 2
        assert pooled.get().took_s < 0.25


def test_latency_keeps_the_order_of_bytes_under_jitter(world: World) -> None:
    world.service.gap_s = 0.001
    with world.fault("latency", delay_s=0.02, jitter_s=0.02), world.client() as client:
        assert is_good(client.post())
    with world.fault("latency", delay_s=0.02, jitter_s=0.01, distribution="normal"), world.client() as client:
        assert is_good(client.post())


def test_bandwidth_limits_all_connections_together(world: World) -> None:
    world.service.body = b"x" * 20_000
    with world.fault("bandwidth", bytes_per_s=100_000), world.client() as one, world.client() as two:
        answers: list[Answer] = []
        threads = [threading.Thread(target=lambda c=client: answers.append(c.get())) for client in (one, two)]
        begun_s = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 0.35 <= time.monotonic() - begun_s < 0.9
        assert [len(one.body) for one in answers] == [20_000, 20_000]


def test_a_black_hole_swallows_open_and_new_connections_until_it_ends(world: World) -> None:
    with world.client() as pooled:
        assert is_good(pooled.get())
        before = len(world.service.requests)
        with world.fault("black_hole") as fault:
            fresh = world.client()
            for client in (pooled, fresh):
                assert client.get(patience_s=0.3).end == "silence"
            assert fault.count() == 2
            assert len(world.service.requests) == before
        until(lambda: len(world.service.requests) == before + 2, "both requests arrive after the end", 3)
        fresh.socket.close()


def test_requests_abandoned_in_a_black_hole_never_reach_the_service(world: World) -> None:
    with world.fault("black_hole") as hole:
        for _ in range(3):
            with world.client() as gone:
                gone.socket.sendall(b"GET /abandoned HTTP/1.1\r\nHost: a\r\n\r\n")
        hole.wait_for_hit(3)
        with world.client() as patient:
            patient.socket.sendall(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
            hole.end()
            assert patient.get().body == b"hi"
    with world.client() as after:
        assert is_good(after.get())
    assert world.service.requests[0].head.startswith(b"GET /late ")
    assert all(b"/abandoned" not in one.head for one in world.service.requests)


@pytest.mark.parametrize("kind", ["reset", "reject"])
def test_open_connections_are_reset(world: World, kind: str) -> None:
    with world.client() as pooled:
        assert is_good(pooled.get())
        with world.fault(kind) as fault:
            assert pooled.get().end == "reset"
            until(lambda: "reset" in world.service.ends, "the service sees the reset")
            assert fault.count() == 1
            if kind == "reject":
                assert fault.count("own_refused") == 1
            assert world.knock() == ("refused" if kind == "reject" else "reset")
    with world.client() as fresh:
        assert is_good(fresh.get())


def test_a_reset_after_bytes_lets_exactly_these_through(world: World) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    world.service.body = b"x" * 1000
    with world.fault("reset", after_bytes=500) as fault:
        with socket.create_connection(("127.0.0.1", world.port), timeout=2) as one:
            one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            got = [one.recv(4096)]
            while sum(map(len, got)) < 500:
                got.append(one.recv(4096))
            with pytest.raises(ConnectionResetError):
                one.recv(1)
        assert b"".join(got) == whole[:500]
        assert fault.count() == 1


def test_clients_that_leave_at_a_reset_after_bytes_do_no_harm(world: World) -> None:
    with world.fault("reset", after_bytes=300), world.fault("latency", delay_s=0.5) as slow:
        for _ in range(4):
            with world.client() as client:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.post(patience_s=0.2)
        slow.end()
    with world.client() as after:
        assert is_good(after.post())
    assert "Traceback" not in world.agent.log.read_text()


def test_a_port_that_opens_while_a_reject_begins_is_closed(tmp_path: Path) -> None:
    port = free_port()

    async def both() -> None:
        settings = Settings(
            target="service", host="127.0.0.1", port=port, upstream=("127.0.0.1", 1), control=str(tmp_path / "control")
        )
        agent = Agent(settings, Log("fault-agent"))
        opening = asyncio.create_task(agent.listen())
        await asyncio.sleep(0)
        await agent.start({"kind": "reject", "lease_s": 20, "seed": 7})
        await opening
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(both())


def test_a_port_that_another_program_took_during_a_reject_opens_later(world: World) -> None:
    with world.fault("reject") as fault:
        taken = socket.create_server(("127.0.0.1", world.port))
        with taken:
            fault.end()
            assert fault.state()["state"] == "ended"

    until(lambda: world.knock() == "complete", "the agent's port is open again", 5)


def test_a_share_of_connections_is_hit_and_the_same_ones_for_a_seed(world: World) -> None:
    def hits(seed: int) -> list[bool]:
        with world.fault("reset", share=0.5, seed=seed) as fault:
            found = [world.knock() == "reset" for _ in range(20)]
            assert fault.count("met") == 20
            assert fault.count() == sum(found)
        return found

    found = hits(1)
    assert 4 <= sum(found) <= 16


def test_flaky_answers_itself_and_keeps_the_connection(world: World) -> None:
    with world.fault("flaky", status=503, retry_after_s=2) as fault, world.client() as client:
        assert is_good(client.get())  # a probe or a scrape
        answer = client.post()
        assert (answer.status, answer.end) == (503, "complete")
        assert b"retry-after: 2\r\n" in answer.head.lower()
        assert "error" in json.loads(answer.body)
        assert is_good(client.get())
        assert [one.head[:3] for one in world.service.requests] == [b"GET", b"GET"]
        assert (fault.count("met"), fault.count()) == (1, 1)


def test_the_same_requests_are_hit_for_a_seed_and_a_retry_draws_anew(tmp_path: Path) -> None:
    def statuses(folder: str) -> list[int]:
        (tmp_path / folder).mkdir()
        world = World(tmp_path / folder)
        world.service.gap_s = 0
        try:
            with world.fault("flaky", share=0.5, seed=11), world.client() as client:
                return [client.post(f"r{n % 15}").status for n in range(30)]
        finally:
            world.close()

    first = statuses("a")
    assert first == statuses("b")
    assert first[:15] != first[15:]
    assert 5 <= first.count(503) <= 25


def test_two_loads_of_one_schedule_are_hit_alike_and_their_retries_are_not(world: World) -> None:
    """Each load names its requests anew and sends them in another order."""

    def hit(reverse: bool) -> list[set[int]]:
        plan = LoadPlan(url="http://127.0.0.1:1", model="m", arrivals=tuple(Arrival(n / 10, "a", 1) for n in range(30)))
        load, order = LoadClient(plan), sorted(range(30), reverse=reverse)
        with world.client() as one, world.client() as other:
            clients = (other, one) if reverse else (one, other)
            return [{n for n in order if clients[n % 2].post(load.request_id(n)).status == 503} for _ in range(2)]

    world.service.gap_s = 0
    with world.fault("flaky", share=0.5, seed=11):
        first, retries = hit(reverse=False)
        assert hit(reverse=True) == [first, retries]
    assert 5 <= len(first) <= 25
    assert first != retries


def test_a_slow_error_comes_after_its_delay_or_at_the_end_of_the_fault(world: World) -> None:
    with world.client() as client:
        with world.fault("slow_error", status=500, delay_s=0.3):
            answer = client.post()
            assert answer.status == 500
            assert 0.3 <= answer.took_s < 0.6
        with world.fault("slow_error", status=500, delay_s=60, lease_s=0.4):
            assert client.post().took_s < 2


@pytest.mark.parametrize("client_leaves", [False, True])
def test_a_slow_error_comes_though_the_service_ends_its_idle_connection(tmp_path: Path, client_leaves: bool) -> None:
    """Services end idle connections, and one that waits for an error idles."""
    service = wire.Service()
    agent = agent_process.Agent(service.port, tmp_path)
    try:
        idle = agent.sockets()
        fault = agent.start("slow_error", delay_s=60)
        client = wire.connect(agent.port)
        peer = service.accepted()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
        until(lambda: agent.met("slow_error") == 1, "the request meets the fault")
        peer.end()
        with pytest.raises(AssertionError):  # the client waits on
            client.sees_the_end(within_s=0.2)

        if client_leaves:
            client.end()
            client.sees_the_end()
            until(lambda: agent.sockets() == idle, "both connections end", seen=agent.sockets)
        agent.end(fault)

        if not client_leaves:
            client.sees_the_end()
        assert client.got.startswith(b"HTTP/1.1 500 ") is not client_leaves
    finally:
        wire.close_all()
        service.close()
        agent.kill()


def test_an_own_answer_ends_the_connection_if_the_client_wants_that(world: World) -> None:
    with world.fault("flaky"), world.client() as client:
        ends = b"POST / HTTP/1.1\r\nConnection: TE, Close\r\nContent-Length: 0\r\n\r\n"
        assert client.ask(ends).status == 503
        assert client.ask(ends).end in ("eof", "reset")


def test_pipelined_requests_get_their_answers_in_order(world: World) -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with world.fault("slow_error", status=500, delay_s=0.2), world.client() as client:
        first = client.ask(get + post + get)
        assert first.body == b"hi"
        assert client.ask(b"").status == 500
        assert client.ask(b"").body == b"hi"


def test_match_selects_by_model_header_path_and_streaming(world: World) -> None:
    world.service.gap_s = 0
    with world.client() as client:
        for match, is_hit in (
            ({"model": "m1"}, True),
            ({"model": "m2"}, False),
            ({"path": "/v1/*"}, True),
            ({"path": "/v2/*"}, False),
            ({"streaming": True}, True),
            ({"streaming": False}, False),
            ({"header": "x-request-id: a*"}, True),
            ({"header": "x-request-id: b*"}, False),
            ({"method": "GET"}, False),
        ):
            with world.fault("flaky", match=match):
                assert (client.post("a1").status == 503) is is_hit, match


def test_a_lease_ends_by_itself(world: World) -> None:
    with world.fault("flaky", lease_s=0.3) as fault, world.client() as client:
        assert client.post().status == 503
        until(lambda: fault.state()["state"] == "ended", "the lease ends", 2)
        assert fault.state()["ended_by"] == "lease"
        assert is_good(client.post())


def test_control_refuses_what_it_cannot_do(world: World) -> None:
    assert "'start', 'wait', 'list', 'end'" in world.control(do="kill")["error"]
    assert "lease_s" in world.control(do="start", fault={"kind": "flaky"})["error"]
    assert "no fault 'f9'" in world.control(do="end", id="f9")["error"]
    with world.fault("flaky"):
        assert "already in force" in world.control(do="start", fault={"kind": "flaky", "lease_s": 5})["error"]
    assert oct(world.agent.control.stat().st_mode)[-3:] == "600"


def test_a_service_that_refuses_is_refused_until_it_returns(world: World) -> None:
    port = world.service.port
    world.service.close()
    until(lambda: world.knock() == "refused", "the agent refuses too", 3)
    world.service = Service(port)
    until(lambda: world.knock() == "complete", "the agent accepts again", 3)


def test_the_console_prints_answers_and_reports_refusals(world: World) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SERVICES), "LAB_CONTROL": str(world.agent.control)}

    def console(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "fault_agent.console", *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, input='{"do": "list"}\n'
        )

    assert console('{"do": "list"}').returncode == 0
    assert json.loads(console().stdout)["ok"]["faults"] == []
    assert console('{"do": "x"}').returncode == 1
    world.agent.kill()
    assert console('{"do": "list"}').returncode == 2


def test_settings_are_checked_before_the_start() -> None:
    environment = {**os.environ, "PYTHONPATH": str(SERVICES), "LAB_TARGET": "a", "LAB_UPSTREAM": "nowhere"}
    command = [sys.executable, "-m", "fault_agent"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "LAB_UPSTREAM: expected HOST:PORT" in done.stderr
    assert "LAB_CONTROL" in done.stderr


def random_fault(draw: Random) -> dict[str, object]:
    kind = draw.choice(["latency", "bandwidth", "black_hole", "reset", "reject", "flaky", "slow_error"])
    options: dict[str, dict[str, object]] = {
        "latency": {"delay_s": draw.uniform(0.001, 0.1), "jitter_s": draw.uniform(0, 0.1)},
        "bandwidth": {"bytes_per_s": draw.choice([10, 1000, 10**6])},
        "reset": {"after_bytes": draw.choice([0, 1, 100])},
        "flaky": {"status": draw.choice([429, 500, 503, 529])},
        "slow_error": {"delay_s": draw.uniform(0, 1)},
    }
    share = draw.choice([0.1, 0.5, 1.0])
    return {"kind": kind, "lease_s": 60, "seed": draw.getrandbits(32), "share": share, **options.get(kind, {})}


def test_a_thousand_random_plans_touch_no_bystander(tmp_path: Path) -> None:
    """The bystander has its own agent: faults of one are no matter of the other."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    hit, spared = World(tmp_path / "a"), World(tmp_path / "b")
    draw, over, wrong = Random(5), threading.Event(), []
    spared.service.gap_s = 0

    def stand_by() -> None:
        with spared.client() as client:
            while not over.wait(0.01):
                answer = client.post()
                if not is_good(answer):
                    wrong.append(answer)

    bystander = threading.Thread(target=stand_by)
    bystander.start()
    try:
        for _ in range(1000):
            ids = [hit.control(do="start", fault=random_fault(draw)).get("ok") for _ in range(draw.choice([1, 2]))]
            with contextlib.suppress(OSError), hit.client() as client:
                client.socket.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            for one in filter(None, ids):
                assert hit.control(do="end", id=one["id"])["ok"]["state"] == "ended"
        assert hit.knock() == "complete"
        assert spared.service.ends == []
    finally:
        over.set()
        bystander.join()
        hit.close()
        spared.close()
    assert wrong == []
    assert len(spared.service.requests) > 100


@pytest.mark.parametrize("event", ["received", "first_token", "answered"])
def test_a_message_is_held_until_the_end_of_the_fault(world: World, event: str) -> None:
    """The third chat waits. Probes and the chats around it pass."""
    match = {"path": "*/chat/*"}
    with world.fault("hold", event=event, number=3, match=match) as fault, world.client() as client:
        for _ in range(2):
            assert is_good(client.post())
            assert is_good(client.get())
        answers: list[Answer] = []
        with world.client() as other:
            third = threading.Thread(target=lambda: answers.append(other.post(patience_s=10)))
            third.start()
            state = world.control(do="wait", id=fault.id, deadline_s=5)["ok"]
            assert state["counters"] == {"met": 3, "hit": 1}
            assert is_good(client.post())
            assert len(world.service.requests) == (5 if event == "received" else 6)
            assert answers == []
            ended_s = time.monotonic()
            fault.end()
            third.join()
        assert is_good(answers[0])
        assert (answers[0].at_s[0] < ended_s) is (event == "answered")
        assert answers[0].at_s[-1] > ended_s


def test_a_wait_ends_at_its_deadline_and_at_the_end_of_the_fault(world: World) -> None:
    with world.fault("hold", lease_s=0.5) as fault:
        assert world.control(do="wait", id=fault.id, deadline_s=0.1)["ok"]["state"] == "active"
        assert world.control(do="wait", id=fault.id, deadline_s=4)["ok"]["ended_by"] == "lease"


def test_a_hold_takes_no_share_and_reads_no_body(world: World) -> None:
    for wrong in ({"share": 0.5}, {"match": {"model": "m1"}}, {"event": "sent"}, {"number": 0}):
        assert "error" in world.control(do="start", fault={"kind": "hold", "lease_s": 5, "seed": 1, **wrong}), wrong


# Streams. The service sends eight tokens, a finish reason and [DONE].

FIRST_THREE = b"".join(EVENTS[:3])


def test_a_late_first_token_waits_and_the_head_does_not(world: World) -> None:
    with world.fault("late_first_token", delay_s=0.4) as fault, world.client() as client:
        answer = client.post()
        assert is_good(answer)
        assert answer.at_s[0] - world.service.requests[-1].sent_s[0] >= 0.4
        assert fault.count() == 1
        assert is_good(client.get())


def test_a_stall_begins_after_its_tokens_and_ends_with_the_fault(world: World) -> None:
    with world.client() as client:
        with world.fault("stall", after_tokens=3, lease_s=0.6):
            answer = client.post()
            assert is_good(answer)
            assert answer.at_s[3] - answer.at_s[2] > 0.3
        with world.fault("stall", after_tokens=3, for_s=0.5, keep_alive_s=0.1):
            answer = client.post()
            assert answer.end == "complete"
            assert answer.body.count(b": keep-alive\n\n") >= 2
            assert answer.body.replace(b": keep-alive\n\n", b"") == STREAM


@pytest.mark.parametrize("kind", ["truncate", "inband_error", "malformed", "duplicate", "stall"])
def test_a_fault_that_has_ended_hits_no_open_stream(world: World, kind: str) -> None:
    world.service.gap_s = 0.3
    with world.client() as client, world.fault(kind, after_tokens=6) as fault:
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(client.post()))
        asking.start()
        until(lambda: world.service.requests and world.service.requests[0].sent_s, "the first token")

        fault.end()

        world.service.gap_s = 0.01
        asking.join()
        assert answers[0].body == STREAM
        assert (fault.count("met"), fault.count()) == (1, 0)


def test_a_stalled_stream_whose_client_leaves_is_cancelled_at_the_service(world: World) -> None:
    """The agent passes the end of the connection on."""
    with world.fault("stall", after_tokens=3):
        with world.client() as client:
            assert client.post(patience_s=0.3).end == "silence"
        until(lambda: world.service.ends, "the service sees the client go", 2)


@pytest.mark.parametrize("how", ["clean", "false_stop", "mid_event"])
def test_a_truncated_stream_ends_cleanly(world: World, how: str) -> None:
    with world.fault("truncate", after_tokens=3, how=how) as fault, world.client() as client:
        answer = client.post()
        assert answer.end == "complete"
        assert answer.texts[:3] == list(WORDS[:3])
        assert answer.body.startswith(FIRST_THREE)
        assert (answer.body == FIRST_THREE) is (how == "clean")
        assert (answer.body.endswith(DONE) and b'"stop"' in answer.body) is (how == "false_stop")
        assert fault.count() == 1
    with world.client() as client:
        assert is_good(client.post())


def test_an_answer_that_arrives_at_once_is_truncated_alike(world: World) -> None:
    world.service.gap_s = 0
    with world.fault("truncate", after_tokens=2, how="clean") as fault:
        for _ in range(20):
            with world.client() as client:
                answer = client.post()
                assert (answer.texts, answer.end) == (list(WORDS[:2]), "complete")
                assert client.socket.recv(1) == b""  # closed, and not reset
        assert fault.count() == 20
    assert "Traceback" not in world.agent.log.read_text()


def test_an_inband_error_ends_the_stream_with_status_200(world: World) -> None:
    with world.fault("inband_error", after_tokens=2), world.client() as client:
        answer = client.post()
        assert (answer.status, answer.end) == (200, "complete")
        assert answer.texts == list(WORDS[:2])
        assert b'"error"' in answer.body


def test_one_event_is_malformed_repeated_or_swapped(world: World) -> None:
    with world.client() as client:
        with world.fault("malformed", after_tokens=2):
            assert client.post().texts == [*WORDS[:2], *WORDS[3:]]
        with world.fault("duplicate", after_tokens=2):
            assert client.post().texts == [*WORDS[:3], WORDS[2], *WORDS[3:]]
        with world.fault("reorder", after_tokens=2):
            assert client.post().texts == [*WORDS[:2], WORDS[3], WORDS[2], *WORDS[4:]]
        assert client.post().texts == list(WORDS)


def test_another_model_and_an_empty_answer_look_good(world: World) -> None:
    with world.client() as client:
        with world.fault("wrong_model", model="m9"):
            answer = client.post()
            assert answer.texts == list(WORDS)
            assert b'"m1"' not in answer.body
            assert answer.body.count(b'"m9"') == 9
        with world.fault("empty_answer"):
            answer = client.post()
            assert "".join(answer.texts) == ""
            assert b'"stop"' in answer.body
            assert answer.body.endswith(DONE)


def test_a_slow_drip_sends_a_few_bytes_at_a_time(world: World) -> None:
    world.service.gap_s = 0
    with world.fault("slow_drip", bytes_per_piece=100, every_s=0.05), world.client() as client:
        answer = client.post()
        assert is_good(answer)
        assert answer.took_s >= 0.05 * (len(STREAM) // 100 - 1)


def test_two_faults_hit_one_answer(world: World) -> None:
    with world.fault("duplicate", after_tokens=0), world.fault("truncate", after_tokens=3), world.client() as client:
        texts = client.post().texts
        assert texts in ([WORDS[0], WORDS[0], WORDS[1]], [WORDS[0], WORDS[0], WORDS[1], WORDS[2]])


def test_a_connection_counts_as_hit_once_whatever_else_starts_and_ends(world: World) -> None:
    with world.fault("latency", delay_s=0.01) as fault, world.client() as client:
        for _ in range(3):
            with world.fault("bandwidth", bytes_per_s=10**6):
                assert is_good(client.get())
        assert (fault.count("met"), fault.count()) == (1, 1)


def test_a_connection_is_busy_until_its_answer_has_ended(world: World) -> None:
    def busy() -> int:
        return int(world.control(do="list")["ok"]["seen"]["busy"])

    world.service.gap_s = 0.1
    with world.client() as idle, world.client() as client:
        assert is_good(idle.get())
        assert busy() == 0
        client.socket.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        until(lambda: busy() == 1, "the answer is on its way")
        until(lambda: busy() == 0, "it has ended", 5)
        assert DONE in client.socket.recv(1 << 16)


def test_a_connection_with_another_protocol_is_not_busy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        agent = AgentProcess(server.getsockname()[1], tmp_path)
        try:
            with socket.create_connection(("127.0.0.1", agent.port), timeout=5) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n")
                service, _ = server.accept()
                with service:
                    until(lambda: agent.ask({"do": "list"})["seen"]["busy"] == 1, "the request is on its way")
                    service.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\nhello")
                    assert client.recv(100).startswith(b"HTTP/1.1 101")
                    assert agent.ask({"do": "list"})["seen"]["busy"] == 0
        finally:
            agent.stop()


def test_connections_without_http_are_counted_for_faults_on_requests(world: World) -> None:
    hello = b"\x16\x03\x01\x00\x05hello"
    with world.client() as before, world.client() as after, world.client() as plain:
        before.socket.sendall(hello)
        until(lambda: world.control(do="list")["ok"]["seen"]["connections"] == 3, "three connections")
        assert is_good(plain.get())
        with world.fault("flaky") as fault, world.fault("latency", delay_s=0.01) as latency:
            after.socket.sendall(hello)
            until(lambda: fault.count("unread") == 2, "both are counted", 3)
            assert plain.post().status == 503
            assert (fault.count("met"), fault.count("unread")) == (1, 2)
            assert latency.count("unread") == 0
