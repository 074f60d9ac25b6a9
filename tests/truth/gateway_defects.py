"""Defects of the lab's gateway."""

from __future__ import annotations

from truth.defects import SubjectDefect

GATEWAY: tuple[SubjectDefect, ...] = ()
