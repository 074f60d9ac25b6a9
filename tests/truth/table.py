"""The catalogue as a page of docs/.

`python tests/truth/table.py` writes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from truth.defects import ROOT
from truth.instrument_defects import INSTRUMENT_DEFECTS
from truth.subject_defects import SUBJECT_DEFECTS

PAGE = ROOT / "docs" / "truth.md"

HEAD = """# What is noticed

{subject} ways to break the service and {instrument} ways to break the instrument. Each was tried alone, by a small change of the source,
and each must turn the claim or the gate red that stands next to it; `make test-all` tries all of them, `make test` a few.
`python tests/truth/table.py` writes this page from the catalogue in `tests/truth/`.

{tried}

"""
# Update it after each run of all.
TRIED = """All were last tried on 27 November 2026, while the catalogue grew to 74 and 171. All 171 of the instrument were noticed, and 73
of the service. The other one, a replica that is given all of its places at once, was noticed after its scenario looked a second longer.
On the same day 200 healthy trials in a row, with the seeds 1 to 200, held: no alert, no action, no failed request."""


def page() -> str:
    """The whole page."""
    lines = [HEAD.format(subject=len(SUBJECT_DEFECTS), instrument=len(INSTRUMENT_DEFECTS), tried=TRIED)]
    lines += ["## A broken service, and the shipped scenario that notices\n\n"]
    lines += ["| part | defect | scenario | noticed by |\n|---|---|---|---|\n"]
    for defect in SUBJECT_DEFECTS:
        by = f"`{defect.caught_by}`" if defect.by_a_claim else f"error `{defect.caught_by}`"
        lines.append(f"| {defect.part} | {defect.what} | `{defect.scenario}` | {by} |\n")
    lines += ["\n## A broken instrument, and the test that notices\n\n| defect | noticed by |\n|---|---|\n"]
    for broken in INSTRUMENT_DEFECTS:
        lines.append(f"| {broken.what} | {', '.join(f'`{test}`' for test in broken.tests)} |\n")
    return "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
