"""Docker and Compose commands: find Docker, run, list."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence.redaction import redact
from pytest_llmchaos.runtime.docker import engine
from pytest_llmchaos.subject.lab import setup_command

SETUP = f"run `{setup_command()}` (Debian as root), or install Docker Engine with Compose v2"
ANSWER_DEADLINE_S = 15.0
_PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """Address and TLS settings of a Docker daemon.

    The docker client resolves contexts and the SDK does not, so both get this.
    """

    host: str
    tls: bool = False
    verify: bool = True
    """True if the daemon's certificate must be signed by `ca.pem`."""
    certificates: str = ""
    """Folder of `ca.pem`, `cert.pem` and `key.pem`."""
    context: str = ""
    """The docker context with the TLS settings, if variables cannot express them."""

    @property
    def variables(self) -> dict[str, str]:
        """Environment of the docker client. `DOCKER_HOST` disables a context's TLS."""
        if self.context:
            return {"DOCKER_CONTEXT": self.context}
        tls = {"DOCKER_TLS_VERIFY" if self.verify else "DOCKER_TLS": "1", "DOCKER_CERT_PATH": self.certificates}
        return {"DOCKER_HOST": self.host, **(tls if self.tls else {})}


def daemon() -> Daemon:
    """Return the daemon that `docker` reaches: DOCKER_HOST, else the current context.

    Raises:
        NotReady: the context does not exist, or TLS is on and ca.pem is missing.
    """
    host = os.environ.get("DOCKER_HOST")
    found = _by_environment(host) if host else _of_context()
    if found.tls and not found.context and not Path(found.certificates, "ca.pem").is_file():
        raise NotReady(
            f"the Docker daemon at {found.host} needs TLS, but {found.certificates} lacks ca.pem: "
            "set DOCKER_CERT_PATH to the folder of ca.pem, cert.pem and key.pem, or unset DOCKER_TLS_VERIFY"
        )
    return found


def is_named() -> bool:
    """True if the environment names a daemon or how to reach it."""
    return any(os.environ.get(name) for name in _VARIABLES)


def docker_host() -> str:
    """The daemon's address."""
    return daemon().host


def _by_environment(host: str) -> Daemon:
    """Apply the docker client's rules: any text but "" in the variables means TLS."""
    folder = os.environ.get("DOCKER_CERT_PATH") or os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    verify = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    tls = verify or bool(os.environ.get("DOCKER_TLS"))
    return Daemon(host=host, tls=tls, verify=verify, certificates=folder) if tls else Daemon(host=host)


def is_wanted() -> bool:
    """True if there is a docker client or DOCKER_HOST is set."""
    return shutil.which("docker") is not None or bool(os.environ.get("DOCKER_HOST"))


def on_this_kernel() -> bool:
    """True if the daemon's address is a unix socket, so on this machine."""
    return docker_host().startswith("unix://")


@functools.cache  # else each of our commands would start two processes
def _of_context() -> Daemon:
    if shutil.which("docker") is None:
        return Daemon(host="unix:///var/run/docker.sock")
    command = ["docker", "context", "inspect"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        raise NotReady(
            f"`{' '.join(command)}` did not end within 10 s: set DOCKER_HOST to the daemon's address"
        ) from None
    try:
        (context,) = msgspec.json.decode(done.stdout if done.returncode == 0 else "", type=tuple[_Context])
        endpoint = context.endpoints["docker"]
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        why = done.stderr.strip()[-500:] or f"{error}, in {done.stdout:.200}"
        raise NotReady(
            f"cannot determine which Docker daemon to use: `{' '.join(command)}` ended with {done.returncode}: {why}; "
            f"{_context_advice()}"
        ) from None
    if context.name == "default":
        return _by_environment(endpoint.host)
    if not (endpoint.skip_tls_verify or "docker" in context.tls_material):
        return Daemon(host=endpoint.host)
    return Daemon(
        host=endpoint.host,
        tls=True,
        verify=not endpoint.skip_tls_verify,
        certificates=str(Path(context.storage.tls_path, "docker")),
        context=context.name,
    )


def _context_advice() -> str:
    """The most likely remedy."""
    if os.environ.get("DOCKER_CONTEXT"):
        return f"DOCKER_CONTEXT is {os.environ['DOCKER_CONTEXT']!r}: set it to one of `docker context ls`, or unset it"
    if os.environ.get("DOCKER_TLS_VERIFY") or os.environ.get("DOCKER_TLS"):
        return "set DOCKER_CERT_PATH to the folder of ca.pem, cert.pem and key.pem, or unset DOCKER_TLS_VERIFY and DOCKER_TLS"
    return "choose one of `docker context ls` with `docker context use`"


class _Endpoint(msgspec.Struct, rename="pascal"):
    host: str
    skip_tls_verify: bool = msgspec.field(name="SkipTLSVerify", default=False)


class _Storage(msgspec.Struct):
    tls_path: str = msgspec.field(name="TLSPath", default="")


class _Context(msgspec.Struct, rename="pascal"):
    """Output of `docker context inspect`."""

    name: str
    endpoints: dict[str, _Endpoint]
    storage: _Storage
    tls_material: dict[str, list[str]] = msgspec.field(name="TLSMaterial", default={})


_VARIABLES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


def environment(extra: Mapping[str, str] | None = None, *, of: Daemon | None = None) -> dict[str, str]:
    """Environment of a command for the daemon `of`, by default the current one."""
    # Compose refuses to start with a value of ALL_PROXY other than SOCKS.
    useless = {name for name in ("ALL_PROXY", "all_proxy") if os.environ.get(name, "").startswith("http")}
    inherited = {name: value for name, value in os.environ.items() if name not in {*_VARIABLES, *useless}}
    return {**inherited, **(of or daemon()).variables, **(extra or {})}


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
    folder: Path | None = None,
) -> str:
    """Run one docker command and return its standard output.

    Args:
        command: Words of the command.
        env: Its environment. By default that of the current daemon.
        timeout_s: Seconds that it may take.
        folder: Its current directory, or None for this process' own.

    Raises:
        NotReady: with the command, its exit status and the end of its output.
    """
    try:
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(env) if env else environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the docker client has Compose as a child
        )
    except FileNotFoundError:
        raise NotReady(f"the docker client is not on PATH: {SETUP}") from None
    with process:
        try:
            out, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise NotReady(
                f"`{' '.join(command)}` did not end within {timeout_s:g} s: restart the Docker daemon if it hangs, or write "
                "the compose file shorter if it has very many aliases"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        said = redact((errors or out).strip())[-2000:]
        raise NotReady(f"`{redact(' '.join(command))}` ended with {process.returncode}: {said}")
    return out


def require_engine() -> None:
    """Check that Docker answers this user and Compose v2 is installed.

    Raises:
        NotReady: names what is missing and how to fix it.
    """
    host = docker_host()
    if host.startswith("ssh://"):
        raise NotReady(
            f"Docker over ssh is not supported, and the current daemon is {host}: run pytest on that machine, set DOCKER_HOST or "
            "DOCKER_CONTEXT to a daemon of this machine or to a tcp:// address with TLS, or use --chaos-runtime=local"
        )
    if shutil.which("docker") is None:
        raise NotReady(f"the docker client is not on PATH: {SETUP}, or use --chaos-runtime=local")
    done = _answer("version", "--format", "{{json .Server}}")
    if done.returncode != 0:
        if "permission denied" in done.stderr.lower():
            raise NotReady(
                f"no permission to use the Docker daemon at {host}: add yourself to its group "
                "(`sudo usermod -aG docker $USER`, then log in again), or use --chaos-runtime=local"
            )
        raise NotReady(
            f"no Docker daemon answers at {host}: {_remedy(host)}start it or {SETUP}, or use --chaos-runtime=local"
            f"{_words_of(done.stderr)}"
        )
    if podman := engine.podman_version(done.stdout):
        raise NotReady(
            f"the daemon at {host} is Podman {podman}, which lacks calls of Docker that faults need (`docker update`): "
            "set DOCKER_HOST or DOCKER_CONTEXT to a Docker daemon, or use --chaos-runtime=local"
        )
    version = _answer("compose", "version", "--short")
    if version.returncode != 0 or not version.stdout.strip().lstrip("v").startswith(("2", "3", "4", "5")):
        raise NotReady(f"Compose v2 is missing (`docker compose version` failed): {SETUP}")
    _require_able(daemon())


@functools.cache  # a session calls this several times, and `docker info` takes 0.1 s
def _require_able(of: Daemon) -> None:
    """Check that the daemon can do what trials need. Raises NotReady."""
    if engine.lacks_control_groups(_answer("info", "--format", "{{json .}}").stdout):
        raise NotReady(
            f"the rootless Docker daemon at {of.host} has no control groups, so it can neither pause containers nor limit "
            "them: boot the machine with cgroup v2 and systemd, use the system's daemon, or use --chaos-runtime=local"
        )


def _remedy(host: str) -> str:
    """The likely cause of a daemon that does not answer, or ""."""
    address = urlsplit(host)
    if address.scheme == "tcp" and address.hostname:
        # Go's clients reach loopback without a proxy.
        is_proxied = any(os.environ.get(name) for name in _PROXIES) and not _is_exempt(address.hostname)
        if is_proxied and address.hostname not in ("localhost", "127.0.0.1", "::1"):
            return (
                "docker sends even this through the proxy of the environment (HTTP_PROXY, HTTPS_PROXY): add "
                f"{address.hostname} to NO_PROXY; or "
            )
    if address.scheme != "unix":
        return ""
    others = [path for path in _other_sockets() if f"unix://{path}" != host and path.is_socket()]
    return (
        f"a daemon of this user has the socket {others[0]}: set DOCKER_HOST=unix://{others[0]}; or " if others else ""
    )


def _is_exempt(host: str) -> bool:
    """True if NO_PROXY has the host, its domain, or the network of its address."""
    entries = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").replace(" ", "").split(",")
    for entry in filter(None, entries):
        if entry in ("*", host) or host.endswith(f".{entry.lstrip('.')}"):
            return True
        with contextlib.suppress(ValueError):  # a name, which no network has
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
    return False


def _other_sockets() -> list[Path]:
    """Sockets of rootless Docker, Docker Desktop, Colima and Rancher."""
    home, run = Path.home(), Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    at_home = (
        ".docker/run/docker.sock",
        ".docker/desktop/docker.sock",
        ".colima/default/docker.sock",
        ".rd/docker.sock",
    )
    return [Path("/var/run/docker.sock"), run / "docker.sock", *(home / path for path in at_home)]


def _words_of(stderr: str) -> str:
    """The client's last line of errors, unless it only repeats ours."""
    words = stderr.strip().splitlines()[-1:]
    return "".join(f" (docker reports: {line[:300]})" for line in words if "Cannot connect" not in line)


def _answer(*words: str) -> subprocess.CompletedProcess[str]:
    """Query the daemon, whatever the exit status. Raises NotReady if it hangs."""
    try:
        return subprocess.run(
            ["docker", *words],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotReady(
            f"the Docker daemon at {docker_host()} did not answer within {ANSWER_DEADLINE_S:g} s: restart it, "
            "or use --chaos-runtime=local"
        ) from None


def has_image(reference: str) -> bool:
    """True if the daemon has an image of this name or digest."""
    try:
        run(["docker", "image", "inspect", "--format", "{{.Id}}", reference])
    except NotReady:
        return False
    return True


def list_images(*filters: str) -> list[tuple[list[str], dict[str, str]]]:
    """Names and labels of the images that match the filters.

    Empty if an image was removed in between.
    """
    command = ["docker", "image", "ls", "--quiet", *(word for one in filters for word in ("--filter", one))]
    found = list(dict.fromkeys(run(command, timeout_s=ANSWER_DEADLINE_S).split()))
    if not found:
        return []
    about = '{"Labels": {{json .Config.Labels}}, "Tags": {{json .RepoTags}}}'
    try:
        said = run(["docker", "image", "inspect", "--format", about, *found], timeout_s=ANSWER_DEADLINE_S)
    except NotReady as error:
        if "No such image" in str(error):
            return []
        raise
    rows = [json.loads(line) for line in said.splitlines() if line.strip()]
    return [(row["Tags"] or [], row["Labels"] or {}) for row in rows]


def list_rows(kind: str, *filters: str) -> list[dict[str, object]]:
    """Rows of `docker <kind> ls` for these filters, parsed from JSON."""
    command = ["docker", kind, "ls", "--format", "{{json .}}"]
    if kind == "container":
        command.append("--all")
    for one in filters:
        command += ["--filter", one]
    return [json.loads(line) for line in run(command, timeout_s=ANSWER_DEADLINE_S).splitlines() if line.strip()]
