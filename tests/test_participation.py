"""A victim's participation, by runtime, scrapes and gateway."""

import http.server
import json
import threading
from collections import deque
from types import SimpleNamespace

import pytest
from support.waiting import until

from pytest_llmchaos import faults
from pytest_llmchaos.errors import PrometheusUnreachable
from pytest_llmchaos.evidence.journal import Journal
from pytest_llmchaos.evidence.trial_record import Record
from pytest_llmchaos.lab.injector import Injected
from pytest_llmchaos.model import Injection, RuntimeEvent, ServiceState
from pytest_llmchaos.prometheus.queries import Series
from pytest_llmchaos.runtime.local import health
from pytest_llmchaos.runtime.local.compose_reader import Health
from pytest_llmchaos.runtime.local.health import HealthWatch, Look, first_healthy
from pytest_llmchaos.trial.participation import take_part, victims_seen

START = 1010.0


def series(points, **labels):
    """A series as read from Prometheus, with words that are not literals here."""
    labels = json.loads(json.dumps(labels))
    return Series(labels=labels, points=tuple((1000.0 + at_s, float(value)) for at_s, value in points))


@pytest.fixture
def record(tmp_path):
    made = Record(Journal(tmp_path / "journal.jsonl"), "001", tmp_path)
    made.anchor(1000.0, made._monotonic_s - 30.0)
    return made


@pytest.fixture
def hit():
    done = Injected()
    done.acts = [Injection(after_s=0.0, fault=faults.kill("model-1").primitive, victim="model-1")]
    done.start_unix_s = done.last_unix_s = START
    return done


def lab_of(up, used=(), *, selector='used{replica="$victim"}'):
    """A lab in which model-1 died at 10 s and was started at 11 s."""
    events = [
        RuntimeEvent(at_unix_s=START, service="model-1", action="die"),
        RuntimeEvent(at_unix_s=START + 1, service="model-1", action="start"),
    ]
    asked = {"up": up, 'used{replica="model-1"}': used}
    return SimpleNamespace(
        prometheus=SimpleNamespace(raw=lambda query, *_: asked[query]),
        subject=SimpleNamespace(used_selector=selector),
        runtime=SimpleNamespace(
            events=lambda *_: events, state=lambda name: ServiceState(service=name, running=True, health_every_s=None)
        ),
    )


UP = ((9.0, 1), (10.5, 0), (12.5, 1))


def test_a_scrape_is_of_the_service_that_its_label_or_its_address_names(record, hit):
    others = ((9.0, 1), (10.5, 1), (12.5, 0))
    lab = lab_of([series(UP, instance="model-1:8080"), series(others, service="api", instance="model-1:8000")])

    (seen,) = victims_seen(lab, record, hit, 1030.0).watched["model-1"].sightings

    assert (seen.what, seen.points) == ("scraped by Prometheus", ((9.0, True), (10.5, False), (12.5, True)))


@pytest.mark.parametrize("other", ["api", "zzz"])
def test_scrapes_of_another_service_do_not_count_for_the_victim(record, hit, other):
    lab = lab_of([series(UP, service=other, instance="model-1:8000"), series(UP, instance=f"{other}:80"), series(UP)])

    assert victims_seen(lab, record, hit, 1030.0).watched["model-1"].sightings == ()


def test_watchers_are_read_from_a_while_before_the_fault_on(record, hit):
    lab = lab_of([])
    asked = []
    lab.prometheus.raw = lambda *query: asked.append(query) or ()
    lab.runtime.events = lambda *times: asked.append(times) or []

    victims_seen(lab, record, hit, 1030.0)

    assert asked == [
        ("up", START - 5.0, 1030.0),
        (START, 1030.0),
        ('used{replica="model-1"}', START - 5.0, 1030.0),
    ]


def test_only_a_value_of_one_is_a_look_that_found_it_good(record, hit):
    lab = lab_of([series([(9.0, 1), (10.0, 2), (11.0, 0), (12.0, 0.5), (13.0, 1)], service="model-1")])

    (seen,) = victims_seen(lab, record, hit, 1030.0).watched["model-1"].sightings

    assert [is_good for _, is_good in seen.points] == [True, False, False, False, True]


def test_each_victim_must_take_part(record, hit):
    hit.acts.append(Injection(after_s=0.0, fault=faults.kill("api").primitive, victim="api"))
    lab = lab_of([], selector=None)

    assert not take_part(lab, record, hit, must=True)
    assert take_part(lab, record, hit, must=False)


def test_each_probe_of_the_gateway_must_find_it_good(record, hit):
    shallow, passive = ((9.0, 1), (13.0, 1), (14.0, 1)), ((9.0, 1), (13.0, 0), (14.0, 1))
    lab = lab_of([], [series(shallow, probe="shallow"), series(passive, probe="passive")])

    (seen,) = victims_seen(lab, record, hit, 1030.0).watched["model-1"].sightings

    assert (seen.what, seen.points) == ("used by the gateway", ((9.0, True), (13.0, False), (14.0, True)))


def test_a_single_scrape_may_be_lost_and_a_look_of_the_gateway_may_not(record, hit):
    lab = lab_of([series(UP, service="model-1")], [series(UP)])

    found = victims_seen(lab, record, hit, 1030.0).watched["model-1"].sightings

    assert [(seen.what, seen.may_lose_one) for seen in found] == [
        ("scraped by Prometheus", True),
        ("used by the gateway", False),
    ]


@pytest.mark.parametrize(
    ("used", "part"),
    [([(9.0, 1), (11.5, 0), (14.0, 1)], True), ([(9.0, 1), (11.5, 0)], False), ([], True)],
    ids=["used again", "not used yet", "no replica"],
)
def test_it_takes_part_once_all_its_watchers_see_it(record, hit, used, part):
    found = [series(used, probe="shallow")] if used else []

    assert take_part(lab_of([series(UP, service="model-1")], found), record, hit, must=True) is part


def test_a_subject_without_a_gateway_queries_no_gateway(record, hit):
    assert take_part(lab_of([], selector=None), record, hit, must=True)


def test_without_an_answer_of_prometheus_it_does_not_take_part(record, hit):
    lab = lab_of([])

    def unreachable(*_):
        raise PrometheusUnreachable("no answer")

    lab.prometheus.raw = unreachable

    assert not take_part(lab, record, hit, must=True)


def test_without_a_fault_there_is_nothing_to_see(record):
    assert victims_seen(lab_of([]), record, Injected(), 1030.0).watched == {}


def test_a_look_before_the_start_does_not_count_for_the_new_process():
    looks = [
        Look(from_unix_s=9.8, to_unix_s=10.1, good=True),
        Look(from_unix_s=10.2, to_unix_s=10.3, good=False),
        Look(from_unix_s=10.5, to_unix_s=10.6, good=True),
    ]

    assert first_healthy(looks, 10.0) == 10.6
    assert first_healthy(looks, 10.55) is None


def test_a_service_that_is_watched_is_healthy_once_its_path_answers(monkeypatch):
    status = [503]

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setattr(health, "WATCH_EVERY_S", 0.01)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    watch = HealthWatch()
    check = Health(url=f"http://127.0.0.1:{server.server_address[1]}/", warm=True)
    watch.watch("model-1", check)
    watch.watch("model-1", check)
    until(lambda: len(watch._looks["model-1"]) > 1, "two looks")
    assert watch.watches("model-1")
    assert watch.healthy_since("model-1", 0.0) is None

    status[0] = 200
    until(lambda: watch.healthy_since("model-1", 0.0), "a good look")
    watch.close()
    server.shutdown()
    server.server_close()

    assert watch.healthy_since("api", 0.0) is None


def test_a_service_that_died_before_it_was_healthy_passes_its_check_once_and_looks_are_kept_for_an_hour():
    watch = HealthWatch()
    watch._looks["model-1"] = deque([Look(from_unix_s=12.0, to_unix_s=12.1, good=True)], maxlen=health.LOOKS_KEPT)

    assert watch.passes([("model-1", 1.0), ("model-1", 3.0), ("api", 3.0)]) == [("model-1", 12.1)]
    assert health.LOOKS_KEPT * health.WATCH_EVERY_S == 3600
