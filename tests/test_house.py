"""Limits on imports inside functions, long hooks, `Any` and unused functions."""

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pytest_llmchaos"
DOORS = ("plugin.py", "chaos_session/hooks.py", "experiment_mark.py", "xdist.py")
MAX_INNER_IMPORTS = 16
MAX_HOOK_LINES = 15
MAX_ANY_PER_1000_LINES = 7.0


def sources():
    return [path.read_text() for path in sorted(PACKAGE.rglob("*.py")) if "_stack" not in path.parts]


def inner_imports(source):
    """Import statements inside functions."""
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = {node for function in functions for node in ast.walk(function)}
    return [node for node in found if isinstance(node, ast.Import | ast.ImportFrom)]


def hooks(source):
    """Each pytest hook of a source, with its lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("pytest_"):
            yield node.name, (node.end_lineno or 0) - node.lineno + 1


def any_names(source):
    """The uses of `Any`, imports left out."""
    tree = ast.parse(source)
    quoted = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and n.value == "Any"]
    return quoted + [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "Any"]


@pytest.fixture
def told(capsys):
    """Print past pytest's capture."""

    def tell(text):
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return tell


def test_few_imports_stand_inside_functions(told):
    found = sum(len(inner_imports(source)) for source in sources())
    noted = sum(source.count("noqa: PLC0415") for source in sources())
    told(f"imports inside functions {found}, noted as such {noted} (at most {MAX_INNER_IMPORTS})")

    assert noted <= MAX_INNER_IMPORTS
    assert found <= noted


def test_hooks_are_short(told):
    found = {f"{door}: {name}": size for door in DOORS for name, size in hooks((PACKAGE / door).read_text())}
    longest = max(found, key=lambda name: found[name])
    told(f"hooks {len(found)}, the longest is {longest} with {found[longest]} lines (at most {MAX_HOOK_LINES})")

    assert {name: size for name, size in found.items() if size > MAX_HOOK_LINES} == {}


def test_nothing_is_there_for_its_tests_alone():
    """A function that only its tests call is dead code."""
    # Names that a library calls: pytest, xdist, httptools, supervisord, requests,
    # testcontainers.
    called_by_name = re.compile(
        r"pytest_\w+|_split_scope|on_\w+|__\w+__|handle_(read_event|write_event|error)|make_connection|_run_command"
        r"|compose_command_property"
    )
    text = "\n".join([*sources(), *(path.read_text() for path in documented_in())])
    used = Counter(re.findall(r"\w+", text))
    defined = {
        node.name
        for source in sources()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }

    assert {name for name in defined if used[name] == 1 and not called_by_name.fullmatch(name)} == set()


def documented_in():
    """Other files that may use a public name, such as templates and documents."""
    yield from (PACKAGE.parent / name for name in ("README.md", "pyproject.toml"))
    for folder, pattern in (
        ("pytest_llmchaos", "*.j2"),
        ("benchmarks", "*.py"),
        ("scenarios", "*.py"),
        ("docs", "*.md"),
    ):
        yield from (PACKAGE.parent / folder).rglob(pattern)


def test_any_is_rare(told):
    count = sum(len(any_names(source)) for source in sources())
    code = sum(len(source.splitlines()) for source in sources())
    told(f"Any {count} times, {1000 * count / code:.1f} per 1,000 lines (at most {MAX_ANY_PER_1000_LINES:g})")

    assert 1000 * count / code <= MAX_ANY_PER_1000_LINES


def test_the_counters_count():
    source = "from typing import Any\nimport a\n\ndef pytest_x(b: Any) -> 'Any':\n    import c\n\n    return b\n"

    assert [node.names[0].name for node in inner_imports(source)] == ["c"]
    assert list(hooks(source)) == [("pytest_x", 4)]
    assert any_names(source) == ["Any", "Any"]
