"""Settings of one Compose project: files, environment, ports, labels."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.host.ports import accepts_connections, bracketed, given_port
from pytest_llmchaos.model import Environment
from pytest_llmchaos.runtime.docker import docker_cli, judge, override, reach
from pytest_llmchaos.runtime.docker.place import Place, of_daemon, require_files
from pytest_llmchaos.runtime.docker.user_files import UserFiles
from pytest_llmchaos.subject.backends import BACKENDS
from pytest_llmchaos.subject.lab import Subject, dashboards_dir, setup_command

GRAFANA_IMAGE = "LLMCHAOS_GRAFANA_IMAGE"  # the setup sets it only if the image is available


class ComposeProject:
    """One compose project. `labels` go onto everything. `prepare` sets `port_of`."""

    def __init__(self, subject: Subject, *, name: str, labels: Mapping[str, str], directory: Path) -> None:
        self._subject = subject
        self.name = name
        self._labels = dict(labels)
        self._directory = directory
        self.place = Place()
        self._ports = self.place.ports()
        self._env: dict[str, str] = {}
        self.port_of: dict[str, int] = {}
        self.services: dict[str, Mapping[str, object]] = {}  # all that start, as `docker compose config` prints them
        self._text = ""  # the output of `docker compose config`

    def close(self) -> None:
        """Free the reserved ports."""
        self._ports.close()
        self.port_of = {}

    def prepare(self) -> None:
        """Check everything that can fail before a start.

        Raises:
            NotReady: Docker does not answer or refuses permission, an image is missing,
                or a port is in use.
        """
        docker_cli.require_engine()
        self._find_place()
        self._env = {**self._image_env(), **dict(self._subject.extra_env), **self._own_env()}
        for service, variable, _ in self._subject.ports:
            given = given_port(variable, self._ports.is_free) if variable else None
            self.port_of[service] = given or self._ports.reserve()
            if variable:
                self._env[variable] = str(self.port_of[service])
        if GRAFANA_IMAGE in self._env:
            self.port_of["grafana"] = self._ports.reserve()
            self._env["LLMCHAOS_GRAFANA_PORT"] = str(self.port_of["grafana"])
            self._env["LLMCHAOS_DASHBOARDS"] = str(dashboards_dir())
        self._env.setdefault("LLMCHAOS_DOCKER_GID", str(_socket_group()))
        self._env |= {"LLMCHAOS_PROJECT": self.name, "LLMCHAOS_LOOPBACK": bracketed(self.place.publish)}
        self._text = text = self._config()
        config = reach.read_config(text)
        require_files(self.place, reach.mounted_files(config))
        if self._subject.bootstrap is not None:
            self._require_images(text)
        if self._subject.brings_judge:
            self._note_host_ports(config)

    def _find_place(self) -> None:
        self.place = of_daemon(docker_cli.daemon(), self._subject.published_on, publishes=self._subject.own)
        if self.place.elsewhere and not self._subject.own:
            raise NotReady(
                f"{self.place.elsewhere}, and the lab must be on a Docker daemon of this machine, because it mounts files "
                "and Docker's socket: use --chaos-runtime=local, or set DOCKER_HOST or DOCKER_CONTEXT to such a daemon"
            )
        self._ports = self.place.ports()

    def _image_env(self) -> dict[str, str]:
        if self._subject.bootstrap is None:
            return {}
        backend = dict(self._subject.extra_env)["LLMCHAOS_BACKEND"]
        more = ["--agents"] if self._subject.agents is not None else []
        done = subprocess.run(
            [sys.executable, str(self._subject.bootstrap), "env", "--backend", backend, *more],
            env=docker_cli.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise NotReady(done.stderr.strip() or f"{self._subject.bootstrap} env ended with {done.returncode}")
        return {str(k): os.environ.get(str(k), str(v)) for k, v in json.loads(done.stdout).items()}

    @property
    def folder(self) -> Path:
        """The folder in which Compose's commands run."""
        return self._subject.compose_files[0].parent if self._subject.compose_files else Path()

    def _own_env(self) -> dict[str, str]:
        if not self._subject.brings_judge:
            return {}
        return UserFiles(self._subject.compose_files).environment(self.name, self._subject.profiles)

    def _config(self) -> str:
        command = [*self.command(), "config", "--format", "json"]
        return docker_cli.run(command, env=self.environment(), folder=self.folder)

    def _entries(self) -> dict[str, str]:
        """The entry of `ports` of each service that is reached from this machine."""
        inside = {service: port for service, _, port in self._subject.ports}
        return {name: self.place.entry(port, inside[name]) for name, port in self.port_of.items() if name in inside}

    def _note_host_ports(self, config: reach.Config) -> None:
        """Take a service's own port if it is in the host's network.

        Raises NotReady if another program listens there, which would be measured.
        """
        for service, _, inside in self._subject.ports:
            if service in config.services and reach.is_in_host_network(config, service):
                self.port_of[service] = inside
                if accepts_connections(self.place.reach, inside):
                    raise NotReady(
                        f"{service} is in the host's network, and another program listens at its port {inside}, which would "
                        "be measured in its place: stop that program, such as a stack of yours, or give the service another port"
                    )

    def _require_images(self, text: str) -> None:
        config = json.loads(text)
        images = (str(service.get("image", "")) for _, service in sorted(config["services"].items()))
        missing = [image for image in images if image and not docker_cli.has_image(image)]
        home_built = [image for image in missing if image.startswith("llmchaos/")]
        if home_built:
            command = setup_command(dict(self._subject.extra_env).get("LLMCHAOS_BACKEND", BACKENDS[0]))
            raise NotReady(f"image {', '.join(home_built)} is missing: run `{command}`")

    def environment(self) -> dict[str, str]:
        return docker_cli.environment(self._env)

    def _files(self) -> list[str]:
        files = [str(path) for path in self._subject.compose_files]
        files += [str(path) for path in (self._override, self._environment) if path.exists()]
        return files

    @property
    def _override(self) -> Path:
        return self._directory / "compose.override.yaml"

    @property
    def _environment(self) -> Path:
        """The override with variables that an experiment gives to services."""
        return self._directory / "compose.environment.yaml"

    def command(self) -> list[str]:
        command = ["docker", "compose", "-p", self.name]
        for file in self._files():
            command += ["-f", file]
        if self._subject.remediator and not self._subject.own:
            command += ["--profile", "remediator"]
        if not self._subject.own:
            command += [word for profile in self._subject.profiles for word in ("--profile", profile)]
        if GRAFANA_IMAGE in self._env:
            command += ["--profile", "grafana"]
        return command

    def write_override(self) -> None:
        """Write the file that makes the project this run's own.

        Shared networks and volumes are used as found. Raises BadScenario if the project
        reaches beyond itself in a way that `llmchaos_allow` does not permit.
        """
        self.write_environment({})
        # A user may have changed a file while the run waited for its turn.
        text = self._config() if self._subject.own or not self._text else self._text
        config = reach.read_config(text)
        self.services = json.loads(text).get("services") or {}
        if self._subject.own and (problems := reach.problems(config, self._subject, self.name)):
            raise BadScenario(f"{self._subject.compose_files[0]}: " + "; ".join(problems))
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._subject.brings_judge:
            entries = self._entries()
            added = judge.services(config, self._subject, self._labels, entries)
            self.services |= added
            laid = override.own_override(config, self._subject, self.name, self._labels, published=entries, added=added)
        else:
            laid = override.lab_override(config, self.name, self._labels)
        self._override.write_text(laid)

    def write_environment(self, environment: Environment) -> None:
        """Give services further variables from their next creation on."""
        if environment:
            self._environment.write_text(override.environment_override(environment))
        else:
            self._environment.unlink(missing_ok=True)


def _socket_group() -> int:
    host = docker_cli.docker_host()
    path = host.removeprefix("unix://") if host.startswith("unix://") else "/var/run/docker.sock"
    try:
        return os.stat(path).st_gid if stat.S_ISSOCK(os.stat(path).st_mode) else 0  # noqa: PTH116 - one stat, not an object
    except OSError:
        return 0
