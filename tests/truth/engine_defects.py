"""Defects of the simulated engine."""

from __future__ import annotations

from truth.defects import SubjectDefect

ENGINE: tuple[SubjectDefect, ...] = ()
