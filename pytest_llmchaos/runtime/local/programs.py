"""Programs and settings of the lab's services on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.host.ports import loopback
from pytest_llmchaos.runtime.local import fault_agents, prerequisites
from pytest_llmchaos.runtime.local.compose_reader import Addresses, Program, Translator, probe_of, read_services
from pytest_llmchaos.runtime.local.control import SOCKET
from pytest_llmchaos.runtime.local.supervisord_config import Process, python_path, write_prometheus

OPTIONAL = frozenset({"grafana"})  # a compose profile that the local runtime lacks
_ALWAYS = frozenset({"remediator"})  # a compose profile that the local runtime always has
WEIGHTS_LOCK = Path("services") / "requirements-weights.lock"
AGENTS_LOCK = Path("services") / "requirements-agents.lock"
SIM_METRICS = "LLMCHAOS_SIM_METRICS"  # the server whose names the simulated engine's metrics have
_MODELS = ("model-1", "model-2", "model-3", "model-4")
# Services with packages of their own.
_AGENTS = ("agent", "desk")


class Programs:
    """The lab's services as processes, read from the same compose files."""

    def __init__(
        self,
        *,
        stack: Path,
        files: tuple[Path, ...],
        backend: str,
        project: str,
        model: str,
        profiles: tuple[str, ...] = (),
        extra: Mapping[str, str] | None = None,
    ) -> None:
        variables = {**(extra or {})}
        variables |= {"COMPOSE_PROJECT_NAME": project, "LLMCHAOS_BACKEND": backend, "LLMCHAOS_SIM_PROFILE": "fast"}
        if SIM_METRICS in os.environ:
            variables[SIM_METRICS] = os.environ[SIM_METRICS]
        # The files require them, and processes need none.
        variables |= dict.fromkeys(("LLMCHAOS_MODEL_IMAGE", "LLMCHAOS_SERVICES_IMAGE", "LLMCHAOS_AGENTS_IMAGE"), "none")
        found = read_services(files, variables)
        on = {*profiles, *_ALWAYS}
        self._services = {
            name: service
            for name, service in found.items()
            if name not in OPTIONAL and (not service.get("profiles") or on & set(service["profiles"]))
        }
        self._stack, self._backend, self._model = stack, backend, model
        self._lock = stack / WEIGHTS_LOCK

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._services)

    def require(self) -> None:
        """Find or fetch everything that the services need. Raises NotReady."""
        prerequisites.require_packages(self._backend)
        require_judge()
        if self._backend == "llamacpp":
            prerequisites.weights(self._lock)
        elif self._backend == "ollama":
            prerequisites.ollama_models(prerequisites.ollama_program(), self._model, self._lock)
        if set(_AGENTS) & set(self._services):
            self._agents_packages()

    def _agents_packages(self) -> Path:
        return prerequisites.agents_packages(self._stack / AGENTS_LOCK)

    def translate(self, work: Path, addresses: Addresses) -> dict[str, Program]:
        translator = self._translator(work, addresses)
        return {name: translator.program(name, service) for name, service in self._services.items()}

    def _translator(self, work: Path, addresses: Addresses) -> Translator:
        return Translator(stack=self._stack, work=work, addresses=addresses, services=self.names)

    def settings(self, name: str, variables: Mapping[str, str], work: Path, addresses: Addresses) -> dict[str, str]:
        """Translate variables of a service, written as in the compose file."""
        return self._translator(work, addresses).settings(name, self._services[name], variables)

    def processes(self, programs: Mapping[str, Program], work: Path, addresses: Addresses) -> list[Process]:
        """Build the processes for supervisord. Creates their settings and folders."""
        found = [self._process(program, work, addresses) for program in programs.values()]
        make_folders(programs.values(), work)
        return found

    def wired(self, services: Iterable[str]) -> dict[str, int]:
        """Port of each service, in the compose file's numbers, for its fault agent.

        Raises BadScenario for a service without a health check, whose port is unknown.
        """
        found: dict[str, int] = {}
        for name in services:
            probe = probe_of(self._services.get(name) or {})
            if probe is None:
                raise BadScenario(
                    f"no fault agent can stand in the way of {name!r}: it must be a service whose health check requests a "
                    f"port, services are {', '.join(self.names)}; choose another target"
                )
            found[name] = probe.port
        return found

    def agents(self, wired: Mapping[str, int], addresses: Addresses) -> list[Process]:
        """Build the fault agents' processes for supervisord."""
        return [agent_process(name, port, addresses, self._stack) for name, port in wired.items()]

    def _process(self, program: Program, work: Path, addresses: Addresses) -> Process:
        name, scratch = program.service, work / "tmp" / program.service
        scratch.mkdir(parents=True, exist_ok=True)
        extra = {"TMPDIR": str(scratch), "HOME": str(scratch)}
        match name:
            case "prometheus":
                command = self._prometheus(work, addresses)
            case "pushgateway":
                command = pushgateway_command(addresses.own(name, 9091))
            case "docker-proxy":
                extra["LAB_SUPERVISOR_SOCKET"] = SOCKET
                extra["LAB_PORT"] = str(addresses.own_port(name, 2375))
                extra["LAB_METRICS_PORT"] = str(addresses.own_port(name, 8404))
                command = (sys.executable, "-m", "lab_supervisor_proxy")
            case "remediator":
                # Probes name services. Here a service has an address instead.
                for service in ("api", *(one for one in _MODELS if one in self._services)):
                    addresses.of(service, 8000 if service == "api" else 8080)
                extra["LAB_ADDRESSES"] = ",".join(f"{k}={v}" for k, v in addresses.known().items())
                api = self._services["api"].get("environment") or {}
                extra |= {k: str(v) for k, v in api.items() if k == "LAB_HEALTH_PATH"}  # one lab, one health path
                command = _python(program)
            case _ if name in _MODELS and self._backend != "sim":
                command = self._model_server(name, extra, addresses)
            case _:
                command = _python(program)
        if name in _MODELS and self._backend == "sim":
            extra["LAB_ADMIN_PORT"] = str(addresses.own_port(name, 8081))
        extra |= _python_settings(self._stack)
        if name in _AGENTS:
            extra["PYTHONPATH"] = os.pathsep.join([str(self._agents_packages()), extra["PYTHONPATH"]])
        return Process(
            service=name, command=command, environment={**program.environment, **extra}, background=program.background
        )

    def _prometheus(self, work: Path, addresses: Addresses) -> tuple[str, ...]:
        config = write_prometheus(work, self._stack, self._backend, addresses, self.names)
        return prometheus_command(config, addresses.own("prometheus", 9090))

    def _model_server(self, name: str, extra: dict[str, str], addresses: Addresses) -> tuple[str, ...]:
        """Entry point and environment that the images of these backends define."""
        if self._backend == "llamacpp":
            extra["LAB_MODEL"] = self._model
            extra["LAB_MODEL_FILE"] = str(prerequisites.weights(self._lock))
            return (sys.executable, "-m", "lab_llamacpp")
        program = prerequisites.ollama_program()
        extra["OLLAMA_HOST"] = addresses.own(name, 8080)
        extra["OLLAMA_MODELS"] = str(prerequisites.ollama_models(program, self._model, self._lock))
        extra |= {"OLLAMA_NOPRUNE": "1", "OLLAMA_KEEP_ALIVE": "-1", "OLLAMA_NUM_PARALLEL": "2"}
        extra |= {"OLLAMA_MAX_QUEUE": "32", "OLLAMA_CONTEXT_LENGTH": "1024"}
        return (str(program), "serve")


def require_judge() -> None:
    """Find or fetch the programs that judge a run. Raises NotReady."""
    for program in ("prometheus", "prometheus-pushgateway"):
        prerequisites.server(program)


def prometheus_command(config: Path, address: str) -> tuple[str, ...]:
    """Return Prometheus' command. Its data are next to its configuration."""
    return (
        str(prerequisites.server("prometheus")),
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        "--storage.tsdb.retention.time=1d",
        f"--web.listen-address={address}",
        "--log.level=warn",
    )


def pushgateway_command(address: str) -> tuple[str, ...]:
    return (str(prerequisites.server("prometheus-pushgateway")), f"--web.listen-address={address}")


def make_folders(programs: Iterable[Program], work: Path) -> None:
    """Create the programs' folders below the run's own."""
    for program in programs:
        for folder in program.folders.values():
            if Path(folder).is_relative_to(work):
                Path(folder).mkdir(parents=True, exist_ok=True)


def agent_process(service: str, port: int, addresses: Addresses, stack: Path) -> Process:
    """Build the process of the fault agent in the way of a service's port."""
    return Process(
        service=fault_agents.agent_name(service),
        command=(sys.executable, "-m", "fault_agent"),
        environment={
            "LAB_TARGET": service,
            "LAB_HOST": loopback(),
            "LAB_PORT": str(addresses.port(service, port)),
            "LAB_UPSTREAM": addresses.own(service, port),
            # The kernel accepts no socket path above 107 bytes.
            "LAB_CONTROL": f"/proc/self/cwd/{fault_agents.socket_name(service)}",
            **_python_settings(stack),
        },
        restarts=True,
    )


def _python_settings(stack: Path) -> dict[str, str]:
    switched_on = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {"PYTHONPATH": python_path(stack / "services"), **switched_on}


def _python(program: Program) -> tuple[str, ...]:
    """Command of a Python service of the lab, with this interpreter."""
    if program.command[:1] != ("python3",):
        raise BadScenario(
            f"service {program.service!r} must run python3 to run locally, its command is "
            f"{' '.join(program.command) or 'in its image'!r}: use --chaos-runtime=compose"
        )
    return (sys.executable, *program.command[1:])
