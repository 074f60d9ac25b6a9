"""Mutation testing of the packages that compute verdicts.

cosmic-ray makes the mutants, each a small change of the source. The seed draws them,
and they are tried within the given time in two copies of the tree. Of the tests in
tests/mutants.toml, those run that reach a changed line, as coverage reports them. A
mutant that no test notices is printed with its change. Exit status 1 if fewer than the
goal are noticed, 2 if nothing could be measured.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from coverage import CoverageData
from support.copies import ROOT, copy_tree, environment_of
from support.what_runs import runs_the_same

from pytest_llmchaos.stats import intervals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

LIST = ROOT / "tests" / "mutants.toml"
GOAL = 0.9
LANES = 2
TEST_LIMIT_S = 60.0
HEADERS = ("--", "++", "@@")
# pytest's message for a missing test. It ends with an error, as for a failed import.
UNKNOWN_TEST = re.compile(r"^ERROR: (not found|file or directory not found): ", re.MULTILINE)
PYTEST = (
    "-q",
    "--no-header",
    "--hypothesis-profile=gate",
    "-p",
    "no:randomly",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
)


@dataclass(frozen=True, kw_only=True)
class Equivalent:
    """A mutant that no test can notice: the changed line and the reason."""

    file: str
    line: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change: the operator's `occurrence` in a file, and the changed code."""

    file: str
    operator: str
    occurrence: int
    code: str
    diff: tuple[str, ...]
    lines: frozenset[int]

    @property
    def room(self) -> str:
        return Path(self.file).parts[1]

    def __str__(self) -> str:
        return "\n".join([f"{self.file}: {self.operator.partition('/')[2]}", *(f"    {line}" for line in self.diff)])


def places(rooms: Sequence[str]) -> list[tuple[str, str, int]]:
    """Every (file, operator, occurrence) of cosmic-ray in these rooms."""
    found = []
    operators = [(name, operator()) for name in operator_names() if not (operator := get_operator(name)).arguments()]
    for path in sorted(path for room in rooms for path in (ROOT / "pytest_llmchaos" / room).rglob("*.py")):
        nodes = list(ast_nodes(get_ast(path.read_text())))
        for name, operator in operators:
            count = sum(1 for node in nodes for _ in operator.mutation_positions(node))
            found += [(str(path.relative_to(ROOT)), name, number) for number in range(count)]
    return found


def mutant(place: tuple[str, str, int]) -> Mutant | None:
    """The mutant of a place, or None if it does not change running code."""
    file, name, occurrence = place
    code = (ROOT / file).read_text()
    try:
        mutated = mutate_code(code, get_operator(name)(), occurrence)
        if mutated is None or runs_the_same(code, mutated):
            return None
    except (SyntaxError, AttributeError):  # no Python, or what cosmic-ray cannot change: `except (one.Error, Other)`
        return None
    before, after = code.splitlines(), mutated.splitlines()
    diff = tuple(line for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[:2] not in HEADERS)
    changed = [
        block
        for block in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        if block[0] != "equal"
    ]
    lines = {number + 1 for _, first, last, *_ in changed for number in range(first, max(last, first + 1))}
    return Mutant(
        file=file, operator=name, occurrence=occurrence, code=mutated, diff=diff, lines=whole_statements(code, lines)
    )


def whole_statements(code: str, lines: AbstractSet[int]) -> frozenset[int]:
    """These lines and the other lines of their statements.

    coverage reports a statement over several lines by some of them.
    """
    found = set(lines)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
            body = getattr(node, "body", None)
            head = range(first, (body[0].lineno if body else (node.end_lineno or first) + 1) or first)
            found |= set(head) if lines & set(head) else set()
    return frozenset(found)


class Reach:
    """The tests that reach each line, from one run under coverage."""

    CONFIG = "[run]\nsource = pytest_llmchaos\ndata_file = {data}\n"

    def __init__(self, tree: Path, tests: Mapping[str, Sequence[str]]) -> None:
        self._tree = tree
        self._tests = tests
        config, data = tree / "mutants.coveragerc", tree / "mutants.coverage"
        config.write_text(self.CONFIG.format(data=data))
        files = dict.fromkeys(f"tests/{name}.py" for names in tests.values() for name in names)
        command = [sys.executable, "-m", "coverage", "run", f"--rcfile={config}", "-m", "pytest"]
        command += ["-p", "support.contexts", *PYTEST, *files]
        begun_s = time.monotonic()
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment_of(tree),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.run_s = time.monotonic() - begun_s
        if done.returncode != 0:
            raise ValueError(f"the tests fail without any change:\n{(done.stdout + done.stderr)[-2000:]}")
        self._data = CoverageData(str(data))
        self._data.read()

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Tests that reach the changed lines, all of the room for lines at import."""
        by_line = self._data.contexts_by_lineno(str(self._tree / mutant.file))
        contexts = {context for line in mutant.lines for context in by_line.get(line, [])}
        if "" in contexts:
            return [f"tests/{name}.py" for name in self._tests[mutant.room]]
        return sorted(contexts)


class Lane:
    """A copy of the tree in which mutants are tried in turn."""

    def __init__(self, folder: Path) -> None:
        self.tree = copy_tree(folder)

    def is_noticed(self, mutant: Mutant, tests: Sequence[str], limit_s: float = TEST_LIMIT_S) -> bool:
        """True if a test fails, or the tests do not end in time."""
        path = self.tree / mutant.file
        before = path.read_text()
        path.write_text(mutant.code)
        try:
            return not self._passes(tests, limit_s)
        finally:
            path.write_text(before)

    def _passes(self, tests: Sequence[str], limit_s: float) -> bool:
        if not tests:
            return True
        command = [sys.executable, "-m", "pytest", "-x", *PYTEST, *tests]
        try:
            done = subprocess.run(
                command, cwd=self.tree, env=environment_of(self.tree), stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=limit_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        if UNKNOWN_TEST.search(done.stderr):
            raise ValueError(f"pytest does not find all of these tests: {done.stderr}")
        return done.returncode == 0


def is_equivalent(mutant: Mutant, known: Sequence[Equivalent]) -> bool:
    """True if the equivalent mutants have this one, by file and changed line."""
    changed = {line[1:].strip() for line in mutant.diff if line.startswith("+")}
    return any(one.file == mutant.file and one.line in changed for one in known)


def drawn(rooms: Sequence[str], seed: int, files: Sequence[str] = ()) -> Iterator[Mutant]:
    """Mutants in the order of the seed, of all files or of those with these names."""
    everything = [place for place in places(rooms) if not files or Path(place[0]).stem in files]
    random.Random(seed).shuffle(everything)
    return (one for place in everything if (one := mutant(place)) is not None)


def tried(mutants: Iterator[Mutant], lanes: Sequence[Lane], reach: Reach, seconds: float) -> dict[str, Counter[bool]]:
    """Count noticed and unnoticed mutants of each room within the given time."""
    found: dict[str, Counter[bool]] = defaultdict(Counter)
    end = time.monotonic() + seconds
    lock = threading.Lock()

    def work(lane: Lane) -> None:
        while time.monotonic() < end:
            with lock:
                one = next(mutants, None)
            if one is None:
                return
            tests = reach.tests_of(one)
            limit_s = TEST_LIMIT_S + reach.run_s * any("::" not in test for test in tests)
            is_noticed = lane.is_noticed(one, tests, limit_s)
            with lock:
                found[one.room][is_noticed] += 1
                if not is_noticed:
                    print(f"not noticed: {one}", flush=True)

    with ThreadPoolExecutor(len(lanes)) as pool:
        list(pool.map(work, lanes))
    return found


def main(arguments: Sequence[str]) -> int:
    listed = tomllib.loads(LIST.read_text())
    tests: dict[str, list[str]] = listed["tests"]
    known = [Equivalent(**one) for one in listed.get("equivalent", [])]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**16), help="draws the mutants")
    parser.add_argument(
        "--minutes",
        type=float,
        default=3.0,
        help="how long to try mutants, after the first run (default: 3); inf for all",
    )
    parser.add_argument("--room", action="append", choices=sorted(tests), help="of these rooms alone")
    parser.add_argument("--file", action="append", default=[], metavar="NAME", help="of files of this name alone")
    given = parser.parse_args(arguments)
    rooms = given.room or sorted(tests)
    with tempfile.TemporaryDirectory(prefix="llmchaos-mutants-") as folder:
        lanes = [Lane(Path(folder, str(number))) for number in range(LANES)]
        try:
            reach = Reach(lanes[0].tree, {room: tests[room] for room in rooms})
        except ValueError as error:
            print(f"nothing can be measured: {error}")
            return 2
        mutants = (one for one in drawn(rooms, given.seed, given.file) if not is_equivalent(one, known))
        found = tried(mutants, lanes, reach, 60 * given.minutes)
    return report(found, given.seed)


def report(found: Mapping[str, Counter[bool]], seed: int) -> int:
    """Print the table. Returns 0 if the goal is reached."""
    everything = sum(found.values(), Counter[bool]())
    if not everything.total():
        print("no mutant was tried: give more --minutes")
        return 2
    print("\n| room | mutants tried | noticed | share |\n|---|---|---|---|")
    for room, counts in [*sorted(found.items()), ("all", everything)]:
        print(f"| {room} | {counts.total()} | {counts[True]} | {counts[True] / counts.total():.0%} |")
    share = intervals.share(everything[True], everything.total())
    print(
        f"\n{share.value:.1%} of {everything.total()} noticed (95 % interval {share.low:.0%} to {share.high:.0%}), "
        f"goal {GOAL:.0%}; --seed {seed} draws them again"
    )
    return 0 if share.value >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
