"""Files that a load reads: where they are, and their text."""

from __future__ import annotations

import gzip
import sys
import zlib
from pathlib import Path

from pytest_llmchaos.errors import BadScenario

# Text of a file is held in memory, and its JSON takes several times its size.
MAX_BYTES = 512 * 2**20
_PACKAGE = __name__.partition(".")[0]


def beside_caller(path: str | Path) -> Path:
    """Return the path. A relative one is relative to the file that calls this package.

    The current folder is that of the pytest command, which differs between machines.
    Without a file, such as in a console, it is relative to the current folder.
    """
    frame = sys._getframe(1)  # noqa: SLF001 - `inspect.stack` reads the source of each frame
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return (Path(frame.f_globals.get("__file__") or "here").absolute().parent / path).absolute()


def text_of(file: Path) -> str:
    """Return the file's text: UTF-8, or UTF-16 with a byte order mark, may be gzipped.

    Raises:
        BadScenario: It is not text, larger than 512 MiB, or cannot be read.
    """
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if packed:
                with gzip.open(raw) as unpacked:
                    content = unpacked.read(MAX_BYTES + 1)
            else:
                content = raw.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadScenario(f"cannot read {str(file)!r}: {error}") from error
    if len(content) > MAX_BYTES:
        raise BadScenario(f"{str(file)!r} is larger than {MAX_BYTES >> 20} MiB: cut it to the part you need")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content[:4096]:
        raise BadScenario(
            f"{str(file)!r} is not a text file (it begins with {content[:8]!r}): write it as CSV or JSON lines"
        )
    return content.decode("utf-8-sig", errors="replace")
