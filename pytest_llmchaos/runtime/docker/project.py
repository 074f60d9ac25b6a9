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
from pytest_llmchaos.host.ports import given_port
from pytest_llmchaos.runtime.docker import docker_cli, reach
from pytest_llmchaos.runtime.docker.place import Place, of_daemon, require_files
from pytest_llmchaos.subject.lab import BACKENDS, Subject, dashboards_dir, setup_command

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
        self._env = {**self._image_env(), **dict(self._subject.extra_env)}
        for service, variable, _ in self._subject.ports:
            self.port_of[service] = given_port(variable, self._ports.is_free) or self._ports.reserve()
            self._env[variable] = str(self.port_of[service])
        if GRAFANA_IMAGE in self._env:
            self.port_of["grafana"] = self._ports.reserve()
            self._env["LLMCHAOS_GRAFANA_PORT"] = str(self.port_of["grafana"])
            self._env["LLMCHAOS_DASHBOARDS"] = str(dashboards_dir())
        self._env.setdefault("LLMCHAOS_DOCKER_GID", str(_socket_group()))
        self._env["LLMCHAOS_PROJECT"] = self.name
        self._require_images()

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
        done = subprocess.run(
            [sys.executable, str(self._subject.bootstrap), "env", "--backend", backend],
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

    def _require_images(self) -> None:
        text = docker_cli.run([*self.command(), "config", "--format", "json"], env=self.environment())
        require_files(self.place, reach.mounted_files(reach.read_config(text)))
        config = json.loads(text)
        missing = []
        for name, service in sorted(config["services"].items()):
            if "container_name" in service:
                raise BadScenario(
                    f"service {name!r} sets container_name {service['container_name']!r}, so two runs would collide: "
                    "remove it from the compose file"
                )
            image = service.get("image", "")
            check = ["docker", "image", "inspect", "--format", "{{.Id}}", image]
            if (
                image
                and subprocess.run(check, env=docker_cli.environment(), capture_output=True, check=False).returncode
                != 0
            ):
                missing.append(image)
        home_built = [image for image in missing if image.startswith("llmchaos/")]
        if home_built:
            command = setup_command(dict(self._subject.extra_env).get("LLMCHAOS_BACKEND", BACKENDS[0]))
            raise NotReady(f"image {', '.join(home_built)} is missing: run `{command}`")

    def environment(self) -> dict[str, str]:
        return docker_cli.environment(self._env)

    def _files(self) -> list[str]:
        files = [str(path) for path in self._subject.compose_files]
        override = self._directory / "compose.override.yaml"
        if override.exists():
            files.append(str(override))
        return files

    def command(self) -> list[str]:
        command = ["docker", "compose", "-p", self.name]
        for file in self._files():
            command += ["-f", file]
        if self._subject.remediator:
            command += ["--profile", "remediator"]
        if GRAFANA_IMAGE in self._env:
            command += ["--profile", "grafana"]
        return command

    def write_labels(self) -> None:
        """Write an override file with this run's labels on the project's own things.

        Shared networks and volumes are used as found. Raises BadScenario if the project
        reaches beyond itself in a way that `llmchaos_allow` does not permit.
        """
        text = docker_cli.run([*self.command(), "config", "--format", "json"], env=self.environment())
        config = reach.read_config(text)
        if self._subject.own and (problems := reach.problems(config, self._subject, self.name)):
            raise BadScenario(f"{self._subject.compose_files[0]}: " + "; ".join(problems))
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "compose.override.yaml").write_text(self._override(config))

    def _override(self, config: reach.Config) -> str:
        """Build the override: JSON values, which YAML reads, with Compose's tags."""
        labelled, shared = json.dumps({"labels": self._labels}), reach.shared_names(config, self.name)
        # An image named by Compose is this run's. One with `image:` is the user's.
        built = json.dumps({"labels": self._labels, "build": {"labels": self._labels}})
        lines = ["services:"]
        for service, about in config.services.items():
            lines.append(f"  {json.dumps(service)}: {built if about.build and not about.image else labelled}")
        for kind, found in (("networks", config.networks), ("volumes", config.volumes)):
            if found:
                lines.append(f"{kind}:")
            for key in found:
                # To label a shared network or volume, Compose would recreate it.
                name = shared[kind].get(key)
                value = f"!override {json.dumps({'external': True, 'name': name})}" if name else labelled
                lines.append(f"  {json.dumps(key)}: {value}")
        return "\n".join(lines) + "\n"


def _socket_group() -> int:
    host = docker_cli.docker_host()
    path = host.removeprefix("unix://") if host.startswith("unix://") else "/var/run/docker.sock"
    try:
        return os.stat(path).st_gid if stat.S_ISSOCK(os.stat(path).st_mode) else 0  # noqa: PTH116 - one stat, not an object
    except OSError:
        return 0
