"""Sessions on the smallest stack (`tiny/`): two containers, up in a second.

What a dead run leaves does not depend on what its services do: containers, networks,
limits, processes, a journal. So most deaths are tested here, and a few on the whole
lab.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from support import sessions
from support.gone import GONE_S, seconds_until_gone
from support.stacks import BOOTSTRAP
from support.waiting import until

from pytest_llmchaos.host import identity
from pytest_llmchaos.runtime.docker import docker_cli, restrictions

HERE = Path(__file__).parent / "tiny"

SCENARIO = '''
"""A desk that is hit."""
from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(
    load=loads.open_loop(rate_rps=10, max_tokens=2), fault=faults.{fault}, steady_s=1, stable_s=0.5{more}
)

def test_it(trial):
    assert trial.whole.offered
'''
INI = """
[pytest]
llmchaos_compose = compose.yaml
llmchaos_api = desk
llmchaos_targets = desk
llmchaos_slo = slo.yaml
"""
# The fake judge of a run has no sample, so its clients push nothing to it.
UNCOUNTED = """
from dataclasses import replace
from pytest_llmchaos.session import own_checks

examine = own_checks.preflight.examine
own_checks.preflight.examine = lambda subject: replace(examine(subject), pushgateway=None, scrape_jobs=())
"""
LASTING, PASSING = ", repair_within_s=1", ", settle_within_s=2, fault_s=0.5"
FAULTS = {
    "kill": ('kill("desk")', LASTING),
    "pause": ('pause("desk")', PASSING),
    "partition": ('partition("desk")', PASSING),
    "limit_cpu": ('limit_cpu("desk", cores=0.5)', PASSING),
    "limit_memory": ('limit_memory("desk", mebibytes=64)', PASSING),
    "flaky": ('flaky("desk", share=1.0)', PASSING),
}
# A hold that ends only when the test is finished with it.
LONG = ", settle_within_s=5, fault_s=90"


def image() -> str:
    """The lab's image of services, used for its Python only."""
    command = [sys.executable, str(BOOTSTRAP), "env", "--backend", "sim"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return str(json.loads(told)["LLMCHAOS_SERVICES_IMAGE"])


@functools.cache
def judge_images(base: str) -> dict[str, str]:
    """Images with fakes of what a run adds to a stack, up as fast as the desk.

    They are built once and stay, as the lab's own images.
    """
    content = (HERE / "desk.py").read_bytes()
    tag = hashlib.sha256(base.encode() + content).hexdigest()[:12]
    found = {}
    for name in ("prometheus", "pushgateway"):
        found[f"LLMCHAOS_{name.upper()}_IMAGE"] = image = f"llmchaos-tests/tiny-{name}:{tag}"
        if docker_cli.run(["docker", "image", "ls", "--quiet", image]):
            continue
        container = docker_cli.run(["docker", "create", base, "true"]).strip()
        try:
            docker_cli.run(["docker", "cp", str(HERE / "desk.py"), f"{container}:/desk.py"])
            docker_cli.run(["docker", "cp", str(HERE / "wget"), f"{container}:/usr/bin/wget"])
            words = json.dumps(["python3", "-S", "/desk.py", name])
            docker_cli.run(
                ["docker", "commit", "--change", f"ENTRYPOINT {words}", "--change", "CMD []", container, image]
            )
        finally:
            docker_cli.run(["docker", "rm", "--force", container])
    return found


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """One user's folder: a scenario, the stack's files, an ini file.

    `environment` names the image and the attached stack.
    """

    folder: Path
    environment: dict[str, str]

    @property
    def reports(self) -> Path:
        return self.folder / "reports"

    def scenario(self, name: str, fault: str, more: str) -> None:
        (self.folder / f"test_{name}.py").write_text(SCENARIO.format(fault=fault, more=more))

    def arguments(self, *more: str) -> list[str]:
        found = [str(self.folder), f"--rootdir={self.folder}", f"--confcutdir={self.folder}"]
        return [*found, "-c", str(self.folder / "pytest.ini"), *more]

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        return sessions.start(self.reports, *self.arguments(*more), env=self.environment)

    def run(self, *more: str, timeout_s: float = 90) -> tuple[int, str]:
        return sessions.run(self.reports, *self.arguments(*more), env=self.environment, timeout_s=timeout_s)


def make(
    folder: Path, image_name: str, *, fault: str = "", more: str = "", attach: bool = False, conftest: str = ""
) -> Tiny:
    """A fresh folder with one scenario. `fault` is a name of FAULTS."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder, *folder.parents[:3]):
        with suppress(PermissionError):
            path.chmod(0o755)  # containers run as uid 65534 and read `desk.py` there
    for name in ("compose.yaml", "desk.py", "slo.yaml"):
        shutil.copy(HERE / name, folder)
    (folder / "pytest.ini").write_text(INI + ("llmchaos_attach = true\n" if attach else ""))
    (folder / "conftest.py").write_text(UNCOUNTED + conftest)
    tiny = Tiny(folder=folder, environment={"TINY_IMAGE": image_name, **judge_images(image_name)})
    if fault:
        call, usual = FAULTS[fault]
        tiny.scenario("doomed", call, more or usual)
    return tiny


def project_of(pid: int) -> str:
    return identity.project_name(pid)


class Engine:
    """Docker, queried without a process per query. One per thread."""

    def __init__(self, host: str | None = None) -> None:
        self._client: Any = docker.DockerClient(base_url=host or docker_cli.docker_host(), timeout=20)

    def left(self, project: str) -> list[str]:
        """Containers, networks and volumes of a compose project."""
        chosen = {"label": f"com.docker.compose.project={project}"}
        found = [f"container {one['Names']}" for one in self._client.api.containers(all=True, filters=chosen)]
        found += [f"network {one['Name']}" for one in self._client.api.networks(filters=chosen)]
        found += [f"volume {one['Name']}" for one in self._client.api.volumes(filters=chosen)["Volumes"] or []]
        return sorted(found)

    def looks(self, project: str) -> list[Any]:
        """Parts of each container that a fault can change."""
        chosen = {"label": f"com.docker.compose.project={project}"}
        found = sorted(self._client.containers.list(all=True, filters=chosen), key=lambda one: one.name)
        return [(one.id, one.status, _comparable(restrictions.as_found(one))) for one in found]

    def agents(self, project: str) -> list[str]:
        """Names of fault agents at containers of a compose project."""
        chosen = {"label": f"com.docker.compose.project={project}"}
        ids = [one["Id"] for one in self._client.api.containers(all=True, filters=chosen)]
        labels = [f"llmchaos.agent.container={id_}" for id_ in ids]
        found = [self._client.api.containers(all=True, filters={"label": label}) for label in labels]
        return [one["Names"][0] for some in found for one in some]

    def acted_on(self, project: str, since_s: float) -> set[str]:
        """Names of a project's containers that a fault or a revert changed."""
        chosen = {"label": f"com.docker.compose.project={project}"}
        names = {one["Id"]: one["Names"][0][1:] for one in self._client.api.containers(all=True, filters=chosen)}
        acts = {"event": ["kill", "die", "start", "pause", "unpause", "update", "connect", "disconnect"]}
        with closing(self._client.events(since=since_s, until=time.time(), filters=acts, decode=True)) as told:
            ids = {event["Actor"]["Attributes"].get("container", event["Actor"]["ID"]) for event in told}
        return {names[one] for one in ids if one in names}

    def last_start_s(self, project: str) -> float:
        """Monotonic time of the last start of a container of a compose project.

        Docker removes no container whose start it has begun. Seven of them take 2.8 s
        on two cores, and the death of Compose does not stop them.
        """
        chosen = {"type": "container", "event": "start", "label": f"com.docker.compose.project={project}"}
        until_s = time.time()
        with closing(self._client.events(since=int(until_s - 120), until=until_s, filters=chosen, decode=True)) as told:
            return max((event["timeNano"] / 1e9 for event in told), default=0.0) - until_s + time.monotonic()

    def close(self) -> None:
        self._client.close()


def _comparable(found: restrictions.AsFound) -> Any:
    networks = {name: sorted(about["aliases"]) for name, about in found.networks.items()}
    return networks, found.cpus_nano, found.cpu_quota_us, found.memory_bytes, found.swap_bytes


def pids_of(folder: Path) -> list[int]:
    """Processes of sessions of this folder: watchdog, clients, compose commands."""
    mark, found = str(folder).encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = (process / "cmdline").read_bytes() + b"\0" + (process / "environ").read_bytes()
            if mark in told and int(process.name) != os.getpid() and identity.process_started(int(process.name)):
                found.append(int(process.name))
    return found


def processes_of(folder: Path) -> list[str]:
    """Descriptions of these processes."""
    found = []
    for pid in pids_of(folder):
        with suppress(OSError):
            found.append(f"process {pid}: {Path(f'/proc/{pid}/cmdline').read_bytes()[:120]!r}")
    return found


def clean_after_s(tiny: Tiny, project: str, engine: Engine, died_s: float, *, gone_s: float = GONE_S) -> float:
    """Seconds from a death until nothing of the session is left.

    Fails if they are too many. The watchdog checks twice, because a command that died
    may still create something, and ends after that.
    """

    def left() -> list[str]:
        processes = [one for one in processes_of(tiny.folder) if "pytest_llmchaos.cleanup.watchdog" not in one]
        return [*engine.left(project), *processes]

    took_s = seconds_until_gone(left, died_s, last_start_s=lambda: engine.last_start_s(project), gone_s=gone_s)
    until(lambda: not processes_of(tiny.folder), "the watchdog has ended", 10)
    return took_s
