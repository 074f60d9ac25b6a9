"""A user's compose files, read as `docker compose` reads them in their folder."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.runtime.docker import docker_cli

PROFILES = "COMPOSE_PROFILES"
FILES = "COMPOSE_FILE"
_SEPARATOR = "COMPOSE_PATH_SEPARATOR"


class _Variable(msgspec.Struct):
    default: str = msgspec.field(name="DefaultValue", default="")
    alternate: str = msgspec.field(name="PresenceValue", default="")


EVERY = ("*",)


class UserFiles:
    """Compose files of one project, read in the folder of the first one."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._words = [word for file in files for word in ("-f", str(file))]
        self.folder = files[0].parent

    def environment(self, project: str, profiles: Sequence[str]) -> dict[str, str]:
        """Return what Compose finds in the environment.

        Without profiles, those of the environment and of `.env` count.

        Args:
            project: Name of the Compose project, which files may use as a variable.
            profiles: Active profiles.
        """
        active = {PROFILES: ",".join(profiles)} if profiles else {}
        return {"PWD": str(self.folder), "COMPOSE_PROJECT_NAME": project, **active}

    def config(self, project: str, profiles: Sequence[str]) -> str:
        """Return the output of `docker compose config`, JSON. Raises NotReady.

        With EVERY profile, services may contradict each other, such as two variants
        with one container name. A start has one of them.
        """
        loose = ["--no-consistency"] if tuple(profiles) == EVERY else []
        return self._ask(["-p", project, *self._words, "config", *loose, "--format", "json"], project, profiles)

    def default_profiles(self) -> tuple[str, ...]:
        """Return the profiles that the environment and `.env` activate."""
        return tuple(word for word in self._settings.get(PROFILES, "").split(",") if word)

    def default_files(self) -> tuple[Path, ...]:
        """Return the files that the environment or `.env` names for Compose."""
        words = self._settings.get(FILES, "").split(self._settings.get(_SEPARATOR, "") or os.pathsep)
        return tuple((self.folder / word).resolve() for word in words if word)

    @functools.cached_property
    def _settings(self) -> dict[str, str]:
        """Variables of the environment and of `.env`, which Compose reads itself."""
        said = self._ask([*self._words, "config", "--environment"], "", ())
        return {name: value for name, _, value in (line.partition("=") for line in said.splitlines())}

    def variables(self) -> tuple[str, ...]:
        """Return the variables that have no default value in the files.

        Empty if this Compose cannot list them.
        """
        try:
            said = self._ask([*self._words, "config", "--variables", "--format", "json"], "", ())
            found = msgspec.json.decode(said, type=dict[str, _Variable])
        except (NotReady, msgspec.DecodeError):
            return ()
        return tuple(sorted(name for name, one in found.items() if not (one.default or one.alternate)))

    def _ask(self, words: Sequence[str], project: str, profiles: Sequence[str]) -> str:
        extra = self.environment(project, profiles) if project else {"PWD": str(self.folder)}
        return docker_cli.run(["docker", "compose", *words], env=docker_cli.environment(extra), folder=self.folder)
