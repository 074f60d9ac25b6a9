"""Generator of docs/reference/.

python docs/generate_reference.py            writes the pages
python docs/generate_reference.py --check    lists those that differ, and exits with 1
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "stack" / "services")]  # this checkout, and the lab's exporters

from reference_pages import catalogue, claims, formats, gateway, metrics, outcomes, servers, settings  # noqa: E402
from reference_pages.docstrings import Source  # noqa: E402
from reference_pages.markdown import bullets, fence, page  # noqa: E402

FOLDER = ROOT / "docs" / "reference"
INDEX = (
    ("experiment.md", "the arguments of an experiment"),
    ("faults.md", "every fault, with its arguments, lifetime and fidelity"),
    ("loads.md", "every load, with its arguments"),
    ("trial.md", "what a claim reads"),
    ("arms.md", "what a claim on two settings of the system reads"),
    ("windows.md", "counts, shares and latencies of a part of a trial"),
    ("values.md", "signals, incidents, service levels, replicas"),
    ("lab.md", "the running stack, for tests without `experiment()`"),
    ("verdicts.md", "what each verdict means, and how pytest reports it"),
    ("errors.md", "the tree of errors"),
    ("options.md", "options of pytest"),
    ("ini.md", "keys of the ini file"),
    ("commands.md", "the `llmchaos` command"),
    ("gateway.md", "settings of the lab's gateway"),
    ("metrics.md", "metrics and alerts of the instrument and of the lab"),
    ("servers.md", "what each model server exports, under which names"),
    ("formats.md", "`run.json` and `journal.jsonl`"),
)


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    source = Source(claims.links())
    made = {
        "experiment.md": claims.experiment_page(source),
        "faults.md": catalogue.faults_page(source),
        "loads.md": catalogue.loads_page(source),
        **claims.class_pages(source),
        "verdicts.md": outcomes.verdicts_page(),
        "errors.md": outcomes.errors_page(source),
        "options.md": settings.options_page(),
        "ini.md": settings.ini_page(),
        "commands.md": settings.commands_page(),
        "gateway.md": gateway.gateway_page(),
        "metrics.md": metrics.metrics_page(),
        "servers.md": servers.servers_page(),
        "formats.md": formats.formats_page(),
    }
    return {"index.md": _index(made), **made}


def _index(made: dict[str, str]) -> str:
    titles = {name: text.partition("\n# ")[2].partition("\n")[0] for name, text in made.items()}
    links = bullets(f"[{titles[name]}]({name}): {about}" for name, about in INDEX)
    names = "\n".join(name.removesuffix(".md") for name, _ in INDEX)
    return page(
        "Reference",
        "These pages are generated from the code.",
        links,
        fence(f":hidden:\n\n{names}", "{toctree}"),
    )


def differing(made: dict[str, str], folder: Path = FOLDER) -> dict[Path, str | None]:
    """Return the pages that differ from the code.

    Args:
        made: The text of each page, as `pages` returns them.
        folder: The folder of the pages.

    Returns:
        The wanted text of each, or None for a page to remove.
    """
    wanted = {folder / name: text for name, text in made.items()}
    present = {path: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return {path: wanted.get(path) for path in present | wanted if present.get(path) != wanted.get(path)}


def main() -> int:
    """Write or check the pages. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Write docs/reference/ from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page differs")
    arguments = parser.parse_args()
    found = differing(pages())
    for path, text in sorted(found.items()):
        name = path.relative_to(ROOT)
        if arguments.check:
            sys.stdout.write(f"{name} differs: run `make generate`\n")
        elif text is None:
            path.unlink()
            sys.stdout.write(f"removed {name}\n")
        else:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {name}\n")
    return 1 if arguments.check and found else 0


if __name__ == "__main__":
    sys.exit(main())
