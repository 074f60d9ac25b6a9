"""Removal of secrets from text before it becomes evidence."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

HIDDEN = "***"
# A shorter value occurs in other text by chance, and hiding it would damage evidence.
SHORTEST_VALUE = 8

_WORD = (
    r"(?:api|access|private|secret|auth|master|signing|encryption|service)[-_.]?key|secret|token|passw(?:or)?d|passphrase"
    r"|pwd|credentials?|authorization|signature|sig|cookie|dsn|webhook(?:[-_.]url)?|connection[-_.]string"
)
# The shell's current and previous folder, which match the pattern for passwords.
_FOLDERS = {"PWD", "OLDPWD"}
_SECRET_VARIABLE = re.compile(rf"(?i)(?:^|[-_.])(?:{_WORD}|key|auth|pat)$")
_NAME = rf"(?i:(?<![a-z0-9])(?:[\w.-]*[-_.])?(?:{_WORD}))"
# Excludes values such as `first token: 0.3 s`, and values that are already hidden.
_VALUE = (
    r"(?!(?:-?[0-9][0-9.eE+-]{0,11}|(?i:true|false|null|none|bearer|basic))(?![\w./+=-])|\*\*\*)"
    r"(?:'[^'\n]*'|\"(?:[^\"\\\n]|\\.)*\"|[^\s'\"&,;|)\]}<>]+)"
)
_PATTERNS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"), HIDDEN),
    # scheme://user:password@host, and scheme://token@host for http
    (re.compile(r"(?<![\w+.-])([a-zA-Z][\w+.-]*://)[^\s/@:'\"]*:[^\s/@'\"]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(?<![\w+.-])(https?://)[^\s/@:'\"]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/=-]{6,}"), rf"\1\2{HIDDEN}"),
    (re.compile(rf"(--?{_NAME})(=|\s+){_VALUE}"), rf"\1\2{HIDDEN}"),
    (re.compile(rf"({_NAME})([\"']?\s*[=:]\s*){_VALUE}"), rf"\1\2{HIDDEN}"),
    # Keys with a known form: OpenAI and similar, Hugging Face, GitHub, GitLab, Slack,
    # AWS, JSON web tokens.
    (re.compile(r"\b(?:sk|pk|rk)-[\w-]{16,}|\bhf_\w{16,}|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}"), HIDDEN),
    (re.compile(r"\bglpat-[\w-]{16,}|\bxox[abeoprs]-[\w-]{10,}|\bA(?:KIA|SIA)[0-9A-Z]{16}\b"), HIDDEN),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), HIDDEN),
)


# Values that this process hides in every text, by `hide`.
_hidden: set[str] = set()


def hide(values: Iterable[str]) -> None:
    """Hide these values from now on, as they are and as JSON or a URL writes them."""
    for value in values:
        if len(value) >= SHORTEST_VALUE:
            _hidden.update((value, json.dumps(value)[1:-1], quote(value, safe=""), quote_plus(value)))


def secrets_of(variables: Mapping[str, str]) -> frozenset[str]:
    """Return the values of variables with names of secrets."""
    return frozenset(
        value
        for name, value in variables.items()
        if len(value) >= SHORTEST_VALUE and _SECRET_VARIABLE.search(name) and name not in _FOLDERS
    )


def redact(text: str, more: Iterable[str] = ()) -> str:
    """Return text with its secrets replaced by `***`.

    Secrets are the values of environment variables with names of secrets, user
    information in URLs, bearer tokens, values of options and keys with names of
    secrets, keys with a known form, and the values of `hide`.

    Args:
        text: Text from outside.
        more: Further values to hide.
    """
    values = sorted(secrets_of(os.environ) | _hidden | set(more), key=len, reverse=True)
    for value in values:
        if value in _hidden:
            text = text.replace(value, HIDDEN)
        elif value in text:
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, text)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def redact_inside(value: object) -> object:
    """Return a JSON value with the secrets in all of its texts replaced."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: redact_inside(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [redact_inside(one) for one in value]
    return value


def redact_bytes(data: bytes, more: Iterable[str] = ()) -> bytes:
    """Return the content of a log in any encoding with its secrets replaced."""
    return redact(data.decode("utf-8", "surrogateescape"), more).encode("utf-8", "surrogateescape")


def redact_file(path: Path) -> None:
    """Replace the secrets in a closed file. A missing file is ignored."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    hidden = redact_bytes(data)
    if hidden != data:
        path.write_bytes(hidden)
