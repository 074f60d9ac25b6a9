"""Docker daemons behind TLS, by context and by environment."""

import os
import subprocess

import pytest
from support.second_daemon import second_daemon

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host import ports
from pytest_llmchaos.runtime.docker import docker_cli, sdk
from pytest_llmchaos.runtime.docker.events import EventReader
from pytest_llmchaos.runtime.docker.members import Members

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

SIGN = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2"]


def openssl(folder, *words):
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Certificates of an authority, a server and a client."""
    folder = tmp_path_factory.mktemp("tls")
    new = ["-newkey", "rsa:2048", "-nodes", "-subj"]
    openssl(folder, "req", "-x509", *new, "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2")
    (folder / "server.ext").write_text("subjectAltName=IP:127.0.0.1\n")
    (folder / "client.ext").write_text("extendedKeyUsage=clientAuth\n")
    for name, stem in (("server", "server-"), ("client", "")):
        openssl(folder, "req", *new, f"/CN={name}", "-keyout", f"{stem}key.pem", "-out", f"{name}.csr")
        signed = ["-req", "-in", f"{name}.csr", *SIGN, "-extfile", f"{name}.ext"]
        openssl(folder, "x509", *signed, "-out", f"{stem}cert.pem")
    return folder


@pytest.fixture(scope="module")
def address(certificates, tmp_path_factory):
    """Address of a daemon that requires a client certificate."""
    reserved = ports.Ports()
    host = f"tcp://127.0.0.1:{reserved.reserve()}"
    reserved.close()
    options = ["--host", host, "--tlsverify", "--tlscacert", f"{certificates}/ca.pem"]
    options += ["--tlscert", f"{certificates}/server-cert.pem", "--tlskey", f"{certificates}/server-key.pem"]
    with second_daemon(tmp_path_factory.mktemp("daemon"), *options):
        yield host


@pytest.fixture(autouse=True)
def shell(monkeypatch, tmp_path):
    """An environment without this shell's Docker settings."""
    for name in docker_cli._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    plugins = f'{{"cliPluginsExtraDirs": ["{os.path.expanduser("~/.docker/cli-plugins")}"]}}'  # noqa: PTH111 - for Compose
    (tmp_path / "config.json").write_text(plugins)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "config.json"))  # as behind a company's proxy
    docker_cli._of_context.cache_clear()
    yield monkeypatch
    docker_cli._of_context.cache_clear()


def create(name, about):
    subprocess.run(["docker", "context", "create", name, "--docker", about], check=True, capture_output=True)


def require_reached(address, name):
    """Reach the daemon by commands, by the SDK and by the event reader."""
    docker_cli.require_engine()
    assert docker_cli.docker_host() == address
    told = docker_cli.run(["docker", "info", "--format", "{{.ID}}"]).strip()
    client = sdk.connect(docker_cli.daemon())
    assert client.info()["ID"] == told, name
    client.close()
    reader = EventReader(docker_cli.daemon(), Members(project="shop"))
    reader.start()
    reader.close()


def test_a_context_with_certificates_is_used_by_all(shell, address, certificates):
    create("tls", f"host={address},ca={certificates}/ca.pem,cert={certificates}/cert.pem,key={certificates}/key.pem")
    shell.setenv("DOCKER_CONTEXT", "tls")

    require_reached(address, "tls")


def test_a_context_that_skips_verification_is_used_by_all(shell, address, certificates):
    material = f"cert={certificates}/cert.pem,key={certificates}/key.pem"
    create("skips", f"host={address},{material},skip-tls-verify=true")
    shell.setenv("DOCKER_CONTEXT", "skips")

    require_reached(address, "skips")


def test_certificates_of_the_environment_are_used_by_all(shell, address, certificates):
    shell.setenv("DOCKER_HOST", address)
    shell.setenv("DOCKER_TLS_VERIFY", "1")
    shell.setenv("DOCKER_CERT_PATH", str(certificates))

    require_reached(address, "environment")


def test_a_missing_client_certificate_is_one_error(shell, address):
    shell.setenv("DOCKER_HOST", address)

    with pytest.raises(NotReady, match=r"no Docker daemon answers at .*HTTP request to an HTTPS server"):
        docker_cli.require_engine()
    with pytest.raises(NotReady, match="does not answer"):
        sdk.connect(docker_cli.daemon())
