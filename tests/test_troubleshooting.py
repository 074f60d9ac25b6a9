"""Messages on the troubleshooting page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)


def printed(folder: Path) -> set[str]:
    """Texts of the programs in a folder. A text with values has … for each of them."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_message_of_the_page_is_one_that_a_program_prints():
    texts = printed(ROOT / "pytest_llmchaos") | printed(ROOT / "stack")

    assert len(ROWS) >= 15
    assert [row for row in ROWS if not any(row in text for text in texts)] == []
