"""Ownership of a run: what another process needs to undo its faults and remove its stack."""

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
    """One run's stack, journal and owner. The fields with a default are those of an attached run."""

    runtime: str
    project: str
    owner: Owner
    owned: bool
    """False for a stack that the user started: its faults are undone, and it stays."""
    journal: str
    directory: str
    run: str = ""
    targets: tuple[str, ...] = ()
    noted: str = ""
    """Path of the note of an attached run."""
    daemon: str = ""
    """Address of the Docker daemon that has the stack."""
    tls: str = ""
    """Folder of the certificates with which it is reached; "" without TLS."""
    tls_verify: bool = True
    """Whether the daemon's certificate is checked."""
    machine: str = ""

    def to_json(self) -> str:
        """ASCII. A path that is not UTF-8 is kept, which msgspec's own encoder refuses."""
        return json.dumps(msgspec.to_builtins(self))


def manifest_from(text: str) -> RunManifest:
    """The manifest in a note or on a command line. Raises ValueError for text that lacks a part of it."""
    try:
        return msgspec.convert(json.loads(text), RunManifest)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected the manifest of a run: {error}") from None
