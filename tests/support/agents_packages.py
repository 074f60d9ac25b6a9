"""Packages of the lab's agents, for processes of tests."""

import os
from pathlib import Path

from pytest_llmchaos.runtime.local import prerequisites

SERVICES = Path(__file__).parents[2] / "stack" / "services"


def agents_path():
    """Value of PYTHONPATH for a process of the lab's agents or its desk."""
    packages = prerequisites.agents_packages(SERVICES / "requirements-agents.lock")
    return os.pathsep.join([str(packages), str(SERVICES)])


if __name__ == "__main__":
    agents_path()
