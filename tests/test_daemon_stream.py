"""Docker's event stream: breaks, gaps and replicas."""

import time
from types import SimpleNamespace

import pytest
from support.waiting import until

from pytest_llmchaos.faults.base import event_proof
from pytest_llmchaos.runtime import json_log
from pytest_llmchaos.runtime.docker import docker_cli
from pytest_llmchaos.runtime.docker import events as reader_module
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.docker.events import EventReader
from pytest_llmchaos.runtime.docker.members import Members
from pytest_llmchaos.subject.lab import lab_subject


def raw(action, at_unix_s, *, service="api", number="1", container="c1", **attributes):
    return {
        "Actor": {
            "ID": container,
            "Attributes": {
                "com.docker.compose.project": "shop",
                "com.docker.compose.service": service,
                "com.docker.compose.container-number": number,
                **attributes,
            },
        },
        "Action": action,
        "timeNano": int(at_unix_s * 1e9),
    }


def stamp(at_unix_s):
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_unix_s))
    return f"{whole}.{int(at_unix_s % 1 * 1e6):06d}000Z"


class Daemon:
    """Docker with scripted `streams`, broken by errors in them, and `kept` events."""

    def __init__(self):
        self.streams = []
        self.kept = []
        self.found = []
        self.containers = SimpleNamespace(list=lambda **_: self.found)
        self.opened = 0
        self.readers = []
        self.closed = False

    def read(self):
        """A started reader that is closed when the test ends."""
        self.readers.append(EventReader(docker_cli.Daemon(host="unix:///nowhere"), Members(project="shop")))
        self.readers[-1].start()
        return self.readers[-1]

    def events(self, *, since, until=None, filters=None, decode=True):
        if until is not None:
            return list(self.kept)
        self.opened += 1
        return self._stream(self.streams.pop(0) if self.streams else [])

    def _stream(self, given):
        for one in given:
            if isinstance(one, Exception):
                raise one
            yield one
        while not self.closed and not self.streams:
            time.sleep(0.01)


@pytest.fixture
def daemon(monkeypatch):
    made = Daemon()
    monkeypatch.setattr(reader_module, "sdk", SimpleNamespace(connect=lambda _: made))
    monkeypatch.setattr(reader_module, "REOPEN_S", 0.01)
    yield made
    made.closed = True
    for reader in made.readers:
        reader.close()


@pytest.fixture
def broken(daemon):
    """A reader whose stream broke after a death and was reopened."""

    def read(*, kept=(), found=()):
        now = time.time()
        daemon.kept, daemon.found = [raw("exec_start", now + at) for at in kept], list(found)
        daemon.streams = [[raw("die", now), OSError("the daemon restarts")], []]
        reader = daemon.read()
        until(lambda: daemon.opened >= 2 and reader._broken_unix_s is None, "the stream to be open again", 5.0)
        daemon.closed = True
        return reader

    return read


def actions(reader):
    return [heard.event.action for heard in reader.between(0, float("inf"))]


def test_a_break_that_docker_can_replay_is_no_gap(broken):
    reader = broken(kept=[-30.0, 0.0])

    assert actions(reader) == ["die"]
    assert reader.gaps(0, float("inf")) == []


@pytest.mark.parametrize("kept", [[], [0.5], [-0.5]], ids=["nothing kept", "kept since", "kept since the break began"])
def test_a_break_that_docker_cannot_replay_is_a_gap_with_its_reason(broken, kept):
    reader = broken(kept=kept)

    (gap,) = reader.gaps(0, float("inf"))
    assert gap.from_unix_s < gap.to_unix_s
    assert "the Docker daemon's event stream broke (the daemon restarts)" in gap.why
    assert reader.gaps(gap.to_unix_s + 1, float("inf")) == []


def test_after_a_gap_starts_and_ends_are_read_from_the_containers(broken):
    now = time.time()
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": "api"}
    labels |= {"com.docker.compose.container-number": "1"}
    state = {"StartedAt": stamp(now - 0.2), "FinishedAt": "0001-01-01T00:00:00Z"}
    attrs = {"Id": "c1", "Config": {"Labels": labels}, "State": state}
    oneoff = {**attrs, "Config": {"Labels": {**labels, "com.docker.compose.oneoff": "True"}}}
    reader = broken(found=[SimpleNamespace(attrs=attrs), SimpleNamespace(attrs=oneoff)])

    (start,) = [heard.event for heard in reader.between(0, float("inf")) if heard.event.action == "start"]
    assert start.at_unix_s == pytest.approx(now - 0.2, abs=0.001)
    assert (start.service, start.container, start.attributes["seen"]) == (
        "api",
        "c1",
        "in the container's state, after a gap",
    )


def test_a_stream_that_is_broken_now_is_a_gap_without_an_end(daemon):
    daemon.streams = [[OSError("gone")]]
    daemon.events_before = daemon.events

    def refuse(**asked):
        if daemon.opened:
            raise ConnectionError("refused")
        return daemon.events_before(**asked)

    daemon.events = refuse
    reader = daemon.read()
    until(lambda: reader.gaps(0, float("inf")), "the break to be noticed", 5.0)
    reader.close()

    assert [gap.to_unix_s for gap in reader.gaps(0, float("inf"))] == [float("inf")]


def test_events_of_compose_run_containers_are_ignored(daemon):
    oneoff = raw("die", time.time(), **{"com.docker.compose.oneoff": "True"})
    daemon.streams = [[oneoff, raw("health_status: healthy", time.time())]]
    reader = daemon.read()
    until(lambda: actions(reader), "an event", 5.0)
    daemon.closed = True

    (heard,) = reader.between(0, float("inf"))
    assert (heard.event.action, heard.event.attributes) == ("health_status", {"detail": "healthy"})


class Box:
    """A container, as the SDK lists it."""

    def __init__(self, number, ident, service="web"):
        self.id = self.name = ident
        self.labels = {
            "com.docker.compose.project": "shop",
            "com.docker.compose.service": service,
            "com.docker.compose.container-number": number,
            "llmchaos.run": "r",
            "llmchaos.owner": "o",
        }


@pytest.fixture
def scaled(tmp_path):
    """A compose runtime with two containers of one service."""
    runtime = ComposeRuntime(lab_subject("sim"), project="shop", run="r", owner="o", directory=tmp_path)
    boxes = [Box("2", "second"), Box("1", "first")]
    runtime._client = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: list(boxes)))
    return runtime, boxes


def test_one_of_several_replicas_stands_for_its_service(scaled):
    runtime, boxes = scaled

    assert runtime._container("web").id == runtime._containers()["web"].id == "first"
    boxes.pop()
    assert runtime._container("web") is None
    assert "web" not in runtime._containers()
    boxes.append(Box("1", "its replacement"))
    assert runtime._container("web").id == "its replacement"


def test_a_start_or_death_of_another_replica_is_not_the_victims(scaled, daemon):
    runtime, _ = scaled
    runtime._containers()
    daemon.streams = [
        [
            raw("die", 1010.0, service="web", number="1", container="first"),
            raw("start", 1012.0, service="web", number="2", container="second"),
            raw("start", 1015.0, service="web", number="1", container="its replacement"),
        ]
    ]
    runtime._reader = daemon.read()
    until(lambda: len(runtime.events(0, 2000)) == 3, "three events", 5.0)
    daemon.closed = True

    assert [(one.service, one.action, one.container) for one in runtime.events(0, 2000)] == [
        ("web", "die", "first"),
        ("web#2", "start", "second"),
        ("web", "start", "its replacement"),
    ]
    assert runtime.event_gaps(0, 2000) == []


def test_a_proof_names_the_replica_if_there_are_several(scaled, daemon):
    runtime, _ = scaled
    runtime._containers()
    daemon.streams = [
        [raw("die", 1010.0, service="web", number="1"), raw("die", 1011.0, service="api", number="1")],
    ]
    runtime._reader = daemon.read()
    until(lambda: len(runtime.events(0, 2000)) == 2, "two events", 5.0)
    daemon.closed = True

    assert event_proof("injected", runtime.events(0, 2000)[0]).witness == "runtime event die"
    runtime._replicas.count(["web#1", "web#2", "api"])
    assert [event_proof("injected", one).witness for one in runtime.events(0, 2000)] == [
        "runtime event die replica=web#1",
        "runtime event die",
    ]


class TestLogsOfLines:
    """Logs of JSON lines with torn ones."""

    def test_a_torn_line_is_missing_between_its_neighbours(self):
        log = json_log.parse(b'{"at": 1, "event": "a"}\n{"at": 2, "ev\n{"at": 3, "event": "c"}\n{"at": 4')

        assert [line["event"] for line in log.lines] == ["a", "c"]
        assert log.torn == ((1.0, 3.0),)
        assert [line["event"] for line in json_log.with_torn(log)] == ["a", "c", "unreadable"]
        assert json_log.with_torn(log)[2] == {"event": "unreadable", "at": 3.0, "reason": "written after 1.000"}

    def test_a_torn_line_at_either_end_has_no_neighbour_there(self):
        assert json_log.parse(b'[1]\n{"at": 3}\nx\n').torn == ((0.0, 3.0), (3.0, float("inf")))
        assert json_log.parse(b"").lines == ()

    def test_a_line_without_a_time_has_time_0(self):
        assert json_log.at_of({"at": "now"}) == 0.0
