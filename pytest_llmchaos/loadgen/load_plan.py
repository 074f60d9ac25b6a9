"""The load generator's input: its plan, its schedule and their files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.loads.arrivals import Arrival, FirstToken, Impatience

# The environment variable with the folder of the plan and of the generator's files.
DIRECTORY_VARIABLE = "LLMCHAOS_LOAD_DIRECTORY"
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
        path: the path of chat completions.
        headers: added to each request.
        replica_header: response header that names the replica.
        ready_path: path to read once a second. The status codes are recorded.
        stream: True to stream answers.
        check: "sim-v1" compares each answer with the text that the simulated engine
            derives from the prompt.
        timeout_s: seconds from the due time until a client gives up.
        stall_s: a stream that was silent for this long at its timeout is `stalled`. One
            that still sent tokens is a `timeout`.
        first_token: "content" waits for the answer's own text. "any" also accepts
            reasoning, a tool call or a refusal.
        impatience: clients that leave early, or None.
        good_ttft_s: seconds to the first token of a good request.
        good_e2e_s: seconds to the end of a good request.
        push_url: address of a pushgateway for the clients' counters, or None.
        serve_port: local port that serves the counters, or None.
        drain_s: longest wait for open requests at the end of the load. A request is
            waited for until it ends or exceeds `good_ttft_s` (`good_e2e_s` after its
            first token).
        processes: number of processes that share the load.
        max_inflight: requests beyond so many open ones are not sent but counted as
            shed. One of them makes the trial invalid.
    """

    url: str
    model: str
    arrivals: tuple[Arrival, ...]
    name: str = ""
    path: str = "/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)
    replica_header: str | None = None
    ready_path: str | None = None
    stream: bool = True
    check: str | None = None
    timeout_s: float = 10.0
    stall_s: float = 2.0
    first_token: FirstToken = "any"
    impatience: Impatience | None = None
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
        if self.first_token not in ("any", "content"):
            raise BadScenario(f'LoadPlan: first_token must be "any" or "content", got {self.first_token!r}')
        for name, least in (("timeout_s", 0), ("stall_s", 0), ("good_ttft_s", 0), ("good_e2e_s", 0)):
            if not getattr(self, name) > least:
                raise BadScenario(f"LoadPlan: {name} must be above {least}, got {getattr(self, name)!r}")
        for name, least in (("drain_s", 0), ("processes", 1), ("max_inflight", 1)):
            if not getattr(self, name) >= least:
                raise BadScenario(f"LoadPlan: {name} must be at least {least}, got {getattr(self, name)!r}")
        self._check_headers()

    def _check_addresses(self) -> None:
        for name, url in (("url", self.url), ("push_url", self.push_url)):
            parts = urlsplit(url or "http://unset")
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise BadScenario(f"LoadPlan: {name} must look like http://127.0.0.1:8000, got {url!r}")
        for name, path in (("path", self.path), ("ready_path", self.ready_path)):
            if path is not None and (not path.startswith("/") or not path.isascii() or set(path) & set(" \r\n")):
                raise BadScenario(f"LoadPlan: {name} must begin with / and be one word, got {path!r}")

    def _check_headers(self) -> None:
        for name, value in self.headers.items():
            if not name.isascii() or not value.isascii() or set("\r\n") & set(name + value):
                raise BadScenario(f"LoadPlan: header {name!r} must be plain ASCII on one line, got {value!r}")

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
        (directory / PLAN).write_text(json.dumps({**about, "parent_pid": parent_pid}))
        with (directory / SCHEDULE).open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(arrival)}\n" for arrival in self.arrivals)


def load(directory: Path) -> tuple[LoadPlan, int | None]:
    """Read the plan in `directory` and the `parent_pid` that `write` was given."""
    about: dict[str, Any] = json.loads((directory / PLAN).read_text())
    parent_pid = about.pop("parent_pid", None)
    if about.get("impatience") is not None:
        about["impatience"] = Impatience(**about["impatience"])
    with (directory / SCHEDULE).open(encoding="utf-8") as lines:
        return LoadPlan(arrivals=tuple(read_schedule(lines)), **about), parent_pid


def read_schedule(lines: Iterable[str]) -> Iterator[Arrival]:
    """Parse the schedule's lines."""
    for line in lines:
        due_s, prompt, max_tokens = json.loads(line)
        yield Arrival(float(due_s), str(prompt), int(max_tokens))
