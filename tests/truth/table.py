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

HEAD = """# Known defects that the tests catch

Look up which scenario or test catches a defect. The catalogue in `tests/truth/` breaks the service in {subject} ways and the
instrument in {instrument}, one small change of the source at a time. Each must turn the claim or the gate in its row red.

```sh
make test        # tries a few, drawn by the commit
make test-all    # tries all
```

To add a defect, add it to the catalogue and update this page with `python tests/truth/table.py`.

{tried}

"""
# Update after each run of all.
TRIED = """Last run of all: 27 November 2026, while the catalogue grew to 74 and 171. All 171 defects of the instrument were caught,
and 73 of the service. The other one, a replica that is given all of its places at once, was caught after its scenario was made a second
longer. On the same day 200 healthy trials in a row, with the seeds 1 to 200, held: no alert, no action, no failed request.
The 22 defects of patterns were each caught on 29 November, by the named claim alone."""


def page() -> str:
    """The whole page."""
    lines = [HEAD.format(subject=len(SUBJECT_DEFECTS), instrument=len(INSTRUMENT_DEFECTS), tried=TRIED)]
    lines += ["## Defects of the service, and the scenario that catches each\n\n"]
    lines += ["| part | defect | scenario | caught by |\n|---|---|---|---|\n"]
    for defect in SUBJECT_DEFECTS:
        by = f"`{defect.caught_by}`" if defect.by_a_claim else f"error `{'` or `'.join(defect.errors)}`"
        lines.append(f"| {defect.part} | {defect.what} | `{defect.scenario}` | {by} |\n")
    lines += ["\n## Defects of the instrument, and the test that catches each\n\n| defect | caught by |\n|---|---|\n"]
    for broken in INSTRUMENT_DEFECTS:
        lines.append(f"| {broken.what} | {', '.join(f'`{test}`' for test in broken.tests)} |\n")
    return "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
