"""Sphinx configuration of the documentation site.

`make docs` builds it. GitHub shows the same Markdown, so links between pages are paths.
Links that lead out of this folder become links into the repository.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY: str = _PROJECT["urls"]["Repository"]
# Pages that include a page of the repository's root. Their links start there.
INCLUDED = {"changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md", "security": "SECURITY.md"}

project = "pytest-llmchaos"
author = copyright = "the pytest-llmchaos authors"  # noqa: A001 (Sphinx's name for it)
release = version = _PROJECT["version"]

extensions = ["myst_parser"]
exclude_patterns: list[str] = []
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # Pygments' PromQL lacks milliseconds
myst_heading_anchors = 4  # as GitHub names them

html_theme = "furo"
html_title = f"pytest-llmchaos {release}"
html_copy_source = False
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": "docs/"}

# `make links`. Links into the repository are checked as paths when the site is built.
linkcheck_ignore = [rf"{REPOSITORY}/(blob|tree|raw|edit)/.*", r"http://(localhost|127\.0\.0\.1)\b.*"]
linkcheck_retries = 3
linkcheck_timeout = 20


class RepositoryLinks(SphinxTransform):
    """Resolves relative links to files that are not pages of this site.

    A file of the repository becomes a link to it on the web. Links of an included page
    start at the repository's root. Sphinx warns of links to missing files.
    """

    default_priority = 400

    def apply(self, **_kwargs: object) -> None:
        """Replace the document's links."""
        docname = self.env.docname
        base = ROOT if docname in INCLUDED else (DOCS / docname).parent
        for kind in (addnodes.pending_xref, addnodes.download_reference):
            for node in list(self.document.findall(kind)):
                if node.get("reftype") == "myst":
                    self._resolve(node, base)

    def _resolve(self, node: nodes.Element, base: Path) -> None:
        path, _, anchor = node["reftarget"].partition("#")
        if node["refdomain"] == "doc":  # MyST has made a page's name of the path, absolute if outside this folder
            path, anchor = f"{path}.md", node["reftargetid"]
            if not path.startswith("/"):
                return
        target = (base / path).resolve()
        if not path or not target.exists() or not target.is_relative_to(ROOT):
            return
        page = _page(target)
        if page:
            link: nodes.Element = addnodes.pending_xref(
                refdomain="doc",
                reftype="myst",
                reftarget=page,
                reftargetid=anchor or None,
                refdoc=self.env.docname,
                refexplicit=node["refexplicit"],
            )
        else:
            link = nodes.reference(refuri=_url(target) + (f"#{anchor}" if anchor else ""))
        link += node.children
        node.replace_self(link)


def _page(target: Path) -> str | None:
    """Return the site's page that shows this file or folder."""
    for name, source in INCLUDED.items():
        if target == ROOT / source:
            return name
    if target.is_dir():
        target /= "index.md"
    if target.suffix == ".md" and target.is_file() and target.is_relative_to(DOCS):
        return target.relative_to(DOCS).with_suffix("").as_posix()
    return None


def _url(target: Path) -> str:
    kind = "tree" if target.is_dir() else "blob"
    return f"{REPOSITORY}/{kind}/main/{target.relative_to(ROOT).as_posix()}"


def setup(app: Sphinx) -> None:
    """Register the transform with Sphinx."""
    app.add_transform(RepositoryLinks)
