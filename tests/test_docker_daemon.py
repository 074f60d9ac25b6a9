"""Choice of the Docker daemon, the same for `docker` and the SDK."""

import http.server
import json
import socket
import threading

import pytest
from support.plugin_double import SCENARIO

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import docker_cli, sdk
from pytest_llmchaos.runtime.docker.docker_cli import Daemon
from pytest_llmchaos.session.settings import choose_runtime

GONE = 'context "gone": context not found: open /root/.docker/contexts/meta/283b/meta.json: no such file or directory'


@pytest.fixture(autouse=True)
def client(monkeypatch, tmp_path):
    """A docker client with one context, alone on PATH, without our settings."""
    for name in docker_cli._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    docker_cli._of_context.cache_clear()

    def knows(about=None, *, fails=""):
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir(exist_ok=True)
        said = f"cat <<'END'\n{json.dumps([about])}\nEND" if about else f"echo '[]'; echo '{fails}' >&2; exit 1"
        program.write_text(f"#!/bin/sh\n{said}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    yield knows
    docker_cli._of_context.cache_clear()


def context(name="staging", host="tcp://10.0.0.7:2376", *, material=(), skip=False, folder="/nowhere"):
    """Output of `docker context inspect`."""
    return {
        "Name": name,
        "Metadata": {},
        "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip}},
        "TLSMaterial": {"docker": list(material)} if material else {},
        "Storage": {"MetadataPath": f"{folder}/meta", "TLSPath": str(folder)},
    }


@pytest.fixture
def certificates(tmp_path):
    """A folder of certificates, as a context stores it."""
    folder = tmp_path / "tls" / "docker"
    folder.mkdir(parents=True)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (folder / name).write_text("x")
    return folder


def test_a_context_without_tls_is_its_address(client):
    client(context("colima", "unix:///home/me/.colima/docker.sock"))

    assert docker_cli.daemon() == Daemon(host="unix:///home/me/.colima/docker.sock")


def test_a_contexts_certificates_are_used_by_both_the_client_and_the_sdk(client, certificates, monkeypatch):
    client(context(material=["ca.pem", "cert.pem", "key.pem"], folder=certificates.parent))
    monkeypatch.setenv("DOCKER_CONTEXT", "staging")
    asked = []
    monkeypatch.setattr(sdk, "_alone", lambda _: lambda **about: asked.append(about))

    found = docker_cli.daemon()
    sdk.connect(found)

    assert found == Daemon(host="tcp://10.0.0.7:2376", tls=True, certificates=str(certificates), context="staging")
    environment = docker_cli.environment()
    # DOCKER_HOST would disable the context and its TLS.
    assert {name: environment[name] for name in docker_cli._VARIABLES if name in environment} == {
        "DOCKER_CONTEXT": "staging"
    }
    (about,) = asked
    assert about["base_url"] == "tcp://10.0.0.7:2376"
    assert about["tls"].cert == (str(certificates / "cert.pem"), str(certificates / "key.pem"))
    assert (about["tls"].ca_cert, about["tls"].verify) == (str(certificates / "ca.pem"), True)


def test_a_context_that_skips_verification_does_so_for_both(client):
    client(context(skip=True))

    found = docker_cli.daemon()

    assert (found.tls, found.verify) == (True, False)
    assert found.variables == {"DOCKER_CONTEXT": "staging"}


@pytest.mark.parametrize(("variable", "verify"), [("DOCKER_TLS_VERIFY", True), ("DOCKER_TLS", False)])
def test_tls_of_the_environment_is_used_by_both(monkeypatch, certificates, variable, verify):
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.7:2376")
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))

    found = docker_cli.daemon()

    assert found == Daemon(host="tcp://10.0.0.7:2376", tls=True, verify=verify, certificates=str(certificates))
    assert found.variables == {
        "DOCKER_HOST": "tcp://10.0.0.7:2376",
        variable: "1",
        "DOCKER_CERT_PATH": str(certificates),
    }


def test_tls_without_certificates_is_one_error(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.7:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")

    with pytest.raises(NotReady, match=rf"needs TLS, but {tmp_path}/config lacks ca\.pem: set DOCKER_CERT_PATH"):
        docker_cli.daemon()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_the_sdk_reaches_a_tcp_daemon_without_the_environments_proxy(monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    for bypass in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(bypass, raising=False)

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"ApiVersion": "1.41"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            return None

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request).start()
        client = sdk.connect(Daemon(host=f"tcp://127.0.0.1:{server.server_port}"))

    assert client.api.base_url == f"http://127.0.0.1:{server.server_port}"
    client.close()


def test_only_a_socks_proxy_for_all_reaches_the_docker_client(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.7:2375")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")

    environment = docker_cli.environment()

    assert "ALL_PROXY" not in environment
    assert environment["all_proxy"] == "socks5://127.0.0.1:9"


def test_invalid_certificates_are_one_error(certificates):
    with socket.create_server(("127.0.0.1", 0)) as listening:  # else the connection fails before TLS
        host = "tcp://{}:{}".format(*listening.getsockname())

        with pytest.raises(
            NotReady, match=rf"the Docker daemon at {host} does not answer: .* no certificate or crl found"
        ):
            sdk.connect(Daemon(host=host, tls=True, certificates=str(certificates)), timeout_s=2)


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"DOCKER_CONTEXT": "gone"}, r"DOCKER_CONTEXT is 'gone': set it to one of `docker context ls`, or unset it"),
        ({"DOCKER_TLS_VERIFY": "1"}, "set DOCKER_CERT_PATH to the folder of ca.pem"),
        ({}, "choose one of `docker context ls` with `docker context use`"),
    ],
)
def test_a_context_that_does_not_exist_is_an_error_and_not_the_default_daemon(client, monkeypatch, variables, advice):
    client(fails=GONE)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(NotReady, match=f"cannot determine which Docker daemon to use: .*context not found.*{advice}"):
        docker_cli.daemon()


@pytest.mark.parametrize("printed", [{"Name": "podman"}, {"no": "context"}])
def test_unexpected_output_of_docker_context_is_an_error(client, printed):
    client(printed)

    with pytest.raises(NotReady, match="cannot determine which Docker daemon to use"):
        docker_cli.daemon()


def test_only_an_unnamed_daemon_falls_back_to_the_local_runtime(client, monkeypatch):
    client(fails=GONE)
    assert choose_runtime("auto")[0] == "local"

    monkeypatch.setenv("DOCKER_CONTEXT", "gone")

    assert choose_runtime("auto") == ("compose", "the environment names a Docker daemon")


def test_docker_over_ssh_is_refused_with_a_way_out(client):
    client(context("far", "ssh://me@far"))

    with pytest.raises(
        NotReady, match=r"over ssh is not supported, and the current daemon is ssh://me@far: .*--chaos-runtime"
    ):
        docker_cli.require_engine()


@pytest.fixture
def silent(client, monkeypatch, tmp_path):
    """A docker client that reaches no daemon, and a home without sockets."""
    client(fails="Cannot connect to the Docker daemon")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def error(host):
        monkeypatch.setenv("DOCKER_HOST", host)
        with pytest.raises(NotReady) as refused:
            docker_cli.require_engine()
        return str(refused.value)

    return error


@pytest.mark.parametrize(
    ("host", "exempt", "is_named"),
    [
        ("tcp://docker:2375", "localhost", True),
        ("tcp://docker:2375", "localhost,docker", False),
        ("tcp://docker:2375", "127.0.0.0/8,10.0.0.0/8", True),
        ("tcp://docker:2375", "*", False),
        ("tcp://docker.ci.example:2375", ".example", False),
        ("tcp://10.0.0.7:2375", "127.0.0.0/8,10.0.0.0/8", False),
        ("tcp://127.0.0.1:2375", "", False),
        ("unix:///gone.sock", "", False),
    ],
)
def test_a_proxy_on_the_way_to_a_daemon_that_does_not_answer_is_named(silent, monkeypatch, host, exempt, is_named):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", exempt)

    assert (
        "through the proxy of the environment (HTTP_PROXY, HTTPS_PROXY): add docker to NO_PROXY" in silent(host)
    ) is is_named


@pytest.mark.parametrize("path", ["docker.sock", ".colima/default/docker.sock"])
def test_a_socket_of_another_daemon_of_this_user_is_named(silent, monkeypatch, tmp_path, path):
    there = tmp_path / path
    there.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(docker_cli.Path, "is_socket", lambda one: one == there and one.exists())
    assert "set DOCKER_HOST=unix" not in silent("unix:///gone.sock")
    there.touch()

    assert f"has the socket {there}: set DOCKER_HOST=unix://{there}; or start it" in silent("unix:///gone.sock")
    assert "set DOCKER_HOST=unix" not in silent(f"unix://{there}")


def test_the_docker_clients_error_about_an_odd_address_is_repeated(client, monkeypatch):
    client(fails="unable to parse docker host `foo`")
    monkeypatch.setenv("DOCKER_HOST", "foo")

    with pytest.raises(
        NotReady, match=r"no Docker daemon answers at foo: .*\(docker reports: unable to parse docker host `foo`\)"
    ):
        docker_cli.require_engine()


@pytest.mark.parametrize("runtime", ["auto", "compose"])
def test_a_session_with_a_misspelt_context_is_one_error_before_anything_starts(client, pytester, monkeypatch, runtime):
    client(fails=GONE)
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(test_scenario=SCENARIO.format(fault='faults.kill("api")'))

    result = pytester.runpytest_inprocess(
        "-p", "pytest_llmchaos.plugin", f"--chaos-runtime={runtime}", "--chaos-backend=sim"
    )

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: cannot determine which Docker daemon to use*DOCKER_CONTEXT is 'gone'*"])
    assert result.stderr.str().count("\n") == 1
