"""Check of a built site for resources of other hosts.

python docs/check_offline.py build/docs
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

_ATTRIBUTES = {"href", "src", "srcset", "data", "poster"}
_PAGE_LINKS = {"a", "area"}  # a reader follows these, the browser does not
_REMOTE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
_REMOTE_IN_CSS = re.compile(r"(?:url\(|@import)\s*(?:url\()?\s*[\"']?((?:https?:)?//[^\"')\s;]+)", re.IGNORECASE)


class _Tags(HTMLParser):
    """Collects what a page's tags load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in _ATTRIBUTES and tag not in _PAGE_LINKS and _REMOTE.match(value or ""):
                self.found.append(f"<{tag} {name}={value}>")
            elif name == "style":
                self.found += _REMOTE_IN_CSS.findall(value or "")


def remote_resources(text: str, suffix: str) -> list[str]:
    """Return the resources that a page or style sheet loads from another host.

    Args:
        text: the file's content.
        suffix: `.html` or `.css`.
    """
    if suffix == ".css":
        return _REMOTE_IN_CSS.findall(text)
    tags = _Tags()
    tags.feed(text)
    return tags.found + [
        found for style in re.findall(r"<style.*?</style>", text, re.DOTALL) for found in _REMOTE_IN_CSS.findall(style)
    ]


def breaches(site: Path) -> Iterator[str]:
    """Return a line for each remote resource of a built site."""
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            text = path.read_text(encoding="utf-8")
            yield from (f"{path.relative_to(site)}: {one}" for one in remote_resources(text, path.suffix))


def main() -> int:
    """Print the breaches. Returns the exit status."""
    site = Path(sys.argv[1])
    if not (site / "index.html").is_file():
        sys.stderr.write(f"{site} has no index.html: build the site with `make docs`\n")
        return 2
    found = list(breaches(site))
    sys.stdout.writelines(f"{line}: expected a file of the site\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
