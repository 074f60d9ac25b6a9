"""The subject as processes under supervisord, without Docker."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.evidence.redaction import redact
from pytest_llmchaos.host.ports import Ports, given_port
from pytest_llmchaos.model import Environment, EventGap, RuntimeEvent, ServiceState, UndoOp
from pytest_llmchaos.runtime.configuring import ConfigureAbility
from pytest_llmchaos.runtime.json_log import at_of, with_torn
from pytest_llmchaos.runtime.local import cleanup
from pytest_llmchaos.runtime.local.compose_reader import Addresses, Program
from pytest_llmchaos.runtime.local.control import Control, Seen
from pytest_llmchaos.runtime.local.daemon import Daemon
from pytest_llmchaos.runtime.local.fault_agents import WireFaults, agent_name, death_gaps
from pytest_llmchaos.runtime.local.health import WATCH_EVERY_S, HealthWatch, healthy
from pytest_llmchaos.runtime.local.memory_limit import MemoryLimitable
from pytest_llmchaos.runtime.local.own_programs import OwnPrograms
from pytest_llmchaos.runtime.local.programs import Programs
from pytest_llmchaos.runtime.local.supervisord_config import EVENTS, Process, read_log, write_supervisord
from pytest_llmchaos.runtime.overload import OverloadAbility
from pytest_llmchaos.runtime.simulated_engine import ADMIN_PORT, BOOT_FILE, EngineAbility, EngineAnswer, ask_admin_port
from pytest_llmchaos.runtime.undo import UndoRegistry
from pytest_llmchaos.subject.lab import Subject

UP_DEADLINE_S = 60.0
CONFIGURE_GRACE_S = 1  # a drain is for clients, which are not there yet
_LOOK_EVERY_S = 0.05


class LocalRuntime(UndoRegistry, MemoryLimitable, EngineAbility, WireFaults, OverloadAbility, ConfigureAbility):
    """One supervisord that runs the lab's services in one folder.

    Every process has the name `llmchaos-...` of the run in its environment. A fault
    agent stands in the way of each service in `wire`, and of no other.
    """

    name = "local"
    services_run_as = "process, not container"
    dashboards = None

    def __init__(
        self,
        subject: Subject,
        *,
        project: str,
        run: str,  # noqa: ARG002 - for labels, which processes lack
        owner: str,
        directory: Path,
        wire: Collection[str] = (),
    ) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", project):
            raise BadScenario(f"a project name must consist of a-z, 0-9, '_' and '-', got {project!r}")
        self.subject = subject
        self.project = project
        self._owner = owner
        self._directory = directory.resolve()
        self._work = cleanup.work_folder(self._directory, project)
        self._wire = tuple(sorted(wire))
        self._wired: dict[str, int] = {}  # their ports in the compose file's numbers
        self._ports = Ports()
        self._addresses: Addresses | None = None
        self._set: Programs | OwnPrograms | None = None
        self._programs: dict[str, Program] = {}
        self._processes: list[Process] = []
        self._control = Control(self._work)
        self._daemon = Daemon(self._work, self._control)
        self._health = HealthWatch()
        self._forget_environment()

    def __repr__(self) -> str:
        return f"<local project {self.project}>"

    @property
    def abilities(self) -> frozenset[str]:
        own = {"kill", "stop", "start", "restart", "crash", "pause", "unpause", "limit_memory", "events", "configure"}
        provable = {"overload"} if self.subject.requests_query is not None else set()
        return frozenset(own | provable) | self.engine_abilities | self.agent_abilities

    def targets(self) -> tuple[str, ...]:
        return self.subject.targets

    def images(self) -> dict[str, str]:
        """Return each service's command without its options, for the fingerprint."""
        return {one.service: " ".join(w for w in one.command if not w.startswith("--")) for one in self._processes}

    def prepare(self) -> None:
        """Check everything that can fail before a start, and fetch what is missing.

        Raises:
            NotReady: a package, program or file is missing, or a port is in use.
            BadScenario: no fault agent can stand in the way of a service.
        """
        self._set = OwnPrograms(self.subject) if self.subject.own else self._of_lab()
        self._set.require()
        self._wired = self._set.wired(self._wire)
        self._addresses = Addresses(self._ports.reserve, self._ports_from_environment(), self._wired.items())
        self._programs = self._set.translate(self._work, self._addresses)

    def _of_lab(self) -> Programs:
        return Programs(
            stack=self.subject.compose_files[0].parent,
            files=self.subject.compose_files,
            backend=dict(self.subject.extra_env)["LLMCHAOS_BACKEND"],
            project=self.project,
            model=self.subject.model,
            profiles=self.subject.profiles,
            extra=dict(self.subject.extra_env),
        )

    def _ports_from_environment(self) -> dict[tuple[str, int], int]:
        found = {(service, port): given_port(variable) for service, variable, port in self.subject.ports if variable}
        return {place: given for place, given in found.items() if given is not None}

    def _reserve_addresses(self) -> Addresses:
        if self._addresses is None:
            raise NotReady("the local runtime is not prepared: call prepare() first")
        return self._addresses

    @property
    def _prepared(self) -> Programs | OwnPrograms:
        if self._set is None:
            raise NotReady("the local runtime is not prepared: call prepare() first")
        return self._set

    def up(self, *, remediator: bool = True) -> None:
        """Start everything and wait until the health checks pass.

        Raises:
            NotReady: a service did not become healthy. Has the end of its log.
        """
        if self._set is None:
            self.prepare()
        self._forget_environment()
        self._processes = self._prepared.processes(self._programs, self._work, self._reserve_addresses())
        agents = self._prepared.agents(self._wired, self._reserve_addresses())
        write_supervisord(self._work, [*agents, *self._processes])
        try:
            self._daemon.start(project=self.project, owner=self._owner, directory=self._directory)
            resting = {*self.subject.resting, *(() if remediator else (self.subject.remediator,))}
            wanted = [one for one in self._programs if one not in resting]
            for name in [*(agent.service for agent in agents), *wanted]:
                self._control.call("start", name)
            self._require_agents(tuple(self._wired))
            self._wait(wanted, self._up_deadline_s, dead_is_final=True)
        except BaseException:
            self.down()
            raise

    @property
    def _up_deadline_s(self) -> float:
        # The packages of an agent take 7 s of CPU to import.
        is_long = self.subject.own or self.subject.agents is not None
        return self.subject.startup_s if is_long else UP_DEADLINE_S

    def down(self) -> None:
        """End every process of the run. Logs are copied first."""
        with contextlib.suppress(OSError):
            self.keep_logs()
        self._health.close()
        self._health = HealthWatch()
        self._daemon.stop()
        cleanup.end_processes(self.project)
        cleanup.remove_folder(self._work)
        self._ports.close()
        self._addresses, self._set, self._programs = None, None, {}

    def logs(self, *, tail: int = 200) -> str:
        lines = []
        for log in sorted((self._work / "logs").glob("*.txt")):
            lines += [f"{log.stem} | {line}" for line in log.read_text(errors="replace").splitlines()[-tail:]]
        return redact("\n".join(lines))

    def keep_logs(self) -> None:
        cleanup.keep_logs(self._work, self._directory)

    def url(self, service: str) -> str:
        port = next(port for name, _, port in self.subject.ports if name == service)
        return f"http://{self._reserve_addresses().of(service, port)}"

    def state(self, service: str) -> ServiceState:
        return self.states().get(service) or ServiceState(service=service, running=False)

    def states(self) -> Mapping[str, ServiceState]:
        return {name: self._state(name, seen) for name, seen in self._control.inspect().items()}

    def _state(self, service: str, seen: Seen) -> ServiceState:
        watched = self._health.watches(service)
        return ServiceState(
            service=service,
            running=seen.running,
            paused=seen.paused,
            healthy=self._health.healthy_since(service, seen.started_unix_s) is not None if watched else None,
            health_every_s=WATCH_EVERY_S if watched else None,
            exit_code=seen.exit_code,
            started_unix_s=seen.started_unix_s,
            identity=f"{self.project}-{service}",
        )

    def events(self, since_unix_s: float, until_unix_s: float) -> Sequence[RuntimeEvent]:
        found = [
            RuntimeEvent(
                at_unix_s=at_of(line),
                service=str(line["service"]),
                action=str(line["action"]),
                attributes=_attributes(line),
                container=f"{self.project}-{line['service']}",
            )
            for line in read_log(self._work / EVENTS).lines
        ]
        agents = {agent_name(service) for service in self._wired}
        found = [event for event in found if event.service not in agents]
        found += self._health_events(found)
        inside = (event for event in found if since_unix_s <= event.at_unix_s <= until_unix_s)
        return sorted(inside, key=lambda event: event.at_unix_s)

    def event_gaps(self, since_unix_s: float, until_unix_s: float) -> Sequence[EventGap]:
        log = read_log(self._work / EVENTS)
        gaps = [
            EventGap(from_unix_s=begin, to_unix_s=min(end, until_unix_s), why=f"a line of {EVENTS} cannot be read")
            for begin, end in log.torn
        ]
        gaps += death_gaps(log.lines, self._wired, until_unix_s)
        return [gap for gap in gaps if gap.from_unix_s <= until_unix_s and gap.to_unix_s >= since_unix_s]

    def _health_events(self, events: Sequence[RuntimeEvent]) -> list[RuntimeEvent]:
        """First passed check of each start, as a container runtime reports it."""
        return [
            RuntimeEvent(at_unix_s=at, service=service, action="health_status", attributes={"detail": "healthy"})
            for service, at in self._health.passes(
                (event.service, event.at_unix_s) for event in events if event.action == "start"
            )
        ]

    def clock_offset_s(self) -> float | None:
        return None

    def audit(self) -> Sequence[Mapping[str, object]] | None:
        """Lines of the remediator's audit log, even after it stopped, or None."""
        program = self._programs.get(self.subject.remediator or "")
        path = Path(program.environment["LAB_AUDIT_FILE"]) if program else None
        return with_torn(read_log(path)) if path is not None and path.exists() else None

    def start_remediator(self) -> None:
        if self.subject.remediator:
            self._control.call("start", self.subject.remediator)
            self.wait_healthy([self.subject.remediator], UP_DEADLINE_S)

    def stop_remediator(self) -> None:
        if self.subject.remediator:
            self._control.call("kill", self.subject.remediator, "SIGKILL")
            self._control.wait_dead(self.subject.remediator)

    # Abilities: supervisord's acts on the process group of a service of this run.

    def kill(self, service: str) -> None:
        self._act("kill", service, "SIGKILL")

    def stop(self, service: str, grace_s: int) -> None:
        """Send SIGTERM, then SIGKILL after `grace_s` seconds or on an interrupt."""
        found = self._control.inspect().get(service)
        self._act("kill", service, "SIGTERM")
        self._await_end(service, found.pid if found else 0, grace_s)

    def _await_end(self, service: str, pid: int, grace_s: int) -> None:
        """Wait until a signalled process has ended. Kills one that is late.

        It may still end by itself before it is killed.
        """
        try:
            self._control.wait_dead(service, grace_s, pid=pid)
        except NotReady:
            self._control.call("kill", service, "SIGKILL")
            self._control.wait_dead(service, pid=pid)
        except (KeyboardInterrupt, SystemExit):
            self._control.call("kill", service, "SIGKILL")
            raise

    def start(self, service: str) -> None:
        self._control.call("start", service)

    def restart(self, service: str) -> None:
        self._watch(service)
        if self._control.call("kill", service, "SIGKILL"):
            self._control.wait_dead(service)
        self._control.call("start", service)
        self._control.call("note", service, "restart")

    def _require_restartable(self, services: Sequence[str]) -> None:
        unknown = sorted(set(services) - set(self._control.inspect()))
        if unknown:
            raise NotReady(
                f"{', '.join(unknown)} is no process of this stack: nothing was touched; start the run again"
            )

    def _runs(self, service: str) -> bool:
        return self.state(service).running

    def _restart_with(self, environment: Environment, running: Sequence[str], resting: Sequence[str]) -> None:
        """End the processes, and start them with supervisord's changed settings."""
        own = {one.service: one.environment for one in self._processes}
        for name in (*running, *resting):
            given = self._prepared.settings(name, environment.get(name, {}), self._work, self._reserve_addresses())
            self._control.call("configure", name, json.dumps({**own[name], **given}))
        found = self._control.inspect()
        for name in running:
            if found[name].paused:
                self._control.call("unpause", name)
            self._control.call("kill", name, "SIGTERM")
        for name in running:
            self._await_end(name, found[name].pid, CONFIGURE_GRACE_S)
            self._control.call("start", name)
        self._wait(running, self._up_deadline_s, dead_is_final=True)

    def pause(self, service: str) -> None:
        self._act("pause", service)

    def unpause(self, service: str) -> None:
        self._act("unpause", service)

    def crash(self, service: str) -> None:
        """Kill the service's first process directly, so supervisord sees it die."""
        self._act("crash", service)

    def _ask_engine(self, service: str, verb: str, argument: str = "") -> EngineAnswer:
        self._watch(service)
        return ask_admin_port(self._reserve_addresses().of(service, ADMIN_PORT), verb, argument)

    def _forget_boot_faults(self, service: str) -> None:
        folder = self._programs[service].environment.get("LAB_STATE_DIR")
        if folder:
            (Path(folder) / BOOT_FILE).unlink(missing_ok=True)

    def _watch(self, service: str) -> None:
        """Watch the health of a service that is hit: it must pass its own check."""
        program = self._programs.get(service)
        if program is not None and program.health is not None:
            self._health.watch(service, program.health)

    def _act(self, act: str, service: str, *arguments: str) -> None:
        self._watch(service)
        if not self._control.call(act, service, *arguments):
            raise NotReady(
                f"cannot {act} {service}: it {_in_words(self.state(service))}; nothing was touched; see its log"
            )

    @property
    def undo_ops(self) -> Mapping[str, UndoOp]:
        return {
            **super().undo_ops,
            **self.memory_undo_ops,
            **self.engine_undo_ops,
            **self.agent_undo_ops,
            **self.overload_undo_ops,
        }

    def wait_healthy(self, services: Sequence[str], deadline_s: float) -> None:
        """Wait until these services run and pass their own health checks.

        A service behind a fault agent must also accept connections through it.

        Raises:
            NotReady: one does not within `deadline_s` seconds. Names it.
        """
        self._wait(services, deadline_s, dead_is_final=False)

    def _wait(self, services: Sequence[str], deadline_s: float, *, dead_is_final: bool) -> None:
        deadline = time.monotonic() + deadline_s
        sick, model = list(services), self.subject.model
        while True:
            states = self.states()
            dead = [s for s in sick if s not in states or not states[s].running]
            sick = [
                s for s in sick if s in dead or not (healthy(self._programs[s].health, model) and self._is_reached(s))
            ]
            if not sick:
                return
            if (dead and dead_is_final) or time.monotonic() > deadline:
                name = (dead or sick)[0]
                raise NotReady(
                    f"{', '.join(dead or sick)} did not become healthy within {deadline_s:g} s; {name} "
                    f"{_in_words(states.get(name))} and its log ends:\n{self._log_end(name)}{self._agent_log_end(name)}"
                )
            time.sleep(_LOOK_EVERY_S)

    def _is_reached(self, service: str) -> bool:
        return service not in self._wired or self.wire_open(service) is not None

    def _served_port(self, service: str) -> int:
        return self._prepared.wired([service])[service]

    def _agent_log_end(self, service: str) -> str:
        """End of the log of the agent in a service's way, empty without one."""
        name = agent_name(service)
        return f"\n{name}'s log ends:\n{self._log_end(name)}" if service in self._wired else ""

    def _log_end(self, service: str) -> str:
        log = self._work / "logs" / f"{service}.txt"
        return log.read_text(errors="replace").strip()[-1500:] if log.exists() else "(no log)"


def _in_words(state: ServiceState | None) -> str:
    if state is None:
        return "is unknown"
    return ("is frozen" if state.paused else "runs") if state.running else f"has ended ({state.exit_code})"


def _attributes(line: Mapping[str, object]) -> dict[str, str]:
    found = line.get("attributes")
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
