"""The load generator's input: its plan, its schedule and their files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.loads.agent_tasks import AgentTasks
from pytest_llmchaos.loads.arrivals import Arrival, FirstToken, Impatience
from pytest_llmchaos.subject.headers import Header, headers_of
from pytest_llmchaos.subject.requests import Requests

# The environment variable with the folder of the plan and of the generator's files.
DIRECTORY_VARIABLE = "LLMCHAOS_LOAD_DIRECTORY"
# The environment variable with a JSON list of header lines, which no file keeps.
HEADERS_VARIABLE = "LLMCHAOS_LOAD_HEADERS"
# The file GO starts the load. The program is launched a second earlier.
PLAN, SCHEDULE, GO = "plan.json", "schedule.jsonl", "go"
# The file HURRY ends the load without waiting for open requests, if it is not judged.
HURRY = "hurry"


def own(name: str, worker: int | None) -> str:
    """A worker's file name, such as `samples-1.jsonl`, or `samples.jsonl` for None."""
    stem, dot, suffix = name.partition(".")
    return name if worker is None else f"{stem}-{worker}{dot}{suffix}"


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """One load on one service.

    Attributes:
        url: the service's address, without the path.
        model: the value of `model` in each request.
        arrivals: the requests, by due time.
        name: value of the label `load` of the clients' counters. No label if empty.
        requests: path, headers, TLS, dialect and template of each request.
        replica_header: response header that names the replica.
        ready_path: path to read once a second. The status codes are recorded.
        stream: True to stream answers.
        check: "sim-v1" compares each answer with the text that the simulated engine
            derives from the prompt.
        timeout_s: seconds from the due time until a client gives up.
        idle_timeout_s: seconds without a byte after which a client gives up, or None.
        stall_s: a stream that was silent for this long at its timeout is `stalled`. One
            that still sent tokens is a `timeout`.
        first_token: "content" waits for the answer's own text. "any" also accepts
            reasoning, a tool call or a refusal.
        impatience: clients that leave early, or None.
        tasks: tasks of an agent in place of chat requests, or None.
        good_ttft_s: seconds to the first token of a good request.
        good_e2e_s: seconds to the end of a good request.
        push_url: address of a pushgateway for the clients' counters, or None.
        serve_port: local port that serves the counters, or None.
        drain_s: longest wait for open requests at the end of the load. A request is
            waited for until it ends or exceeds `good_ttft_s` (`good_e2e_s` after its
            first token), a task until its deadline.
        processes: number of processes that share the load.
        max_inflight: requests beyond so many open ones are not sent but counted as
            shed. One of them makes the trial invalid.
    """

    url: str
    model: str
    arrivals: tuple[Arrival, ...]
    name: str = ""
    requests: Requests = field(default_factory=Requests)
    replica_header: str | None = None
    ready_path: str | None = None
    stream: bool = True
    check: str | None = None
    timeout_s: float = 10.0
    idle_timeout_s: float | None = None
    stall_s: float = 2.0
    first_token: FirstToken = "any"
    impatience: Impatience | None = None
    tasks: AgentTasks | None = None
    good_ttft_s: float = 2.0
    good_e2e_s: float = 10.0
    push_url: str | None = None
    serve_port: int | None = None
    drain_s: float = 30.0
    processes: int = 1
    max_inflight: int = 5000

    def __post_init__(self) -> None:
        self._check_addresses()
        if not self.arrivals:
            raise BadScenario("LoadPlan: arrivals must not be empty, because a load without requests proves nothing")
        if any(a.due_s > b.due_s for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)):
            raise BadScenario("LoadPlan: arrivals must be in order of due_s")
        if self.check not in (None, "sim-v1"):
            raise BadScenario(f'LoadPlan: check must be None or "sim-v1", got {self.check!r}')
        if self.requests.dialect != "chat" and not (self.stream and self.check is None):
            raise BadScenario(
                f"LoadPlan: the dialect {self.requests.dialect} has streams alone, got stream={self.stream!r} "
                f"and check={self.check!r}"
            )
        if self.first_token not in ("any", "content"):
            raise BadScenario(f'LoadPlan: first_token must be "any" or "content", got {self.first_token!r}')
        for name, least in (("timeout_s", 0), ("stall_s", 0), ("good_ttft_s", 0), ("good_e2e_s", 0)):
            if not getattr(self, name) > least:
                raise BadScenario(f"LoadPlan: {name} must be above {least}, got {getattr(self, name)!r}")
        if self.idle_timeout_s is not None and not self.idle_timeout_s > 0:
            raise BadScenario(f"LoadPlan: idle_timeout_s must be above 0, got {self.idle_timeout_s!r}")
        for name, least in (("drain_s", 0), ("processes", 1), ("max_inflight", 1)):
            if not getattr(self, name) >= least:
                raise BadScenario(f"LoadPlan: {name} must be at least {least}, got {getattr(self, name)!r}")

    def _check_addresses(self) -> None:
        for name, url in (("url", self.url), ("push_url", self.push_url)):
            parts = urlsplit(url or "http://unset")
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise BadScenario(f"LoadPlan: {name} must look like http://127.0.0.1:8000, got {url!r}")
        path = self.ready_path
        if path is not None and (not path.startswith("/") or not path.isascii() or set(path) & set(" \r\n")):
            raise BadScenario(f"LoadPlan: ready_path must begin with / and be one word, got {path!r}")

    @property
    def longest_s(self) -> float:
        """Seconds after which the generator must be done.

        Later the kernel's alarm ends it.
        """
        return self.arrivals[-1].due_s + self.timeout_s + self.drain_s + 30

    def write(self, directory: Path, parent_pid: int | None = None) -> None:
        """Write the plan's files.

        Args:
            directory: the folder that the generator reads.
            parent_pid: process whose end also ends the load, or None.
        """
        about = {key: value for key, value in asdict(self).items() if key != "arrivals"}
        requests = self.requests
        about["requests"] = {
            "dialect": requests.dialect,
            "path": requests.path,
            "headers": [header.name for header in requests.headers],
            "tls": requests.tls,
            "template": None if requests.template is None else str(requests.template),
        }
        (directory / PLAN).write_text(json.dumps({**about, "parent_pid": parent_pid}))
        with (directory / SCHEDULE).open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(arrival)}\n" for arrival in self.arrivals)


def load(directory: Path) -> tuple[LoadPlan, int | None]:
    """Read the plan in `directory` and the `parent_pid` that `write` was given."""
    about: dict[str, Any] = json.loads((directory / PLAN).read_text())
    parent_pid = about.pop("parent_pid", None)
    about["requests"] = _requests(about["requests"])
    if about.get("impatience") is not None:
        about["impatience"] = Impatience(**about["impatience"])
    if about.get("tasks") is not None:
        about["tasks"] = AgentTasks(
            **{**about["tasks"], **{name: tuple(about["tasks"][name]) for name in ("tools", "reads")}}
        )
    with (directory / SCHEDULE).open(encoding="utf-8") as lines:
        return LoadPlan(arrivals=tuple(read_schedule(lines)), **about), parent_pid


def header_variable(headers: Sequence[Header]) -> dict[str, str]:
    """The environment variable that gives the headers to the generator's process.

    Values are not written to files. `$VARIABLE` in them is replaced by the generator.
    """
    lines = [f"{header.name}: {header.value}" for header in headers]
    return {HEADERS_VARIABLE: json.dumps(lines)} if lines else {}


def _requests(about: dict[str, Any]) -> Requests:
    """The requests of a plan, with headers from this process' environment."""
    headers = headers_of(json.loads(os.environ.get(HEADERS_VARIABLE, "[]")))
    if lacking := sorted(set(about["headers"]) - {header.name for header in headers}):
        raise NotReady(
            f"{PLAN} names the header {', '.join(lacking)}: set {HEADERS_VARIABLE} to a JSON list of header lines"
        )
    template = about["template"]
    return Requests(**{**about, "headers": headers, "template": None if template is None else Path(template)})


def read_schedule(lines: Iterable[str]) -> Iterator[Arrival]:
    """Parse the schedule's lines."""
    for line in lines:
        due_s, prompt, max_tokens = json.loads(line)
        yield Arrival(float(due_s), str(prompt), int(max_tokens))
