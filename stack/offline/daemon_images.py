"""Images of the daemon, and the variables of a compose run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from offline.daemon_socket import socket_variables
from offline.engine import server_arch
from offline.recipes import Recipe, base_tag, built_tag, official_reference, recipes_for
from offline.shell import run

if TYPE_CHECKING:
    from collections.abc import Iterable


def candidates(recipe: Recipe, arch: str) -> tuple[str, ...]:
    """Acceptable references for `recipe`, best first: official bases, then packages."""
    if recipe.base_variable is not None:
        bases = (official_reference(recipe.base_variable), base_tag())
        return tuple(built_tag(recipe, base=base, arch=arch) for base in bases)
    official = official_reference(recipe.variable)
    if not recipe.obtainable_from_packages:
        return (official,)
    return (official, built_tag(recipe, base=base_tag(), arch=arch))


def images_at_hand() -> frozenset[str]:
    """Every name under which the daemon has an image: name:tag and name@digest."""
    # A template, because `--format json` needs Docker 23.
    listed = run(["docker", "image", "ls", "--digests", "--format", "{{json .}}"], deadline_s=30)
    return names_of(listed.splitlines())


def names_of(lines: Iterable[str]) -> frozenset[str]:
    names: set[str] = set()
    for line in lines:
        image = json.loads(line)
        names.add(f"{image['Repository']}:{image['Tag']}")
        names.add(f"{image['Repository']}@{image['Digest']}")
    return frozenset(names)


def is_at_hand(reference: str, names: frozenset[str]) -> bool:
    """True if the daemon has the image.

    A digest identifies it whatever tag it was pulled under.
    """
    named, _, digest = reference.partition("@")
    return f"{named.rpartition(':')[0]}@{digest}" in names if digest else reference in names


def chosen(recipe: Recipe, arch: str, names: frozenset[str]) -> str | None:
    return next((reference for reference in candidates(recipe, arch) if is_at_hand(reference, names)), None)


def environment(backend: str, *, agents: bool = False) -> tuple[dict[str, str], list[str]]:
    """Variables of a compose run of `backend`, and names of its missing images."""
    arch = server_arch()
    names = images_at_hand()
    recipes = recipes_for(backend, agents=agents)
    found = {recipe.name: chosen(recipe, arch, names) for recipe in recipes}
    variables = {"LLMCHAOS_BACKEND": backend, **socket_variables()}
    missing: list[str] = []
    for recipe in recipes:
        reference = found[recipe.name]
        if reference is not None:
            variables[recipe.variable] = reference
        elif recipe.obtainable_from_packages:
            missing.append(recipe.name)
    variables.setdefault("LLMCHAOS_MODEL_IMAGE", variables.get("LLMCHAOS_SERVICES_IMAGE", ""))
    return {name: value for name, value in sorted(variables.items()) if value}, missing
