"""Ini keys of a user's own stack, and the files that they name."""

import shutil
from pathlib import Path

from pytest_llmchaos.subject import own_stack

KEYS = {
    "compose": ("compose.yaml",),
    "api": "web",
    "prometheus": "prom",
    "targets": ("web", "worker"),
    "slo": "slo.yaml",
}


def make_folder(folder):
    """A compose file and an SLO file."""
    (folder / "compose.yaml").write_text("services: {}\n")
    shutil.copy(Path(__file__).parent / "tiny" / "slo.yaml", folder)
    return folder


def subject_of(folder, **changes):
    return own_stack.own_subject(own_stack.OwnKeys(**{**KEYS, **changes}), folder)
