"""Headers of requests, with values from environment variables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from string import Template

from pytest_llmchaos.errors import NotReady


def header_values(lines: Sequence[str], key: str) -> dict[str, str]:
    """Return headers with the values of `$NAME` and `${NAME}`. `$$` is a dollar sign.

    Args:
        lines: Headers as `Name: value`.
        key: The ini key that has them, for the message.

    Raises:
        NotReady: A variable is not set, or a value is no header value. The message
            has the variable's name and never a value.
    """
    found = {}
    for line in lines:
        name, _, template = line.partition(":")
        try:
            value = Template(template.strip()).substitute(os.environ)
        except KeyError as error:
            raise NotReady(f"{key} needs the environment variable {error.args[0]} for {name.strip()}: set it") from None
        except ValueError:
            raise NotReady(
                f"{key} must name variables as $NAME, and $$ for a dollar sign: check {name.strip()}"
            ) from None
        if not value or not value.isascii() or not value.isprintable():
            raise NotReady(
                f"{key} must give {name.strip()} a value of printable ASCII characters in one line: check its variables"
            )
        found[name.strip()] = value
    return found
