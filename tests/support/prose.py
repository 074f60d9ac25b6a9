"""Prose rules: phrases, first lines and docstring sections.

    python tests/support/prose.py [PATH ...]    lists what breaks a rule
    python tests/support/prose.py --counts      prints the table of counts

`make lint` fails on each of them. CONTRIBUTING has the reasons.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LONGEST_FIRST_LINE = 80
MEDIAN_FIRST_LINE = 60
# Text that is data: prompts, recorded answers, hostile input, and this list.
DATA = (
    "pytest_llmchaos/loads/prompts",
    "pytest_llmchaos/report/vendor/",
    "tests/data/",
    "tests/golden/",
    "tests/support/prose.py",
    "tests/test_prose.py",
    "reports/sample/",
)
# Files of settings, of which the comments are read.
SETTINGS = (".yaml", ".yml", ".toml", ".cfg", ".env", ".sh", "Makefile", "Dockerfile", "Modelfile", ".ci/run")
# Their strings are lines of source. The names of defects are checked on docs/truth.md.
SOURCE = ("tests/truth/",)
PHRASES = {
    r"\b(nobody|somebody|whoever|everybody|anybody)\b": "name the actor: Docker, the client, the remediator",
    r"\b(tells?|told|telling)\b": "reports, returns, distinguishes",
    r"\b(speaks?|spoke|spoken|speaking)\b": "sends, uses, describes",
    r"\b(say|says|said|saying)\b": "reports, states, prints, means",
    r"\b(ask|asks|asked|asking)\b": "requests, queries, reads",
    r"\b(know|knows|knew|knowing)\b": "has, reads, lists",
    r"\bbeliev(e|es|ed)\b": "assumes",
    r"\b(is|are|was|were|of|has|have) none\b": "is not, lacks, None",
    r"\b(has|have|had) not (an?|the|its|their|any|that|this|one|enough)\b": "lacks",
    r"\bbeside\b": "next to, alongside, with",
    r"\balso (where|when)\b": "even if",
    r"[«»]": "straight quotes or backticks",
    r"\b(give|gives|gave|given|giving) back\b": "restores, returns",
    r"\bheal(s|ed|ing)?\b": "reverts (our fault), repairs (the system)",
    r"\bundo(es|ne|ing)\b": "reverted",
    r"\bleft[- ]?over\b|\bleft behind\b|\bleftovers?\b": "orphan",
    r"\bas good as\b": "equivalent to",
    r"\bany more\b": "no longer",
    r"\bin vain\b": "without success",
    r"\b(lest|whereby|thereof|therein|herein)\b": "plain words",
}
_PHRASES = {
    re.compile(pattern, 0 if " none" in pattern else re.IGNORECASE): instead for pattern, instead in PHRASES.items()
}  # the code's `is None` is no prose
_FIRST = re.compile(r"(What|Who|Whose|Whether|Whatever|Where|When|Which|That|How|From)\b")
# A test's name is read without the name of its class.
_HALF = re.compile(
    r"test_(that|whose|of|which|is|are|has|have|had|does|do|did|can|could|may|must|will|says|holds|agree|differ"
    r"|as|by|beyond|under|judges|needs|takes|goes|comes)_"
)
_CODE = re.compile(r"``[^`]*``|`[^`]*`|\{[^{}]*\}|\"[^\" ]*\"")
_COMMAND = re.compile(r"llmchaos heal|heal_failed|HealFailed")


@dataclass(frozen=True)
class Breach:
    """One place that breaks a rule."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        """One line, as compilers print it."""
        return f"{self.path}:{self.line}: {self.rule}: {self.text.strip()[:110]}"


def tracked(paths: Sequence[str] = ()) -> list[str]:
    """The files that the rules hold for: Python, Markdown and settings."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    return sorted(
        name
        for name in names
        if name.endswith((".py", ".md", *SETTINGS)) and not name.startswith(DATA) and (ROOT / name).is_file()
    )


def breaches(name: str, text: str) -> Iterator[Breach]:
    """All breaches of one file."""
    if name.endswith(".md"):
        yield from _of_markdown(name, text)
        return
    if name.endswith(SETTINGS):
        yield from _of_settings(name, text)
        return
    tree = ast.parse(text)
    docstrings = _docstrings(tree)
    for line, kind, prose in _prose(text, {first for _, first, _ in docstrings}):
        if kind == "message" and name.startswith(SOURCE):
            continue
        yield from _of_phrases(name, line, prose)
        if kind != "message" and ";" in _CODE.sub("", prose):
            yield Breach(name, line, "semicolon: one clause a sentence", prose)
    for node, line, docstring in docstrings:
        if "scenarios/" not in name:  # their docstrings are hypotheses
            yield from _of_first_line(name, line, docstring, is_module=isinstance(node, ast.Module))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for breach in _of_phrases(name, node.lineno, node.name.replace("_", " ")):
                yield Breach(name, node.lineno, breach.rule, node.name)
            if _HALF.match(node.name):
                yield Breach(name, node.lineno, "test name: a whole sentence, from its subject", node.name)


def _of_first_line(name: str, line: int, docstring: str, *, is_module: bool) -> Iterator[Breach]:
    first = docstring.strip().partition("\n")[0]
    if _FIRST.match(first):
        yield Breach(name, line, "first word: a noun phrase or an imperative verb", first)
    if is_module and len(first) > LONGEST_FIRST_LINE:
        yield Breach(name, line, f"first line of a module: {len(first)} > {LONGEST_FIRST_LINE} characters", first)
    if is_module and re.search(r"\b(nothing|pure|no i/o)\b", first, re.IGNORECASE):
        yield Breach(name, line, "abstention: state what the module does", first)


def _of_markdown(name: str, text: str) -> Iterator[Breach]:
    fenced = False
    for line, content in enumerate(text.splitlines(), 1):
        if content.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield from _of_phrases(name, line, content)


def _of_settings(name: str, text: str) -> Iterator[Breach]:
    for line, content in enumerate(text.splitlines(), 1):
        if found := re.search(r"(?:^|\s)#(?!#)(.*)", content):
            yield from _of_phrases(name, line, found[1])
            if ";" in _CODE.sub("", found[1]):
                yield Breach(name, line, "semicolon: one clause a sentence", found[1])


def _of_phrases(name: str, line: int, text: str) -> Iterator[Breach]:
    bare = _COMMAND.sub("", _CODE.sub("", text))
    for pattern, instead in _PHRASES.items():
        if found := pattern.search(bare):
            at = max(0, found.start() - 40)
            yield Breach(name, line, f"{found[0]!r} -> {instead}", " ".join(bare[at : found.end() + 60].split()))


def _docstrings(tree: ast.Module) -> list[tuple[ast.AST, int, str]]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [
        (node, node.body[0].lineno, docstring)
        for node in ast.walk(tree)
        if isinstance(node, kinds) and (docstring := ast.get_docstring(node)) is not None
    ]


def _prose(text: str, docstring_lines: set[int]) -> Iterator[tuple[int, str, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT:
            yield line, "comment", token.string.lstrip("# ")
        elif token.type == tokenize.STRING and line in docstring_lines:
            for number, part in enumerate(token.string.splitlines()):
                yield line + number, "docstring", part
        elif tokenize.tok_name[token.type] in {"STRING", "FSTRING_MIDDLE"} and " " in token.string.strip():
            yield line, "message", token.string


def first_lines(names: Sequence[str]) -> dict[str, list[int]]:
    """Lengths of modules' first lines by top folder, without scenarios."""
    found: dict[str, list[int]] = {}
    for name in names:
        if (
            name.endswith(".py")
            and "scenarios/" not in name
            and (docstring := ast.get_docstring(ast.parse((ROOT / name).read_text())))
        ):
            found.setdefault(name.split("/")[0], []).append(len(docstring.partition("\n")[0]))
    return found


def long_medians(lengths: Mapping[str, Sequence[int]]) -> Iterator[Breach]:
    """Folders whose median first line is above the limit."""
    for folder, found in lengths.items():
        if (median := statistics.median(found)) > MEDIAN_FIRST_LINE:
            text = f"median {median:g} > {MEDIAN_FIRST_LINE} characters"
            yield Breach(folder, 0, "first line of a module", text)


def counts() -> str:
    """A table of breaches by rule and folder, and the lengths of first lines."""
    found: dict[str, Counter[str]] = {}
    names = tracked()
    for name in names:
        folder = "documents" if name.endswith(".md") else "settings" if name.endswith(SETTINGS) else name.split("/")[0]
        for breach in breaches(name, (ROOT / name).read_text()):
            found.setdefault(breach.rule.split(" -> ")[-1].split(":")[0], Counter())[folder] += 1
    firsts = first_lines(names)
    folders = sorted({folder for row in found.values() for folder in row} | set(firsts))
    rows = [f"{'':58}" + "".join(f"{folder[:14]:>16}" for folder in folders)]
    rows += [
        f"{rule[:56]:58}" + "".join(f"{row[folder]:>16}" for folder in folders) for rule, row in sorted(found.items())
    ]
    medians = (f"{statistics.median(firsts[folder]):>16}" if folder in firsts else f"{'':>16}" for folder in folders)
    return "\n".join([*rows, f"{'first line of a module, median of characters':58}" + "".join(medians)])


def main(arguments: Sequence[str]) -> int:
    """Print breaches or counts."""
    if "--counts" in arguments:
        print(counts())
        return 0
    names = tracked(arguments)
    found = [breach for name in names for breach in breaches(name, (ROOT / name).read_text())]
    if not arguments:
        found += long_medians(first_lines(names))
    for breach in found:
        print(breach)
    if found:
        print(f"{len(found)} breaches of the rules in CONTRIBUTING.md")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
