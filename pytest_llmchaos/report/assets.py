"""Templates, styles and scripts of offline pages, and what they may load."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

from pytest_llmchaos.report import formatting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Environment

HERE = files("pytest_llmchaos.report")


def environment(cut: int) -> Environment:
    """Return a Jinja environment, which escapes every value by default.

    Args:
        cut: Characters of one value that a page shows.
    """

    def format_value(value: object) -> object:
        if isinstance(value, Markup):
            return value
        return formatting.NONE if value is None else formatting.visible(str(value), cut)

    from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415 - only for a page: plans need none

    made = Environment(
        loader=FunctionLoader(lambda name: asset(f"page_files/{name}")),
        autoescape=True,
        finalize=format_value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(words=formatting, visible=format_value)
    return made


def asset(name: str) -> str:
    """Return the text of one of our own files."""
    return HERE.joinpath(name).read_text(encoding="utf-8")


def security_policy(style: str, scripts: Sequence[str]) -> str:
    """Return a content security policy that allows only our styles and scripts."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    allowed = " ".join(map(digest, scripts)) or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src {digest(style)}; img-src data:; base-uri 'none'; form-action 'none'"
