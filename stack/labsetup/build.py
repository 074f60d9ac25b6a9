"""Pulls or builds the images that are missing. Images that exist are not touched."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from labsetup import debian, ingredients
from labsetup.engine import server_arch
from labsetup.recipes import (
    MODEL,
    SERVICE_PACKAGES,
    STACK,
    Recipe,
    base_tag,
    built_tag,
    official_reference,
    recipes_for,
)
from labsetup.shell import SetupError, cache_folder, run, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PULL_DEADLINE_S = 900.0
BUILD_DEADLINE_S = 900.0
SOURCES = ("auto", "official", "packages")
PACKAGES = {"prometheus": "prometheus", "pushgateway": "prometheus-pushgateway"}  # recipe: Debian's name


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two set-ups at once would compile everything twice; the second waits and then finds all done."""
    with (cache_folder() / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is running, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def candidates(recipe: Recipe, arch: str) -> tuple[str, ...]:
    """References that would do for `recipe`, best first: on official bases, then from packages."""
    if recipe.base_variable is not None:
        bases = (official_reference(recipe.base_variable), base_tag())
        return tuple(built_tag(recipe, base=base, arch=arch) for base in bases)
    official = official_reference(recipe.variable)
    if not recipe.obtainable_from_packages:
        return (official,)
    return (official, built_tag(recipe, base=base_tag(), arch=arch))


def images_at_hand() -> frozenset[str]:
    """Every name under which the daemon has an image: name:tag and name@digest."""
    listed = run(["docker", "image", "ls", "--digests", "--format", "json"], deadline_s=30)
    return names_of(listed.splitlines())


def names_of(lines: Iterable[str]) -> frozenset[str]:
    names: set[str] = set()
    for line in lines:
        image = json.loads(line)
        names.add(f"{image['Repository']}:{image['Tag']}")
        names.add(f"{image['Repository']}@{image['Digest']}")
    return frozenset(names)


def is_at_hand(reference: str, names: frozenset[str]) -> bool:
    """A digest says which image is meant, whatever tag it was pulled under."""
    named, _, digest = reference.partition("@")
    return f"{named.rpartition(':')[0]}@{digest}" in names if digest else reference in names


def chosen(recipe: Recipe, arch: str, names: frozenset[str]) -> str | None:
    return next((reference for reference in candidates(recipe, arch) if is_at_hand(reference, names)), None)


def ensure_images(backends: Iterable[str], *, source: str = "auto") -> None:
    """Brings the images of `backends` to this machine's daemon; quick when they are there."""
    arch = server_arch()
    wanted = {recipe.name: recipe for backend in backends for recipe in recipes_for(backend)}
    names = images_at_hand()
    missing = [recipe for recipe in wanted.values() if chosen(recipe, arch, names) is None]
    required = [recipe for recipe in missing if recipe.obtainable_from_packages]
    if not required:
        return
    with one_at_a_time():
        official = source == "official" or (source == "auto" and registry_answers())
        say(
            "images come from the official registry"
            if official
            else "no image registry answers: building from packages"
        )
        for recipe in missing if official else required:
            bring(recipe, arch, official=official)


def registry_answers() -> bool:
    """Asked by pulling what is needed anyway and is small; a daemon behind a mirror answers as truly as one without."""
    try:
        run(["docker", "pull", "-q", official_reference("LLMCHAOS_PUSHGATEWAY_IMAGE")], deadline_s=90)
    except SetupError:
        return False
    return True


def bring(recipe: Recipe, arch: str, *, official: bool) -> None:
    began = time.monotonic()
    if recipe.base_variable is None and official:
        reference = official_reference(recipe.variable)
        say(f"pulling {reference}")
        run(["docker", "pull", "-q", reference], deadline_s=PULL_DEADLINE_S)
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
                f"expected the files of {recipe.name} to rest while it is built, they changed: run this again"
            )
        arguments = [f"--build-arg=BASE={base}", f"--build-arg=MODEL={MODEL}", f"--platform=linux/{arch}"]
        run(["docker", "build", "-q", "-t", tag, *arguments, str(context)], deadline_s=BUILD_DEADLINE_S)


def fill(context: Path, recipe: Recipe, *, base: str, arch: str) -> None:
    """Lays out everything that the image's Dockerfile copies."""
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(STACK / "images" / recipe.name, context, dirs_exist_ok=True, ignore=skip)
    for script in ("probe.sh", "warm.sh"):
        if f"images/{script}" in recipe.inputs:
            shutil.copy(STACK / "images" / script, context / script)
    match recipe.name:
        case "services":
            link(ingredients.site_packages("requirements.lock", arch), context / "site")
            for package in SERVICE_PACKAGES:
                if (STACK / "services" / package).is_dir():
                    shutil.copytree(STACK / "services" / package, context / "services" / package, ignore=skip)
        case "llamacpp":
            link(ingredients.site_packages("requirements-llamacpp.lock", arch), context / "site")
            shutil.copytree(STACK / "services/lab_llamacpp", context / "services/lab_llamacpp", ignore=skip)
            link(ingredients.weights(), context / "weights/model.gguf")
        case "ollama":
            link(ingredients.weights(), context / "weights/model.gguf")
            (context / "weights/Modelfile").write_text(ingredients.modelfile("model.gguf"), encoding="utf-8")
            (context / "bin").mkdir()
            if base == base_tag():
                link(ingredients.ollama_binary(arch), context / "bin/ollama")
        case "prometheus" | "pushgateway":
            for program in ingredients.packaged_program(PACKAGES[recipe.name], recipe.name):
                link(program, context / "bin" / program.name)


def link(source: Path, target: Path) -> None:
    """Contexts are read once: hard links where the cache allows, since some files have 100 MB."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=os.link)
    else:
        os.link(source, target)


def ensure_base() -> str:
    tag = base_tag()
    if is_at_hand(tag, images_at_hand()):
        return tag
    if not debian.is_debian_root():
        raise SetupError(
            "expected an image registry to answer, or Debian and root to build the images from packages; "
            "found neither. Let the Docker daemon reach its registry, then check with "
            f"`docker pull {official_reference('LLMCHAOS_PYTHON_BASE')}`"
        )
    debian.install(["debootstrap"])
    say("building the base image with debootstrap")
    with tempfile.TemporaryDirectory(prefix="llmchaos-base-") as name:
        root = Path(name)
        root.chmod(0o755)  # becomes the image's /, which everybody must be able to enter
        include = "--include=python3,ca-certificates,busybox"
        run(
            ["debootstrap", "--variant=minbase", include, "trixie", str(root), debian.mirror()],
            deadline_s=BUILD_DEADLINE_S,
        )
        (root / "usr/local/bin/wget").symlink_to("/bin/busybox")  # the official images probe themselves with wget
        for folder in (
            "var/cache/apt/archives",
            "var/lib/apt/lists",
            "usr/share/doc",
            "usr/share/man",
            "usr/share/locale",
        ):
            shutil.rmtree(root / folder)
            (root / folder).mkdir()
        archive = root.with_suffix(".tar")
        try:
            run(["tar", "-C", str(root), "--numeric-owner", "-cf", str(archive), "."], deadline_s=120)
            run(["docker", "import", str(archive), tag], deadline_s=BUILD_DEADLINE_S)
        finally:
            archive.unlink(missing_ok=True)
    return tag


def environment(backend: str) -> tuple[dict[str, str], list[str]]:
    """Variables a compose run of `backend` needs, and the names of the images that are missing."""
    arch = server_arch()
    names = images_at_hand()
    found = {recipe.name: chosen(recipe, arch, names) for recipe in recipes_for(backend)}
    variables = {"LLMCHAOS_BACKEND": backend, "LLMCHAOS_DOCKER_GID": str(socket_group())}
    missing: list[str] = []
    for recipe in recipes_for(backend):
        reference = found[recipe.name]
        if reference is not None:
            variables[recipe.variable] = reference
        elif recipe.obtainable_from_packages:
            missing.append(recipe.name)
    variables.setdefault("LLMCHAOS_MODEL_IMAGE", variables.get("LLMCHAOS_SERVICES_IMAGE", ""))
    return {name: value for name, value in sorted(variables.items()) if value}, missing


def socket_group(socket: str = "/var/run/docker.sock") -> int:
    """Group that may use the daemon's socket inside a container; Docker Desktop gives it to root's."""
    if os.uname().sysname != "Linux":
        return 0
    try:
        return Path(socket).stat().st_gid
    except OSError as failed:
        raise SetupError(
            f"expected the daemon's socket at {socket}, saw {failed.strerror}: the lab's remediator needs it"
        ) from failed
