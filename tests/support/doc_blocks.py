"""Code blocks of Markdown pages and the commands in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^ *(?P=ticks) *$", re.MULTILINE | re.DOTALL
)
_FILE = re.compile(r"`([\w.-]+\.\w+)`[^`\n]*:\s*\Z")
_NESTED = re.compile(r"\$\(((?:[^()]|\([^()]*\))*)\)")
_ENDS = {"&&", "||", "|", ";", "&", "(", ")", "|&"}


class BadBlock(AssertionError):
    """A block that its checker refuses."""


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    `file` is the name in backticks in a line before it that ends with a colon: the page
    has the reader save the block under that name.
    """

    page: str
    line: int
    language: str
    why: str
    text: str
    file: str = ""

    def __str__(self) -> str:
        """The place, as compilers print it."""
        return f"{self.page}:{self.line}"


def blocks_of(page: str, markdown: str) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    for match in _FENCE.finditer(markdown):
        language, _, why = match["info"].strip().partition(" ")
        named = _FILE.search(markdown[: match.start()])
        line = markdown.count("\n", 0, match.start()) + 1
        yield Block(page, line, language, why.strip(), textwrap.dedent(match["body"]), named[1] if named else "")


def lines_of(block: Block) -> list[str]:
    """The command lines of a block, without prompts, output and comment lines."""
    text = re.sub(r"\\\n\s*", " ", block.text)
    lines = text.splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def output_of(block: Block) -> list[str]:
    """The lines of a console block that commands print."""
    if block.language != "console":
        return []
    return [line for line in block.text.splitlines() if line.strip() and not line.startswith("$ ")]


def commands_of(line: str) -> Iterator[list[str]]:
    """The simple commands of a line as words, those in `$(...)` and `sh -c` included.

    Variables before a command and redirections are left out.
    """
    for nested in _NESTED.findall(line):
        yield from commands_of(nested)
    lexer = shlex.shlex(_NESTED.sub("SUBSTITUTED", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in _ENDS:
            words.append(word)
            continue
        while words and (re.match(r"[A-Za-z_]\w*=", words[0]) or words[0] in {"sudo", "then", "do"}):
            user = words.pop(0) == "sudo" and words[:1] in (["-iu"], ["-u"])
            words = words[2:] if user else words
        if words[:2] in (["sh", "-c"], ["bash", "-c"]):
            yield from commands_of(words[2])
        elif words:
            yield words
        words = []
