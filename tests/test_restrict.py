"""Restore of a container's CPU share and network addresses."""

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmchaos.model import Undo
from pytest_llmchaos.runtime.docker import restrictions
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.subject.lab import lab_subject

LABELS = {"llmchaos.run": "run-1", "llmchaos.owner": "1:2:boot"}
LABELS |= {"com.docker.compose.project": "llmchaos-1", "com.docker.compose.service": "api"}


class Container:
    """A container as Docker keeps it, with `inspect`, updates and networks."""

    id = "0123456789abcdef"
    name = "api"
    status = "running"
    labels = LABELS

    def __init__(self, *, endpoint=None, **host):
        self.host = {"CpuPeriod": 0, "CpuQuota": 0, "NanoCpus": 0, "Memory": 0, "MemorySwap": 0, **host}
        self.networks = {"net": {"Aliases": ["api", self.id[:12]], "IPAMConfig": None, **(endpoint or {})}}

    @property
    def attrs(self):
        state = {"Running": True, "Paused": False, "OOMKilled": False, "StartedAt": "0001-01-01T00:00:00Z", "Pid": 0}
        return {"State": state, "HostConfig": self.host, "NetworkSettings": {"Networks": self.networks}, "Image": ""}

    def update(self, *, cpu_period, cpu_quota):
        self.host |= {"CpuPeriod": cpu_period, "CpuQuota": cpu_quota}


class Engine:
    """The SDK's client, with one container in one network."""

    def __init__(self, container):
        self._container = container
        self.containers = self.networks = self
        self.connected = []

    def list(self, **_):
        return [self._container]

    def get(self, _name):
        return self

    def disconnect(self, container):
        container.networks = {}

    def connect(self, _container, **about):
        self.connected.append(about)


def runtime_on(container, directory=Path("unused")):
    runtime = ComposeRuntime(
        lab_subject("sim"), project="llmchaos-1", run="run-1", owner="1:2:boot", directory=directory
    )
    runtime._client = Engine(container)
    runtime._found = {"api": restrictions.as_found(container)}
    return runtime


@pytest.mark.parametrize(
    ("period_us", "quota_us", "back"),
    [
        pytest.param(50_000, 25_000, (50_000, 25_000), id="half a core in a period of its own"),
        pytest.param(50_000, 0, (50_000, -1), id="no limit in a period of its own"),
        pytest.param(0, 25_000, (100_000, 25_000), id="a quarter of a core in Docker's period"),
        pytest.param(0, 0, (100_000, -1), id="no limit"),
    ],
)
def test_a_cpu_share_is_restored_with_its_period(period_us, quota_us, back):
    container = Container(CpuPeriod=period_us, CpuQuota=quota_us)
    runtime = runtime_on(container)

    runtime.limit_cpu("api", 0.1)

    assert (container.host["CpuPeriod"], container.host["CpuQuota"]) == (100_000, 10_000)
    assert runtime.released("limit_cpu", "api") is None
    runtime.undo(Undo(op="ensure_cpu", service="api"))
    assert (container.host["CpuPeriod"], container.host["CpuQuota"]) == back
    assert runtime.released("limit_cpu", "api") is not None


def test_a_quota_with_another_period_is_not_the_original():
    container = Container(CpuPeriod=50_000, CpuQuota=25_000)
    runtime = runtime_on(container)

    container.update(cpu_period=100_000, cpu_quota=25_000)

    assert runtime.released("limit_cpu", "api") is None


FIXED = {"IPv4Address": "10.0.0.9", "IPv6Address": "2001:db8::9"}


@pytest.mark.parametrize(
    ("endpoint", "ipv4", "ipv6", "mac"),
    [
        pytest.param({"IPAMConfig": FIXED}, "10.0.0.9", "2001:db8::9", None, id="both addresses"),
        pytest.param(
            {"IPAddress": "10.0.0.2", "MacAddress": "02:42:ac:11:65:43"},
            None,
            None,
            "02:42:ac:11:65:43",
            id="a MAC address of its own",
        ),
        pytest.param(
            {"IPAddress": "10.0.0.2", "MacAddress": "02:42:0a:00:00:02"},
            None,
            None,
            None,
            id="a MAC address derived from IPv4",
        ),
        pytest.param({"IPAddress": "", "MacAddress": ""}, None, None, None, id="none while it is down"),
    ],
)
def test_a_network_is_restored_with_the_addresses_that_were_set(endpoint, ipv4, ipv6, mac, tmp_path):
    runtime = runtime_on(Container(endpoint=endpoint))
    runtime.partition("api")
    restrictions.keep(tmp_path / "as_found.json", runtime._found)
    runtime._found = restrictions.read_as_found(tmp_path / "as_found.json")

    runtime.undo(Undo(op="ensure_connected", service="api"))

    addresses = {"ipv4_address": ipv4, "ipv6_address": ipv6, "mac_address": mac}
    assert runtime._client.connected == [{"aliases": ["api"], **addresses}]


def test_settings_recorded_by_an_older_version_are_restored():
    container = Container()
    runtime = runtime_on(container)
    known = {"net": {"aliases": ["api"], "ipv4": None}}
    runtime._found = {"api": replace(runtime._found["api"], networks=known)}
    runtime.partition("api")

    runtime.undo(Undo(op="ensure_connected", service="api"))

    assert len(runtime._client.connected) == 1
