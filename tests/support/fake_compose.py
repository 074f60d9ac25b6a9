"""`docker compose config` for tests of what a run does with a user's file."""

import json

from pytest_llmchaos.runtime.docker import docker_cli


class FakeCompose:
    """Renders one compose file, and keeps the commands and what they ran in.

    Args:
        config: The file, with every service.
        default_profiles: Profiles of the environment.
        version: Compose's version.
        images: Exposed ports by image.
    """

    def __init__(self, config, *, default_profiles="", version="2.40.3", images=None):
        self.config = config
        self.default_profiles = default_profiles
        self.version = version
        self.images = images or {}
        self.commands = []
        self.environments = []
        self.folders = []

    def install(self, monkeypatch):
        monkeypatch.setattr(docker_cli, "require_engine", lambda: None)
        monkeypatch.setattr(docker_cli, "run", self.run)
        monkeypatch.setattr(docker_cli, "environment", lambda extra=None, **_: dict(extra or {}))
        return self

    def run(self, command, *, env=None, folder=None, **_):
        self.commands.append(list(command))
        self.environments.append(dict(env or {}))
        self.folders.append(folder)
        if "version" in command:
            return self.version
        if command[:3] == ["docker", "image", "inspect"]:
            return json.dumps(self.images.get(command[-1]))
        if command[:2] == ["docker", "ps"] or command[:3] == ["docker", "image", "ls"]:
            return ""
        if "--environment" in command:
            return f"HOME=/\nCOMPOSE_PROFILES={self.default_profiles}\n"
        return json.dumps(self._rendered(env or {}))

    def _rendered(self, env):
        active = set((env.get("COMPOSE_PROFILES") or self.default_profiles).split(","))
        services = {
            name: about
            for name, about in self.config.get("services", {}).items()
            if "*" in active or not about.get("profiles") or active & set(about["profiles"])
        }
        return {"name": "shop", **self.config, "services": services}
