"""A project that tests the lab."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.generate.starter.writing import Project, render
from pytest_llmchaos.runtime.local import prerequisites
from pytest_llmchaos.runtime.local.programs import WEIGHTS_LOCK
from pytest_llmchaos.subject.backends import BACKENDS
from pytest_llmchaos.subject.lab import scenarios_dir, stack_dir

WORKFLOW = ".github/workflows/chaos.yml"
_ALL = "all"
_DEFAULT_SCENARIO = "kill_api"
# A scenario has up to four trials of about a minute.
_MINUTES_PER_SCENARIO = 3
_MINUTES_OF_SETUP = 20
_BACKEND_OF_RUNTIME = {"compose": "ollama", "local": "llamacpp"}


def project(folder: Path, *, runtime: str | None, backend: str | None, scenarios: Sequence[str]) -> Project:
    """Return a project that performs shipped scenarios.

    Args:
        folder: the project's folder.
        runtime: compose or local. None lets each run select it.
        backend: inference engine of the lab. None is that of the runtime.
        scenarios: names of shipped scenarios, or all. Empty is `kill_api`.

    Raises:
        BadScenario: there is no such scenario.
    """
    chosen = _chosen(scenarios or (_DEFAULT_SCENARIO,))
    backend = backend or _BACKEND_OF_RUNTIME.get(runtime or "")
    setup = "" if runtime == "local" else f"llmchaos setup --backend {backend or BACKENDS[0]}"
    steps = (
        *([(setup, "build or pull the lab's images")] if setup else []),
        ("pytest --chaos-plan", "print the planned trials, start nothing"),
        ("pytest", "perform them: about a minute for each trial"),
        ("pytest --chaos-seed=42", "the same faults and requests as every run with 42"),
    )
    where = subfolder(folder)
    workflow = render(
        "chaos.yml.j2",
        subfolder=where,
        minutes=_MINUTES_OF_SETUP + _MINUTES_PER_SCENARIO * len(chosen),
        cached=True,
        requirement="pytest-llmchaos[local]" if runtime != "compose" else "pytest-llmchaos",
        setup=setup,
        key=None,
        variables=(),
        reports=os.path.join(where, "reports/"),  # noqa: PTH118 - the final slash stays
    )
    files = {
        "pyproject.toml": render("lab_pyproject.toml.j2", runtime=runtime, backend=backend),
        **{f"scenarios/{path.name}": path.read_text(encoding="utf-8") for path in chosen},
        WORKFLOW: workflow,
        "README.md": render("lab_readme.md.j2", steps=steps),
        ".gitignore": render("gitignore.j2"),
    }
    notes = [*_lacking(runtime, backend)]
    if where:
        notes.append(f"GitHub reads workflows at the top of a repository: move {WORKFLOW} there")
    return Project(files=files, steps=steps, notes=tuple(notes))


def names() -> dict[str, Path]:
    """Return the shipped scenarios by name."""
    return {path.stem.removeprefix("test_"): path for path in sorted(scenarios_dir().glob("test_*.py"))}


def subfolder(folder: Path) -> str:
    """Return the folder's path in its git repository, empty at the top or outside."""
    absolute = folder.absolute()
    top = next((one for one in absolute.parents if (one / ".git").exists()), None)
    return "" if top is None or (absolute / ".git").exists() else absolute.relative_to(top).as_posix()


def _chosen(wanted: Sequence[str]) -> list[Path]:
    shipped = names()
    unknown = [name for name in wanted if name not in shipped and name != _ALL]
    if unknown:
        raise BadScenario(f"--scenario must be one of {', '.join(shipped)} or all, got {', '.join(unknown)}")
    return [path for name, path in shipped.items() if name in wanted or _ALL in wanted]


def _lacking(runtime: str | None, backend: str | None) -> list[str]:
    """List what the local runtime lacks here, each with its remedy."""
    return prerequisites.lacking(backend or "llamacpp", stack_dir() / WEIGHTS_LOCK) if runtime == "local" else []
