"""Checks that the programs, options, targets and paths of commands exist."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

from support.copies import environment_of
from support.doc_blocks import ROOT, BadBlock, Block, commands_of, lines_of

from pytest_llmchaos import cli

FOLDERS = "benchmarks|dashboards|docs|examples|pytest_llmchaos|scenarios|stack|tests"
# Programs without a checker of their own: the shell's, and those of other projects.
OTHERS = {
    *(".", "cd", "cp", "echo", "eval", "exit", "export", "grep", "mkdir", "rm", "source", "useradd", "xargs"),
    *("apt-get", "cat", "curl", "docker", "git", "go", "mypy"),
}


def check_shell(block: Block) -> None:
    """Raise BadBlock if one of the block's commands is wrong."""
    path = ROOT / block.page
    page = path.read_text() if path.is_file() else block.text
    for line in lines_of(block):
        for words in commands_of(line):
            check_command(words, block, page)


def is_safe(line: str) -> bool:
    """True if the line may run: it starts, installs and removes nothing."""
    if "$(" in line.replace("$(python -c", "").replace("$(.venv/bin/python -c", ""):
        return False
    return all(_is_safe(words) for words in commands_of(line))


def _is_safe(words: list[str]) -> bool:
    match words:
        case ["cd" | "cp" | "mkdir" | "echo" | "export" | "grep", *_]:
            return True
        case ["llmchaos", "init" | "metrics", *rest]:
            return not any(word in {"--compose", "-"} or word.startswith("http") for word in rest)
        case ["llmchaos", "generate" | "budget" | "report", *_] | ["llmchaos", *_, "--help"]:
            return True
        case ["python" | ".venv/bin/python", "-c", *_]:
            return True
        case ["pytest", *rest]:
            return bool({"--chaos-plan", "--help"} & set(rest))
        case _:
            return False


@cache
def pytest_options() -> dict[str, frozenset[str] | bool]:
    """The options of pytest and their values: choices, any (True) or none (False)."""
    return options_in(help_of("-m", "pytest", str(ROOT / "tests"), "--help", "-p", "no:cacheprovider"))


@cache
def locust_options() -> dict[str, frozenset[str] | bool]:
    return options_in(help_of("-m", "locust", "--help"))


def help_of(*words: str) -> str:
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=ROOT, env=environment_of(ROOT), capture_output=True, text=True, check=True
    ).stdout


@cache
def llmchaos_options(command: str) -> dict[str, frozenset[str] | bool]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            cli.main([*command.split(), "--help"])
        except SystemExit as end:
            if not end.code:
                return options_in(out.getvalue())
    raise BadBlock(f"llmchaos has no command {command!r}")


def options_in(text: str) -> dict[str, frozenset[str] | bool]:
    """The options in a help text of argparse."""
    found: dict[str, frozenset[str] | bool] = {"--help": False, "-h": False, "--version": False}
    for line in re.findall(r"^  (-[^\n]*)", text, re.MULTILINE):
        head = re.split(r"\s{2,}", line)[0]
        choices = re.search(r"\{([^}]*)\}", head)
        value = frozenset(choices[1].split(",")) if choices else bool(re.search(r"-[\w-]+[= \[]{1,2}[<A-Za-z]", head))
        for name in re.findall(r"(?:(?<=\s)|^)(--?[A-Za-z][\w-]*)", head):
            found[name] = value
    return found


def check_options(words: list[str], known: dict[str, frozenset[str] | bool], where: str) -> list[str]:
    """Raise if an option or its value does not exist. Return the other words."""
    rest, left = [], list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-") or word == "-":
            rest.append(word)
            continue
        name, equals, value = word.partition("=")
        if name not in known and re.fullmatch(r"-[a-z]\S+", name) and name[:2] in known:
            name, equals, value = name[:2], "=", name[2:]
        if name not in known:
            raise BadBlock(f"{where} has no option {name}")
        if known[name] and not equals:
            if not left:
                raise BadBlock(f"{where} {name} needs a value")
            value = left.pop(0)
        wanted = known[name]
        if isinstance(wanted, frozenset) and value not in wanted:
            raise BadBlock(f"{where} {name}: {value!r} is not one of {', '.join(sorted(wanted))}")
    return rest


def check_command(words: list[str], block: Block, page: str) -> None:
    """Raise BadBlock if a command, its options or its targets do not exist."""
    program, *rest = words
    program = program.rpartition("/")[2] if program.startswith((".venv/", "bin/")) else program
    if program in CHECKERS:
        CHECKERS[program](rest, block, page)
    elif program not in OTHERS:
        raise BadBlock(f"{block}: no checker for the command {program!r}: add one, or give the block another language")
    for path in words:
        if re.fullmatch(rf"({FOLDERS})/[\w./-]*", path) and not (ROOT / path).exists():
            raise BadBlock(f"{block}: {path}: no such path")


def _pytest(rest: list[str], block: Block, page: str) -> None:
    for path in check_options(rest, pytest_options(), "pytest"):
        name = path.partition("::")[0].rstrip("/")
        if not (ROOT / name).exists() and f"`{name}`" not in page and f"`{Path(name).name}`" not in page:
            raise BadBlock(f"{block}: pytest {path}: no such path, and the page does not make it")


def _llmchaos(rest: list[str], _block: Block, _page: str) -> None:
    command = rest.pop(0) if rest and not rest[0].startswith("-") else ""
    if command in {"autoscale", "slo"} and rest and not rest[0].startswith("-"):
        command += f" {rest.pop(0)}"
    check_options(rest, llmchaos_options(command), f"llmchaos {command}".strip())


def _locust(rest: list[str], _block: Block, _page: str) -> None:
    check_options(rest, locust_options(), "locust")


def _make(rest: list[str], block: Block, _page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in rest:
        name, equals, _ = word.partition("=")
        if equals and not re.search(rf"\b{name}\b", makefile):
            raise BadBlock(f"{block}: the Makefile has no variable {name}")
        if not equals and not re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE):
            raise BadBlock(f"{block}: the Makefile has no target {word}")


def _pip(rest: list[str], block: Block, _page: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in re.findall(r"pytest-llmchaos\[([\w,-]+)\]", " ".join(rest)):
        if unknown := set(names.split(",")) - set(extras):
            raise BadBlock(f"{block}: pytest-llmchaos has no extra {', '.join(unknown)}")


def _tool(rest: list[str], block: Block, _page: str) -> None:
    if rest[:1] and rest[0] not in {"check", "format", "run", "report"}:
        raise BadBlock(f"{block}: ruff and coverage have no command {rest[0]}")


def _python(rest: list[str], block: Block, page: str) -> None:
    match rest:
        case ["-c", code, *_]:
            compile(code, str(block), "exec")
        case ["-m", ("pytest" | "pip") as program, *words]:
            check_command([program, *words], block, page)
        case ["-m", module, *_] if importlib.util.find_spec(module.partition(".")[0]) and importlib.util.find_spec(
            module
        ):
            return
        case [script, *_] if script.endswith(".py") and (ROOT / script).is_file():
            source = (ROOT / script).read_text() + "".join(
                p.read_text() for p in (ROOT / "benchmarks").glob("figures.py")
            )
            for option in re.findall(r"(?<!\S)--[\w-]+", " ".join(rest[1:])):
                if f'"{option}"' not in source and option != "--help":
                    raise BadBlock(f"{block}: {script} has no option {option}")
        case _:
            raise BadBlock(f"{block}: python {shlex.join(rest)}: no such module or script")


CHECKERS = {
    **dict.fromkeys(("python", "python3"), _python),
    **dict.fromkeys(("pip", "uv"), _pip),
    **dict.fromkeys(("ruff", "coverage"), _tool),
    "pytest": _pytest,
    "llmchaos": _llmchaos,
    "locust": _locust,
    "make": _make,
}
