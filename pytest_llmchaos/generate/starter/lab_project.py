"""A project that tests the lab."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping, Sequence
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
_SIMULATED = "sim"
_MOST_LISTED = 3


def project(folder: Path, *, runtime: str | None, backend: str | None, scenarios: Sequence[str]) -> Project:
    """Return a project that performs shipped scenarios.

    Args:
        folder: the project's folder.
        runtime: compose or local. None lets each run select it.
        backend: inference engine of the lab. None is that of the runtime.
        scenarios: names of shipped scenarios or of their folders, or all. Empty is
            `kill_api`.

    Raises:
        BadScenario: there is no such scenario, or the backend would skip all of them.
    """
    chosen = _chosen(scenarios or (_DEFAULT_SCENARIO,))
    texts = {name: path.read_text(encoding="utf-8") for name, path in chosen.items()}
    simulated = [name for name, text in texts.items() if needs_the_simulated_engine(text)]
    agents = any("loads.tasks(" in text for text in texts.values())
    backend = _backend(backend, runtime, texts, simulated)
    more = " --agents" if agents else ""
    images = "build or pull the lab's images"
    if runtime is None:
        images += ". Without Docker skip it: pytest starts processes"
    setup = "" if runtime == "local" else f"llmchaos setup --backend {backend or BACKENDS[0]}{more}"
    steps = (
        *([(setup, images)] if setup else []),
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
        **{_place(path): texts[name] for name, path in chosen.items()},
        **{
            _place(data): data.read_text(encoding="utf-8")
            for name in chosen
            for data in _data(chosen[name], texts[name])
        },
        WORKFLOW: workflow,
        "README.md": render("lab_readme.md.j2", steps=steps, agents=agents),
        ".gitignore": render("gitignore.j2"),
    }
    notes = [*_lacking(runtime, backend)]
    if agents and runtime != "compose":
        where_processes = "" if runtime == "local" else "without Docker "
        notes.append(f"{where_processes}the first start installs the packages of the lab's agents (250 MB)")
    if simulated and backend != _SIMULATED:
        notes.append(f"skipped without --backend sim, which gives the simulated engine: {_listed(simulated)}")
    if where:
        notes.append(f"GitHub reads workflows at the top of a repository: move {WORKFLOW} there")
    return Project(files=files, steps=steps, notes=tuple(notes))


def names() -> dict[str, Path]:
    """Return the shipped scenarios by name, such as `agents/lost_answer`."""
    top = scenarios_dir()
    paths = sorted(top.rglob("test_*.py"), key=lambda path: (path.parent != top, path))
    return {path.relative_to(top).with_name(path.stem.removeprefix("test_")).as_posix(): path for path in paths}


def needs_the_simulated_engine(text: str) -> bool:
    """True if a scenario's docstring states that other backends skip it."""
    return "Needs the simulated engine" in " ".join((ast.get_docstring(ast.parse(text)) or "").split())


def subfolder(folder: Path) -> str:
    """Return the folder's path in its git repository, empty at the top or outside."""
    absolute = folder.absolute()
    top = next((one for one in absolute.parents if (one / ".git").exists()), None)
    return "" if top is None or (absolute / ".git").exists() else absolute.relative_to(top).as_posix()


def _chosen(wanted: Sequence[str]) -> dict[str, Path]:
    shipped = names()
    calls = {name: {_ALL, name, *name.split("/")} for name in shipped}
    unknown = [one for one in wanted if not any(one in called for called in calls.values())]
    if unknown:
        folders = sorted({name.partition("/")[0] for name in shipped if "/" in name})
        raise BadScenario(
            f"--scenario must be one of {', '.join(shipped)}, a folder of them ({', '.join(folders)}) or all, got {', '.join(unknown)}"
        )
    return {name: path for name, path in shipped.items() if not calls[name].isdisjoint(wanted)}


def _backend(given: str | None, runtime: str | None, texts: Mapping[str, str], simulated: Sequence[str]) -> str | None:
    """Return the backend that is given, or one that the scenarios can use."""
    if len(simulated) < len(texts):
        return given or _BACKEND_OF_RUNTIME.get(runtime or "")
    if given not in (None, _SIMULATED):
        raise BadScenario(
            f"--backend must be sim for {_listed(simulated)}, got {given}: every trial needs the simulated engine and would be skipped"
        )
    return _SIMULATED


def _listed(some: Sequence[str]) -> str:
    return ", ".join(some) if len(some) <= _MOST_LISTED else f"{len(some)} scenarios"


def _place(path: Path) -> str:
    """Return where the project has a shipped scenario, or its data."""
    return f"scenarios/{path.relative_to(scenarios_dir()).as_posix()}"


def _data(path: Path, text: str) -> list[Path]:
    """Return the files next to a scenario that it names."""
    return [one for one in sorted(path.parent.iterdir()) if one.is_file() and one.suffix != ".py" and one.name in text]


def _lacking(runtime: str | None, backend: str | None) -> list[str]:
    """List what the local runtime lacks here, each with its remedy."""
    return prerequisites.lacking(backend or "llamacpp", stack_dir() / WEIGHTS_LOCK) if runtime == "local" else []
