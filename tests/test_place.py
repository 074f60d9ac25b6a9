"""Addresses of a Docker daemon's ports, by its place."""

import json
import socket
import stat

import pytest

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host import ports as host_ports
from pytest_llmchaos.host.ports import Ports, accepts_connections, http_url, is_own_address
from pytest_llmchaos.runtime.docker import docker_cli, place, reach
from pytest_llmchaos.runtime.docker.docker_cli import Daemon
from pytest_llmchaos.runtime.docker.place import Place, of_daemon, require_files

ID = "4f" * 32
FAR = "192.0.2.7"  # of no machine, see RFC 5737
SOCKET = Daemon(host="unix:///var/run/docker.sock")
# Lines of a host with containers, one of them bound elsewhere, and one in a container.
OUTSIDE = (
    f"60 27 0:9 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw\n"
    f"61 27 254:0 /var/lib/docker/containers/{ID}/log /mnt/logs rw - ext4 /dev/vda rw\n"
    "27 1 254:0 / / rw - ext4 /dev/vda rw\n"
)
INSIDE = f"70 60 254:0 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw\n"


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine outside of containers with a docker client that fails."""
    monkeypatch.setattr(place, "MOUNTS", tmp_path / "mountinfo")
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop")
    monkeypatch.setenv("DOCKER_HOST", SOCKET.host)
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    def write(*, mounts=OUTSIDE, script="exit 1"):
        (tmp_path / "mountinfo").write_text(mounts)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    write()
    return write


def container(mode="bridge", *gateways):
    """Output of `docker container inspect`."""
    networks = {f"net{number}": {"Gateway": gateway} for number, gateway in enumerate(gateways)}
    return json.dumps([{"HostConfig": {"NetworkMode": mode}, "NetworkSettings": {"Networks": networks}}])


@pytest.mark.parametrize(
    "host", [SOCKET.host, "unix:///run/user/1000/docker.sock", "unix:///home/me/.colima/docker.sock"]
)
def test_a_daemon_behind_a_socket_publishes_on_loopback(host):
    found = of_daemon(Daemon(host=host), "0.0.0.0")

    assert found == Place()
    assert (found.entry(21000, 80), found.url(21000)) == ("127.0.0.1:21000:80", "http://127.0.0.1:21000")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "docker.localhost"])
def test_a_daemon_at_a_loopback_address_publishes_on_loopback_but_may_see_other_files(host):
    assert of_daemon(Daemon(host=f"tcp://{host}:2375"), "0.0.0.0") == Place(shares_files=False)


def test_a_daemon_at_this_machines_own_address_publishes_on_loopback(monkeypatch):
    monkeypatch.setattr(place, "is_own_address", lambda host: host == "me")

    assert of_daemon(Daemon(host="tcp://me:2375")).elsewhere == ""


def test_a_daemon_of_another_machine_needs_leave_to_publish_elsewhere_than_on_its_loopback():
    with pytest.raises(
        NotReady,
        match=rf"the Docker daemon at tcp://{FAR}:2375 is on another machine, so ports published on its loopback cannot be "
        rf'reached from here: allow one other address of it with llmchaos_published_on = "{FAR}" in the ini file',
    ):
        of_daemon(Daemon(host=f"tcp://{FAR}:2375"))


def test_ports_are_published_on_the_one_address_that_is_allowed():
    found = of_daemon(Daemon(host="tcp://192.0.2.9:2375"), FAR)

    assert (found.entry(21000, 80), found.url(21000)) == (f"{FAR}:21000:80", f"http://{FAR}:21000")
    assert not found.shares_files


def test_ports_on_every_address_are_reached_where_the_daemon_is():
    found = of_daemon(Daemon(host=f"tcp://{FAR}:2375"), "0.0.0.0")

    assert (found.entry(21000, 80), found.url(21000)) == ("0.0.0.0:21000:80", f"http://{FAR}:21000")


def test_an_ipv6_address_has_brackets_everywhere():
    found = of_daemon(Daemon(host="tcp://[2001:db8::7]:2375"), "2001:db8::7")

    assert (found.entry(21000, 80), found.url(21000)) == ("[2001:db8::7]:21000:80", "http://[2001:db8::7]:21000")
    assert http_url("127.0.0.1", 80) == "http://127.0.0.1:80"


@pytest.fixture
def ipv6_only(monkeypatch):
    """A machine whose only loopback address is ::1."""
    monkeypatch.setattr(host_ports, "is_own_address", lambda host: host == "::1")


@pytest.mark.usefixtures("ipv6_only")
@pytest.mark.parametrize("host", [SOCKET.host, "tcp://[::1]:2375"])
def test_ports_are_published_on_the_loopback_address_that_this_machine_has(host):
    found = of_daemon(Daemon(host=host))

    assert (found.entry(21000, 80), found.url(21000)) == ("[::1]:21000:80", "http://[::1]:21000")
    assert found.host_of("") == found.host_of("::") == found.host_of("::1") == "::1"
    assert found.host_of("0.0.0.0") is None


def test_a_port_on_every_ipv6_address_is_reached_by_ipv6(monkeypatch):
    monkeypatch.setattr(place, "is_own_address", lambda host: host == "::1")

    assert Place().host_of("::") == "::1"


def test_a_port_on_every_ipv6_address_is_reached_by_ipv4_without_an_ipv6_loopback(monkeypatch):
    monkeypatch.setattr(place, "is_own_address", lambda _: False)

    assert Place().host_of("::") == "127.0.0.1"


@pytest.mark.usefixtures("ipv6_only")
def test_a_daemon_of_another_machine_needs_leave_whatever_the_loopback_address():
    with pytest.raises(NotReady, match="is on another machine"):
        of_daemon(Daemon(host=f"tcp://{FAR}:2375"))


def test_a_name_that_is_no_address_is_one_error():
    with pytest.raises(NotReady, match=r"llmchaos_published_on must be an address .* got 'no-such.invalid'"):
        of_daemon(Daemon(host=f"tcp://{FAR}:2375"), "no-such.invalid")


def test_a_running_stack_of_another_machine_needs_no_leave():
    found = of_daemon(Daemon(host=f"tcp://{FAR}:2375"), publishes=False)

    assert found.host_of("0.0.0.0") == found.host_of("") == found.host_of("::") == FAR
    assert found.host_of("192.0.2.8") == "192.0.2.8"
    assert found.host_of("127.0.0.1") is None


@pytest.mark.parametrize(
    ("bound_to", "host"),
    [
        ("", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "::1"),
        ("127.0.0.5", "127.0.0.5"),
        (FAR, FAR),
    ],
)
def test_a_port_of_this_machine_is_reached_at_the_address_it_is_bound_to(bound_to, host):
    assert Place().host_of(bound_to) == host


def test_a_job_in_a_container_publishes_on_the_bridge_between_it_and_the_daemon(machine):
    machine(mounts=OUTSIDE + INSIDE, script=f"[ \"$3\" = {ID} ] && echo '{container('bridge', '172.17.0.1')}'")

    found = of_daemon(SOCKET)

    assert (found.entry(21000, 80), found.url(21000)) == ("172.17.0.1:21000:80", "http://172.17.0.1:21000")
    assert "this process runs in container 4f4f4f4f4f4f" in found.elsewhere
    assert not found.shares_files


def test_a_job_in_a_container_without_ipv4_publishes_on_the_bridges_ipv6_address(machine):
    inspected = json.loads(container("ci"))
    inspected[0]["NetworkSettings"]["Networks"]["ci"] = {"Gateway": "", "IPv6Gateway": "fd00::1"}
    machine(mounts=INSIDE, script=f"echo '{json.dumps(inspected)}'")

    found = of_daemon(SOCKET)

    assert (found.entry(21000, 80), found.url(21000)) == ("[fd00::1]:21000:80", "http://[fd00::1]:21000")


def test_a_job_in_a_container_may_choose_the_address(machine):
    machine(mounts=INSIDE, script=f"echo '{container('bridge', '172.17.0.1')}'")

    found = of_daemon(SOCKET, "0.0.0.0")

    assert (found.entry(21000, 80), found.url(21000)) == ("0.0.0.0:21000:80", "http://172.17.0.1:21000")


def test_a_container_is_known_by_its_host_name_if_no_mount_has_its_id(machine, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: ID[:12])
    machine(script=f"[ \"$3\" = {ID[:12]} ] && echo '{container('ci', '172.18.0.1')}'")

    assert of_daemon(SOCKET).reach == "172.18.0.1"


def test_a_container_in_the_hosts_network_reaches_loopback(machine):
    machine(mounts=INSIDE, script=f"echo '{container('host')}'")

    assert of_daemon(SOCKET) == Place(shares_files=False)


def test_a_container_in_another_ones_network_has_its_gateway(machine):
    machine(
        mounts=INSIDE,
        script=f"if [ $3 = {ID} ]; then echo '{container('container:pod')}'; else echo '{container('x', '172.19.0.1')}'; fi",
    )

    assert of_daemon(SOCKET).reach == "172.19.0.1"


def test_a_container_without_a_network_is_one_error(machine):
    machine(mounts=INSIDE, script=f"echo '{container('none')}'")

    with pytest.raises(NotReady, match="no network with a gateway to that machine: start it with `--network bridge`"):
        of_daemon(SOCKET)


@pytest.mark.parametrize("script", ["exit 1", "echo '[]'", "echo nonsense"])
def test_a_container_of_another_daemon_does_not_count(machine, script):
    machine(mounts=INSIDE, script=script)

    assert of_daemon(SOCKET) == Place()


def test_a_host_that_sees_its_containers_folders_is_no_container(machine):
    machine(script=f"echo '{container('bridge', '172.17.0.1')}'")

    assert of_daemon(SOCKET) == Place()


def test_a_machine_that_shows_no_mounts_is_no_container(tmp_path):
    (tmp_path / "mountinfo").unlink()

    assert of_daemon(SOCKET) == Place()


MISSING = 'Error response from daemon: invalid mount config for type "bind": bind source path does not exist'


def test_files_that_the_daemons_machine_lacks_are_one_error_before_docker_makes_folders_of_them(machine, tmp_path):
    answers = f"case \"$*\" in *here*) echo 'No such image' >&2;; *) echo '{MISSING}' >&2;; esac; exit 1"
    machine(script=f'echo "$*" >>{tmp_path}/commands; {answers}')
    place = Place(shares_files=False)

    with pytest.raises(NotReady, match=r"the compose file mounts what is not there: /a,b/gone; mount each at the same"):
        require_files(place, ["/x/here", "/a,b/gone"])

    assert 'type=bind,"source=/a,b/gone",target=/llmchaos,readonly' in (tmp_path / "commands").read_text()
    require_files(place, ["/x/here"])


def test_files_are_not_looked_up_at_a_daemon_that_has_the_same(machine):
    machine(script=f"echo '{MISSING}' >&2; exit 1")

    require_files(Place(), ["/gone"])


def test_the_files_to_mount_are_binds_and_files_of_configs_and_secrets():
    config = {
        "services": {"web": {"volumes": [{"type": "bind", "source": "/a"}, {"type": "volume", "source": "models"}]}},
        "configs": {"c": {"file": "/b"}, "text": {"content": "x"}, "none": None},
        "secrets": {"s": {"file": "/c"}, "env": {"environment": "KEY"}},
    }

    assert reach.mounted_files(reach.read_config(json.dumps(config))) == {"/a", "/b", "/c"}


def test_ports_of_another_machine_are_checked_by_connections(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = Place(publish=FAR, reach="127.0.0.1", elsewhere="far").ports()

        assert not ports.is_free(port)
        assert accepts_connections("127.0.0.1", port)
    assert ports.is_free(port)
    reserved = ports.reserve()
    assert reserved != Ports().reserve()
    ports.close()


def test_an_address_of_this_machine_is_known():
    assert is_own_address("127.0.0.1")
    assert not is_own_address(FAR)
    assert not is_own_address("no-such.invalid")


def test_the_lab_is_refused_on_a_daemon_of_another_machine(machine, monkeypatch, tmp_path):
    from pytest_llmchaos.runtime.docker.project import ComposeProject  # noqa: PLC0415 - for this test alone
    from pytest_llmchaos.subject.lab import lab_subject  # noqa: PLC0415

    monkeypatch.setenv("DOCKER_HOST", f"tcp://{FAR}:2375")
    monkeypatch.setattr(docker_cli, "require_engine", lambda: None)

    with pytest.raises(
        NotReady, match=r"is on another machine, and the lab must be on a Docker daemon of this machine.*=local"
    ):
        ComposeProject(lab_subject("sim"), name="llmchaos-1", labels={}, directory=tmp_path).prepare()
