"""A stack of values for whole sessions of the plugin, without programs.

`install()` in a conftest.py replaces what a session starts. Journal, report and claims
stay real. Files in the session's folder list what happened: `stack.txt` each start and
removal, `performed.txt` each trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support.fake_runtime import FakeRuntime
from support.plugin_double import Double

from pytest_llmchaos.cleanup.sweep import Swept
from pytest_llmchaos.host import measurement_lock
from pytest_llmchaos.plan.experiment import TrialPlan
from pytest_llmchaos.session import run
from pytest_llmchaos.trial import perform

Hook = Callable[[], object]


class Stack(FakeRuntime):
    """A stack that notes its start and its removal."""

    def __init__(self, folder: Path, starting: Hook) -> None:
        super().__init__()
        self._folder, self._starting = folder, starting

    def prepare(self) -> None:
        """Accept every machine."""

    def up(self, *, remediator: bool = True) -> None:
        note(self._folder / "stack.txt", "up")
        self._starting()

    def down(self) -> None:
        note(self._folder / "stack.txt", "down")

    def url(self, service: str) -> str:
        return f"http://{service}.invalid"

    def images(self) -> Mapping[str, str]:
        return {}


def note(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def install(folder: Path, *, starting: Hook = lambda: None, acting: Hook = lambda: None) -> None:
    """Put the stack in place of the real one, for the rest of this process.

    Args:
        folder: where `stack.txt` and `performed.txt` go.
        starting: called while the stack starts.
        acting: called while a trial's record is open.
    """
    patched: Any = run
    performing: Any = perform
    lock: Any = measurement_lock

    def judged(_lab: object, plan: TrialPlan, _record: object) -> Any:
        note(folder / "performed.txt", f"{plan.scenario}: {plan.fault} hits {plan.injections[0].victim}")
        acting()
        return Double().perform(None, plan).trial

    dog = SimpleNamespace(dismiss=lambda: None, leave=lambda: None)
    patched.make_runtime = lambda *_, **__: Stack(folder, starting)
    performing._perform = judged
    patched.sweep.sweep_dead_runs = lambda *_, **__: Swept()
    patched.watchdog.start = lambda *_: dog
    patched.environment = dict
    lock.slot_file = lambda name: folder / f"{name}.lock"
