"""Defects of the remediator, and of its rules file."""

from __future__ import annotations

from truth.defects import Patch, SubjectDefect

REMEDIATOR: tuple[SubjectDefect, ...] = (
    SubjectDefect(
        name="hung-rule-removed",
        part="remediator",
        what="the remediator has no rule for a hung replica",
        patches=(
            Patch(
                file="stack/remediation.yaml",
                old="- name: replica-hung\n    services: [model-1, model-2]",
                new="- name: replica-hung\n    services: [api]",
            ),
        ),
        scenario="hung_model",
        caught_by="test_a_hung_replica_is_restarted_by_the_remediator",
        only="restarted_by_the_remediator",
    ),
)
