"""Start, stop and overhead of a trial, in each runtime.

The engine is simulated. Up ends when every service is healthy, remediator included.
Down ends when nothing of the stack is left. `beyond` is the wall time of a kill_api
trial on a warm stack less its phases, which the system itself needed. It is split into
the time before the first request, between the phases, and after the last. `steady` is
the phase that also waits for the client alerts of the trial before. Its minimum is 4 s.
The first trial of a stack does not count: Prometheus takes its first scrape 5 s after
its own start. `held` is the delay from a message that the fault agent holds to the
runtime, the 99th percentile of 200: so much later a fault at a message begins.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from figures import Figure, figure, publish

from pytest_llmchaos import experiment, faults, loads
from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.evidence.journal import Written, lines
from pytest_llmchaos.evidence.journal_lines import AnchorSet, PhaseEnd
from pytest_llmchaos.host import identity
from pytest_llmchaos.plan.schedule import plan_trial
from pytest_llmchaos.runtime.docker.compose import ComposeRuntime
from pytest_llmchaos.runtime.local.runtime import LocalRuntime
from pytest_llmchaos.session.progress import Progress
from pytest_llmchaos.session.run import Run
from pytest_llmchaos.session.settings import Settings
from pytest_llmchaos.subject.lab import lab_subject
from pytest_llmchaos.trial.perform import perform

RUNTIMES: dict[str, type[ComposeRuntime | LocalRuntime]] = {"compose": ComposeRuntime, "local": LocalRuntime}
GOALS = {
    ("compose", "up"): 5.0,
    ("compose", "down"): 1.0,
    ("compose", "beyond"): 5.0,
    ("compose", "held"): 0.02,
    ("local", "up"): 3.0,
    ("local", "down"): 0.5,
    ("local", "beyond"): 3.0,
    ("local", "held"): 0.02,
}
# With the uncounted one 4 restarts of the API. At the next, ServiceFlapping would fire,
# and the trial after would wait for it.
TRIALS = 3
WHAT = ("prepare", "up", "down", "steady", "beyond", "before", "between", "after", "held")
HELD = 200
CLIENT_WAITS_S = 0.01  # so that the runtime waits before the message comes


def stack_times(name: str, number: int, backend: str) -> dict[str, float]:
    """Seconds to prepare, come up and go down."""
    with tempfile.TemporaryDirectory() as directory:
        runtime = RUNTIMES[name](
            lab_subject(backend),
            project=f"llmchaos-bench-{os.getpid()}-{number}",
            run="bench",
            owner=identity.owner_label(),
            directory=Path(directory),
        )
        begin = time.monotonic()
        runtime.prepare()
        prepared = time.monotonic()
        try:
            runtime.up(remediator=True)
            up = time.monotonic()
        finally:
            down_from = time.monotonic()
            runtime.down()
        return {"prepare": prepared - begin, "up": up - prepared, "down": time.monotonic() - down_from}


def held_times(name: str, backend: str) -> list[dict[str, float]]:
    """Seconds from each held message of the API until the runtime has learned of it."""
    with tempfile.TemporaryDirectory() as directory:
        subject, owner = lab_subject(backend), identity.owner_label()
        project, folder = f"llmchaos-bench-{os.getpid()}-held", Path(directory)
        runtime = (
            LocalRuntime(subject, project=project, run="bench", owner=owner, directory=folder, wire=["api"])
            if name == LocalRuntime.name
            else ComposeRuntime(subject, project=project, run="bench", owner=owner, directory=folder)
        )
        runtime.prepare()
        try:
            runtime.up(remediator=False)
            runtime.wire_arm(["api"])
            return [{"held": _held_s(runtime)} for _ in range(HELD)]
        finally:
            runtime.down()


def _held_s(runtime: LocalRuntime | ComposeRuntime) -> float:
    held = runtime.wire_start("api", "hold", lease_s=20, seed=0, event="received")
    client = threading.Timer(CLIENT_WAITS_S, _post, [runtime.url("api")])
    client.start()
    state = runtime.wire_wait("api", held, 10)
    learned_unix_s = time.time()
    runtime.wire_end("api", held)
    client.join()
    if state is None or state.hit_unix_s is None:
        raise NotReady(f"the fault agent of {runtime.project} held no message within 10 s: is the API up?")
    return learned_unix_s - state.hit_unix_s


def _post(url: str) -> None:
    """Send a request that the API refuses at once."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request("POST", "/v1/chat/completions", body=b"{}")
    connection.getresponse().read()
    connection.close()


def trial_times(name: str, repeat: int, backend: str) -> list[dict[str, float]]:
    """Seconds beyond its phases of each trial of kill_api, at most TRIALS of them."""
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(
            run="bench",
            seed=42,
            runtime=name,
            backend=backend,
            reports=Path(directory),
            repeat=repeat,
            worker="",
            replay_line="python benchmarks/runtimes.py",
        )
        run = Run(settings, Progress(None, tty=False))
        try:
            run.preflight()
            run.announce([])
            return [_trial(run, number) for number in range(min(repeat, TRIALS) + 1)][1:]
        finally:
            run.close(0)


def _trial(run: Run, number: int) -> dict[str, float]:
    lab, fault = run.lab(), faults.kill("api")
    load = loads.open_loop(rate_rps=2 if run.settings.backend != "sim" else 10, max_tokens=8)
    made = experiment(load=load, fault=fault, steady_s=4)
    plan = plan_trial(
        scenario="kill_api",
        hypothesis="",
        experiment=made.kwargs["experiment"],
        fault=fault,
        repeat=number,
        seed=42,
        services=lab.subject.targets,
    )
    begin_unix_s, begin_s = time.time(), time.perf_counter()
    trial = perform(lab, plan).require()
    took_s = time.perf_counter() - begin_s
    mine = [written.line for written in lines(run.journal.path) if isinstance(written, Written)]
    phases = [line for line in mine if isinstance(line, PhaseEnd) and line.trial == trial.name]
    anchor = next(line for line in mine if isinstance(line, AnchorSet) and line.trial == trial.name)
    in_phases_s = sum(phase.to_s - phase.from_s for phase in phases)
    before_s = anchor.unix_s - begin_unix_s
    return {
        "steady": phases[0].to_s - phases[0].from_s,
        "beyond": took_s - in_phases_s,
        "before": before_s,
        "between": phases[-1].to_s - in_phases_s,
        "after": took_s - before_s - phases[-1].to_s,
    }


def measured(name: str, repeat: int, backend: str) -> dict[str, list[float]]:
    """Every figure of one runtime with its values.

    Raises:
        NotReady: this machine cannot run that runtime.
    """
    rows = [stack_times(name, number, backend) for number in range(repeat)]
    rows += held_times(name, backend) + trial_times(name, repeat, backend)
    return {what: [row[what] for row in rows if what in row] for what in WHAT}


def figures_of(name: str, seen: dict[str, list[float]]) -> dict[str, Figure]:
    found = {}
    for what, values in seen.items():
        goal = GOALS.get((name, what))
        limit = None if goal is None else f"<= {goal:g}"
        shown = sorted(values)[int(0.99 * len(values)) - 1] if what == "held" else statistics.median(values)
        found[f"{name} {what}"] = figure(shown, "s", limit, worst=round(max(values), 3))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--repeat", type=int, default=5, help="how many stacks of each runtime, and trials up to 3 (default 5)"
    )
    parser.add_argument("--backend", default="sim", help="sim (default), llamacpp or ollama")
    parser.add_argument("--runtime", choices=sorted(RUNTIMES), help="only this one")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON line at the end")
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{chosen.backend}, {chosen.repeat} times each, {os.cpu_count()} cores, load average {load:.1f} before")
    figures: dict[str, Figure] = {}
    print(f"{'median (worst) s':<18}" + "".join(f"{what:>15}" for what in WHAT))
    for name in [chosen.runtime] if chosen.runtime else sorted(RUNTIMES):
        try:
            seen = measured(name, chosen.repeat, chosen.backend)
        except NotReady as error:
            print(f"{name:<18}cannot run here: {error}")
            continue
        figures |= figures_of(name, seen)
        print(f"{name:<18}" + "".join(f"{statistics.median(v):>7.2f} ({max(v):5.2f})" for v in seen.values()))
    publish("runtimes", figures, as_json=chosen.json)
    return 0 if figures else 2


if __name__ == "__main__":
    sys.exit(main())
