"""New projects on disk, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pytest_llmchaos.errors import NotReady


def quoted(value: object) -> str:
    """Return a value as JSON, which TOML and YAML read as well."""
    return json.dumps(value, ensure_ascii=False)


def in_comment(text: str) -> str:
    """Return a text as one line, whatever a compose file has in it."""
    return "".join(one if one.isprintable() else " " for one in text)


def slug(text: str) -> str:
    """Return a text as a name of an objective."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


# Other marks than usual: workflows contain `${{ }}`, and TOML has `[[ ]]`.
_TEMPLATES = Environment(
    loader=PackageLoader("pytest_llmchaos.generate.starter"),
    autoescape=False,  # noqa: S701 - no HTML
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
    block_start_string="<%",
    block_end_string="%>",
    variable_start_string="<<",
    variable_end_string=">>",
    comment_start_string="<#",
    comment_end_string="#>",
)
_TEMPLATES.filters |= {"quoted": quoted, "in_comment": in_comment, "slug": slug}


@dataclass(frozen=True, kw_only=True)
class Project:
    """Files of a project, and what its user may do next.

    Attributes:
        files: text of each file, by its path in the project's folder.
        steps: commands for the shell, each with what it does.
        notes: what the user should see first.
    """

    files: Mapping[str, str]
    steps: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = field(default=())


def render(template: str, **values: object) -> str:
    """Return a template's text with its values filled in."""
    return _TEMPLATES.get_template(template).render(values)


def write_new(folder: Path, files: Mapping[str, str]) -> None:
    """Write all files, none of which may exist.

    Args:
        folder: where the files go. It is created if it is missing.
        files: text of each file, by its path in the folder.

    Raises:
        NotReady: a file exists or cannot be written. Nothing was written.
    """
    existing = [name for name in files if os.path.lexists(folder / name)]
    if existing:
        raise NotReady(
            f"{folder} has {', '.join(existing)} already: give another folder or move them away. Nothing was written"
        )
    written: list[Path] = []
    made: list[Path] = []
    try:
        for name, text in files.items():
            path = folder / name
            for parent in [one for one in reversed(path.parents) if not one.is_dir()]:
                parent.mkdir()
                made.append(parent)
            with path.open("x", encoding="utf-8") as sink:
                written.append(path)
                sink.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        for one in reversed(made):
            one.rmdir()
        raise NotReady(
            f"{error.filename or folder} cannot be written: {error.strerror or error}: give another folder. Nothing was written"
        ) from error
