"""All servers: the files here, and those of other packages by entry point."""

from __future__ import annotations

import functools
from dataclasses import replace
from importlib.metadata import entry_points
from importlib.resources import files
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.servers.mapping import Server, parse_server

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "pytest_llmchaos.servers"


@functools.cache
def shipped_servers() -> dict[str, Server]:
    """Return the servers with a file in this package, by name.

    Raises:
        BadScenario: A file is wrong.
    """
    names = sorted(file.name for file in files(__package__).iterdir() if file.name.endswith(".toml"))
    texts = {
        name.removesuffix(".toml"): files(__package__).joinpath(name).read_text(encoding="utf-8") for name in names
    }
    return {name: parse_server(text, name) for name, text in texts.items()}


@functools.cache
def servers() -> dict[str, Server]:
    """Return all servers by name.

    An entry point of the group `pytest_llmchaos.servers` has the server's name, and is
    a function without arguments that returns the text of its TOML file. It may replace
    a server of this package. Each has the name of its package.

    Raises:
        BadScenario: A file is wrong, or an entry point cannot be imported or called.
    """
    found = dict(shipped_servers())
    for point in entry_points(group=GROUP):
        try:
            text = point.load()()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code may raise anything
            raise BadScenario(
                f"server {point.name} of {point.value} cannot be read ({type(error).__name__}: {error}): "
                "repair or uninstall that package"
            ) from None
        try:
            found[point.name] = replace(parse_server(str(text), point.name), package=_package(point))
        except BadScenario as error:
            raise BadScenario(f"{error} (from {point.value}: repair or uninstall that package)") from None
    return dict(sorted(found.items()))


def _package(point: EntryPoint) -> str:
    """Return name and version of an entry point's package."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def server(name: str) -> Server:
    """Return the server of a name.

    Raises:
        BadScenario: No file has the name.
    """
    known = servers()
    if name not in known:
        raise BadScenario(f"there is no model server {name!r}; those with a file are {', '.join(known)}")
    return known[name]
