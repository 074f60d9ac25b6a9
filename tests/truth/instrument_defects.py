"""Defects of the instrument: what would make a verdict wrong in silence, were there no test."""

from __future__ import annotations

from truth.defects import InstrumentDefect, Patch

INSTRUMENT_DEFECTS: tuple[InstrumentDefect, ...] = (
    InstrumentDefect(
        name="latency-from-sent-instead-of-due",
        what="a caller that was kept waiting before it could send counts from when it sent",
        patches=(
            Patch(
                file="pytest_llmchaos/stats/windows.py",
                old="code == OK and end - due <= e2e_s",
                new="code == OK and end - first <= e2e_s",
            ),
        ),
        tests=("test_history.py",),
    ),
)
