"""Pages of faults and loads."""

from __future__ import annotations

import random
from collections.abc import Callable

from pytest_llmchaos import faults
from pytest_llmchaos.loads.prompts import BUILT_IN
from pytest_llmchaos.model import Fault
from reference_pages.docstrings import Source, class_entry, function_entry
from reference_pages.markdown import bullets, page, prose

Variants = tuple[tuple[str, Callable[[], Fault]], ...]

# Calls whose faults have different properties, and calls with required arguments.
# Other faults have one variant, `faults.NAME("model-1")`.
VARIANTS: dict[str, Variants] = {
    "limit_cpu": (("", lambda: faults.limit_cpu("model-1", cores=0.1)),),
    "limit_memory": (("", lambda: faults.limit_memory("model-1", mebibytes=64)),),
    "gpu_exhaustion": (
        ('what="device_memory"', lambda: faults.gpu_exhaustion("model-1")),
        ('what="kv_cache"', lambda: faults.gpu_exhaustion("model-1", what="kv_cache")),
    ),
    "partition": (
        ("how=None", lambda: faults.partition("model-1")),
        ('how="drop"', lambda: faults.partition("model-1", how="drop")),
        ('how="reject"', lambda: faults.partition("model-1", how="reject")),
    ),
    "latency": (("", lambda: faults.latency("model-1", delay_s=0.5)),),
    "bandwidth": (("", lambda: faults.bandwidth("model-1", bytes_per_s=1000)),),
    "late_first_token": (("", lambda: faults.late_first_token("model-1", delay_s=2)),),
    "slow_drip": (("", lambda: faults.slow_drip("model-1", every_s=0.1)),),
    "slow_error": (("", lambda: faults.slow_error("model-1", delay_s=5)),),
    "scrape_gap": (("", lambda: faults.scrape_gap("model-1", of="judge")),),
    "stale_metrics": (("", lambda: faults.stale_metrics("model-1", of="judge")),),
    "tool": (("", lambda: faults.tool("model-1", how="lost_answer")),),
    "xid": (
        ('engine="dies"', lambda: faults.xid("model-1")),
        ('engine="errors"', lambda: faults.xid("model-1", engine="errors")),
        ('engine="survives"', lambda: faults.xid("model-1", engine="survives")),
    ),
}
COMPOSITIONS = ("together", "sequence", "random", "timed", "every_boundary")
LOADS = ("open_loop", "poisson", "ramp", "burst", "sine", "trace", "tasks")
FAULTS_INTRO = """\
Every fault takes a `target`: a service's name, a name with `*` at its end (one service of that
name's beginning, drawn by the seed), or a list of either (all of them at once).

- **Lifetime**: a `lasting` fault stays until the system repairs it. The instrument reverts a
  `passing` fault after `fault_s` seconds.
- **Fidelity**: `real` is the act itself, `kernel` a restriction by the kernel, `proxy` an act
  of the fault agent in the way of the service, `simulated` an effect in the simulated engine
  (`--chaos-backend sim`).
- **Expected signal**: what should show the fault.
- **Abilities** are those of the runtime. A trial whose runtime lacks one is skipped.
- **Reverted by** names the operation in the journal, which the run, its watchdog or
  `llmchaos heal` performs.

[How to choose and write faults](../faults.md) has the alerts that each fault raises in the lab.
"""
LOADS_INTRO = """\
Clients send requests on schedule, whatever the answers do (an open loop). Latency counts from
the time at which a request was due. [How to choose a load](../load.md) has examples.
"""


def faults_page(source: Source) -> str:
    """Return the page of all faults."""
    parts = [FAULTS_INTRO]
    for name in (*faults.CATALOGUE, "none", *COMPOSITIONS):
        made = faults.__dict__[name]
        function = source.function(f"{made.__module__.removeprefix('pytest_llmchaos.')}.{name}")
        parts += [f"## `{name}`", function_entry(source, f"faults.{name}", function)]
        if name not in COMPOSITIONS:
            parts += [text for call, make in _variants(name) if (text := _properties(call, make()))]
    parts += [
        "## `match`",
        function_entry(source, "faults.match", source.function("faults.wire_match.match")),
        "## `foreign`",
        function_entry(source, "faults.foreign", source.function("faults.foreign")),
    ]
    return page("Faults", *parts)


def _variants(name: str) -> Variants:
    if name == "none":
        return (("", faults.none),)
    return VARIANTS.get(name, (("", lambda: faults.__dict__[name]("model-1")),))


def _properties(call: str, fault: Fault) -> str:
    """Return what a fault declares of itself.

    Of a fault with one form its docstring has lifetime, fidelity and signals, which
    `tests/test_reference.py` compares with the code.
    """
    needs = ", ".join(f"`{one}`" for one in sorted(fault.needs))
    acts = fault.plan(random.Random(0), ["model-1"])
    undos = ", ".join(f"`{act.fault.undo('model-1').op}`" for act in acts)
    sentences = [f"Needs the abilities {needs}."] * bool(needs) + [f"Reverted by {undos}."] * bool(undos)
    if not call:
        return " ".join(sentences)
    facts = [
        f"lifetime: `{fault.lifetime}`",
        f"fidelity: `{fault.fidelity}`",
        f"expects: {prose(str(getattr(fault, 'expects', 'nothing')))}",
    ]
    return "\n\n".join([f"With `{call}`:", bullets(facts), " ".join(sentences)])


def loads_page(source: Source) -> str:
    """Return the page of all loads."""
    shared = source.docs(source.function("loads.open_loop")).parameters
    parts = [LOADS_INTRO]
    for name in LOADS:
        parts += [f"## `{name}`", function_entry(source, f"loads.{name}", source.function(f"loads.{name}"), shared)]
    targets = class_entry(source, source.cls("stats.windows.LatencyTargets"), "targets")
    prompts = bullets(f'`"{name}"`' for name in BUILT_IN)
    parts += ["## `LatencyTargets`", targets, "## Sets of prompts", "Built-in values of `prompts`:", prompts]
    return page("Loads", *parts)
