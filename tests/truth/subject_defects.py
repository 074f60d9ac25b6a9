"""All defects of the subject."""

from __future__ import annotations

from truth.engine_defects import ENGINE
from truth.gateway_defects import GATEWAY
from truth.monitoring_defects import MONITORING
from truth.pattern_defects import PATTERNS
from truth.remediator_defects import REMEDIATOR

SUBJECT_DEFECTS = (*GATEWAY, *PATTERNS, *ENGINE, *REMEDIATOR, *MONITORING)
