"""Pages of options, ini keys and commands."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
from unittest import mock

from pytest_llmchaos import cli, options
from pytest_llmchaos.cli import commands as other_commands
from reference_pages.markdown import fence, page, prose

TYPES = {
    "string": "text",
    "linelist": "list of texts",
    "args": "list of words",
    "bool": "true or false",
    "float": "number",
}


def options_page() -> str:
    """Return the page of pytest's options."""
    parts = [
        "Options of `pytest`.",
        "Each is also spelled `--llmchaos-NAME`, for the case that another plugin owns the short name.",
    ]
    for name, settings, text in options.OPTIONS:
        metavar = settings.get("metavar", "")
        parts += [f"## `--chaos-{name}`", fence(f"--chaos-{name} {metavar}".strip(), "text"), prose(text)]
    return page("Options", *parts)


def ini_page() -> str:
    """Return the page of ini keys."""
    parts = [
        "Keys of `[tool.pytest.ini_options]` in `pyproject.toml`, or of `[pytest]` in `pytest.ini`.",
        "[Test your own stack](../byo.md) shows which ones a stack needs.",
    ]
    for name, kind, text in options.INI:
        parts += [f"## `{name}`", f"Type: {TYPES[kind]}.", prose(text)]
    return page("Ini keys", *parts)


# Commands that have commands of their own.
PARTS = {"autoscale": ("compare",), "slo": ("check", "convert")}


def commands_page() -> str:
    """Return the page of the command line."""
    parts = ["Help of the `llmchaos` command.", fence(_help([]), "text")]
    for name in commands():
        parts += [f"## `llmchaos {name}`", fence(_help([name]), "text")]
        for part in PARTS.get(name, ()):
            parts += [f"### `llmchaos {name} {part}`", fence(_help([name, part]), "text")]
    return page("Commands", *parts)


def _help(words: list[str]) -> str:
    out = io.StringIO()
    plain = mock.patch.dict(os.environ, {"COLUMNS": "88", "NO_COLOR": "1"})  # whatever this terminal is
    with plain, contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    return out.getvalue()


def commands() -> list[str]:
    """Return the names of all commands, in the order of the help."""
    parser = other_commands._parser()  # noqa: SLF001 (argparse has no public way to list commands)
    (found,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))  # noqa: SLF001
    return list(found.choices)
