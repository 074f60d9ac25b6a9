"""The Docker SDK, loaded at its first use: it costs 0.1 s, and a plan speaks to no daemon."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import DockerClient, errors

__all__ = ["DockerClient", "errors"]


def __getattr__(name: str) -> object:  # the module's own, see PEP 562
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("docker"), name)
