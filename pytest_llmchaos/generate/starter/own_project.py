"""A project that tests the stack of a compose file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pytest_llmchaos import model
from pytest_llmchaos.generate.starter import compose_file
from pytest_llmchaos.generate.starter.compose_file import Stack
from pytest_llmchaos.generate.starter.lab_project import WORKFLOW, subfolder
from pytest_llmchaos.generate.starter.roles import Roles, roles_of
from pytest_llmchaos.generate.starter.writing import Project, render

_MINUTES = 30
# Variables that the shell or the runner sets.
_EVERYWHERE = ("GID", "HOME", "HOSTNAME", "PATH", "PWD", "UID", "USER")


def project(folder: Path, files: Sequence[Path]) -> Project:
    """Return a project that tests a compose file's stack.

    Args:
        folder: the project's folder.
        files: the compose files, which stay as they are.

    Raises:
        BadScenario: a file is missing or has no service that answers requests.
        NotReady: Compose is missing or refuses the files.
    """
    stack = compose_file.read(files)
    roles = roles_of(stack)
    key = roles.key
    where = subfolder(folder)
    values = {
        "api": roles.api.name,
        "victim": roles.victim,
        "compose": [os.path.relpath(one, folder.resolve()) for one in stack.files],
        "guesses": roles.guesses,
        "remarks": (*stack.remarks, *roles.remarks),
        "ways_out": stack.ways_out,
        "clients": model,
        "latencies": [
            (one.name, latency, one.server.metric_of(latency))
            for one in roles.scraped
            for latency in one.server.latencies
        ],
        "key": key,
        "steps": (steps := _steps(roles)),
    }
    workflow = render(
        "chaos.yml.j2",
        subfolder=where,
        minutes=_MINUTES,
        cached=False,
        requirement="pytest-llmchaos",
        setup="",
        key=key,
        variables=[name for name in stack.variables if name not in _EVERYWHERE and (not key or name != key.variable)],
        reports=os.path.join(where, "reports/"),  # noqa: PTH118 - the final slash stays
    )
    files_of = {
        "pyproject.toml": render("own_pyproject.toml.j2", **values),
        "slo.yaml": render("own_slo.yaml.j2", **values),
        f"scenarios/test_{_identifier(roles.victim)}.py": render("own_scenario.py.j2", **values),
        WORKFLOW: workflow,
        "README.md": render("own_readme.md.j2", **values),
        ".gitignore": render("gitignore.j2"),
    }
    return Project(files=files_of, steps=steps, notes=tuple(_notes(stack, roles, where)))


def _steps(roles: Roles) -> tuple[tuple[str, str], ...]:
    key = roles.key
    return (
        *([(f"export {key.variable}=...", f"the clients' key, from {key.place}")] if key and not key.doubt else []),
        ("pytest --chaos-plan", "print the planned trial, start nothing"),
        ("pytest", "start the stack as a project of its own, freeze a service, judge"),
    )


def _notes(stack: Stack, roles: Roles, where: str) -> list[str]:
    guessed = {one.key: one.value for one in roles.guesses}
    notes = [
        f"read pyproject.toml first: it guesses that clients use {guessed['api']}, and has the reasons",
        *stack.remarks,
    ]
    if roles.key and roles.key.doubt:
        notes.append(
            f"if clients must send the key in {roles.key.place}, put llmchaos_headers in force and export {roles.key.variable}"
        )
    elif roles.key:
        notes.append(f"in CI, add a repository secret {roles.key.variable} with the clients' key")
    if stack.ways_out:
        keys = ", ".join(dict.fromkeys(one.key for one in stack.ways_out))
        notes.append(f"pytest will refuse to start until you decide on what reaches beyond the stack: {keys}")
    if where:
        notes.append(f"GitHub reads workflows at the top of a repository: move {WORKFLOW} there")
    return notes


def _identifier(name: str) -> str:
    return "".join(one if one.isalnum() else "_" for one in name)
