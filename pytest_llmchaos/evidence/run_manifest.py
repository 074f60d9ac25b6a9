"""Ownership of a run, for other processes that clean up after it."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec

Owner = Annotated[
    str,
    msgspec.Meta(
        description="pid, start time, boot, pid namespace", extra_json_schema={"pattern": "^[0-9]+:[0-9]*:.+$"}
    ),
]


class RunManifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run's stack, journal and owner.

    Another process reverts the run's faults and removes its stack with it. Fields with
    a default are those of an attached run.
    """

    runtime: str
    project: str
    owner: Owner
    owned: bool
    """False for the user's own stack. Its faults are reverted, and it stays."""
    journal: str
    directory: str
    run: str = ""
    targets: tuple[str, ...] = ()
    selectors: dict[str, str] = {}
    """Selector of each service that is no service of the project."""
    noted: str = ""
    """Path of the note of an attached run."""
    daemon: str = ""
    """Address of the Docker daemon that runs the stack."""
    tls: str = ""
    """Folder of the TLS certificates for Docker, or "" without TLS."""
    tls_verify: bool = True
    """True if Docker's certificate is verified."""
    machine: str = ""
    judge: str = ""
    """Compose project of the judge that an attached run started."""

    def to_json(self) -> str:
        """Return ASCII JSON. Unlike msgspec's, it keeps a path that is not UTF-8."""
        return json.dumps(msgspec.to_builtins(self))


def manifest_from(text: str) -> RunManifest:
    """Return the manifest in a note or on a command line.

    Raises:
        ValueError: The text is not JSON, or lacks a field.
    """
    try:
        return msgspec.convert(json.loads(text), RunManifest)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected the manifest of a run: {error}") from None
