"""Client of the control socket, for use in the agent's container.

Run `python -m fault_agent.console '{"do": "list"}'`. Without an argument, it passes on
lines of standard input.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Iterable

CANNOT_ASK = 2
_ANSWER_DEADLINE_S = 5.0


def main(arguments: list[str] | None = None) -> int:
    """Print the agent's answers. Exit status 1 for a refusal, 2 without an answer."""
    parser = argparse.ArgumentParser(prog="python -m fault_agent.console", description=__doc__)
    parser.add_argument("json", nargs="?", help='such as {"do": "start", "fault": {"kind": "reset", "lease_s": 30}}')
    given = parser.parse_args(arguments)
    path = os.environ.get("LAB_CONTROL") or ""
    try:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(_ANSWER_DEADLINE_S)
            control.connect(path)
            return _ask(control, [given.json] if given.json is not None else sys.stdin)
    except OSError as error:
        sys.stderr.write(f"no agent answers at {path!r} ({error}): is LAB_CONTROL the path of its socket?\n")
        return CANNOT_ASK


def _ask(control: socket.socket, lines: Iterable[str]) -> int:
    status = 0
    with control.makefile("r", encoding="utf-8") as answers:
        for line in lines:
            control.sendall(line.strip().encode() + b"\n")
            answer = answers.readline()
            if not answer:
                raise ConnectionResetError("the connection ended")
            sys.stdout.write(answer)
            sys.stdout.flush()
            status = 1 if answer.startswith('{"error"') else status
    return status


if __name__ == "__main__":
    sys.exit(main())
