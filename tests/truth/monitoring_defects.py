"""Defects of the SLOs, rules and scrapes, and of what the services count."""

from __future__ import annotations

from truth.defects import SubjectDefect

MONITORING: tuple[SubjectDefect, ...] = ()
