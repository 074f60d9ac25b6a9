"""How long a stack takes to come up and to be gone, in each runtime that this machine can run. The engine is simulated.

Up ends when every service is healthy, remediator included; down when nothing of it is left.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pytest_llmchaos import owner
from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.compose import ComposeRuntime
from pytest_llmchaos.runtime.local import LocalRuntime
from pytest_llmchaos.subject import lab_subject

RUNTIMES = {"compose": ComposeRuntime, "local": LocalRuntime}


def once(name: str, number: int, backend: str) -> tuple[float, float, float]:
    """Seconds to prepare, come up and go down."""
    with tempfile.TemporaryDirectory() as directory:
        runtime: Any = RUNTIMES[name](
            lab_subject(backend),
            project=f"llmchaos-bench-{os.getpid()}-{number}",
            run="bench",
            owner=owner.identity(),
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
        return prepared - begin, up - prepared, time.monotonic() - down_from


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="how many times each runtime comes up (default 5)")
    parser.add_argument("--backend", default="sim", help="sim (default), llamacpp or ollama")
    parser.add_argument("--runtime", choices=sorted(RUNTIMES), help="only this one")
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{chosen.backend}, {chosen.repeat} times each, {os.cpu_count()} cores, load average {load:.1f} before")
    print(f"{'runtime':<10}{'prepare s':>12}{'up s':>10}{'(worst)':>10}{'down s':>10}{'(worst)':>10}")
    for name in [chosen.runtime] if chosen.runtime else sorted(RUNTIMES):
        try:
            times = [once(name, number, chosen.backend) for number in range(chosen.repeat)]
        except NotReady as error:
            print(f"{name:<10}cannot run here: {error}")
            continue
        prepare, up, down = (list(column) for column in zip(*times, strict=True))
        print(
            f"{name:<10}{statistics.median(prepare):>12.2f}{statistics.median(up):>10.2f}{max(up):>10.2f}"
            f"{statistics.median(down):>10.2f}{max(down):>10.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
