"""Values of a defect: one change of the source, and its detectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
HEALTHY = "test_a_healthy_system_pays_nothing"  # a claim of each pattern's scenario

Part = Literal["gateway", "engine", "remediator", "monitoring"]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """`old` occurs exactly once in `file`, a path from the root, and becomes `new`."""

    file: str
    old: str
    new: str

    def problem(self, root: Path = ROOT) -> str | None:
        """Reason why the patch does not fit the source, or None."""
        path = root / self.file
        if not path.is_file():
            return f"{self.file} does not exist"
        count = path.read_text().count(self.old)
        return None if count == 1 else f"{self.file} has {count} times, not once: {self.old!r}"

    def apply(self, root: Path) -> None:
        """Change the file below `root`.

        Raises:
            ValueError: the patch does not fit.
        """
        problem = self.problem(root)
        if problem is not None:
            raise ValueError(problem)
        path = root / self.file
        path.write_text(path.read_text().replace(self.old, self.new))


@dataclass(frozen=True, kw_only=True)
class SubjectDefect:
    """A broken service.

    `scenario` is a file of scenarios/ without its `test_`, such as `kill_model` or
    `patterns/retry`, and `only` an expression for pytest's -k. `caught_by` is a claim
    of that scenario (`test_...`) that must be refuted, alone among the selected ones,
    or the class of the error that must end the trial (`NotSteady`), or several such as
    `StaleData or PartialScrape`.
    """

    name: str
    part: Part
    what: str
    patches: tuple[Patch, ...]
    scenario: str
    caught_by: str
    only: str = ""
    seed: int = 7

    @property
    def file(self) -> str:
        """The scenario's file, from the root."""
        path = Path("scenarios", self.scenario)
        return str(path.with_name(f"test_{path.name}.py"))

    @property
    def errors(self) -> tuple[str, ...]:
        """The classes of errors, of which one must end the trial."""
        return () if self.by_a_claim else tuple(self.caught_by.split(" or "))

    @property
    def by_a_claim(self) -> bool:
        return self.caught_by.startswith("test_")


@dataclass(frozen=True, kw_only=True)
class InstrumentDefect:
    """A broken instrument. `tests` are node ids below tests/. Each must fail."""

    name: str
    what: str
    patches: tuple[Patch, ...]
    tests: tuple[str, ...]
