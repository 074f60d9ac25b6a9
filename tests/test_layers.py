"""Imports go one way: a module imports only from lower layers, and the instrument and the subject never import each other."""

import ast
import functools
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pytest_llmchaos"

# Lower numbers know nothing of higher ones. A package stands for everything in it.
LAYERS = {
    "errors": 0,
    "model": 1,
    "seeds": 2, "faults": 2, "prompts": 2, "schedules": 2, "shapes": 2, "traces": 2, "loads": 2, "history": 2, "columns": 2, "quantiles": 2,
    "effects": 2,
    "slo": 2,
    "byo": 3, "places": 2, "openslo": 2, "experiments": 2, "plan": 2, "trial": 2, "attribution": 2, "trialjson": 2, "subject": 2,
    "journal": 3, "owner": 3, "prometheus": 3, "promapi": 3, "samples": 3, "runtime": 3, "loadgen": 3, "slo_judge": 3,
    "heal": 3, "record": 3, "signals": 3, "sweep": 3, "prometheus_binary": 3, "watchdog": 3, "ledger": 3,
    "running": 4, "flood": 4, "injecting": 4, "lab": 4, "judging": 4, "perform": 4, "run": 4, "progress": 4, "campaign": 4,
    "report": 5, "generate": 5,
    "options": 6, "marks": 6, "scheduling": 6, "plugin": 6, "cli": 6,
}  # fmt: skip


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if "_stack" not in p.parts)


@functools.cache
def imports_of(path, *, runtime_only):
    """Names of the modules that a file imports; those for type checkers alone are left out on request."""
    return tuple(_imports_of(path, runtime_only))


def _imports_of(path, runtime_only):
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if runtime_only and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(id(child) for child in ast.walk(node))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "pytest_llmchaos":
                yield from (f"pytest_llmchaos.{alias.name}" for alias in node.names)


def layer_of(dotted):
    parts = dotted.split(".")
    return LAYERS[parts[1]] if len(parts) > 1 and parts[1] in LAYERS else None


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_a_layer():
    missing = sorted({part_of(p) for p in modules()} - set(LAYERS) - {"__init__"})

    assert missing == []


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_layers(path):
    part = part_of(path)
    if part == "__init__":
        return
    upward = [
        name
        for name in imports_of(path, runtime_only=True)
        if name.startswith("pytest_llmchaos.") and (layer_of(name) or 0) > LAYERS[part]
    ]

    assert upward == []


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_doors_import_pytest(path):
    uses = "pytest" in set(imports_of(path, runtime_only=False))

    assert not uses or path.name in {"plugin.py", "marks.py"}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_instrument_never_imports_the_subject(path):
    assert not [
        name
        for name in imports_of(path, runtime_only=False)
        if name.split(".")[0].startswith(("lab_", "labsetup", "stack"))
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "stack").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_subject_never_imports_the_instrument(path):
    assert not [name for name in imports_of(path, runtime_only=False) if name.split(".")[0] == "pytest_llmchaos"]


def test_the_gate_on_branch_coverage_covers_the_pure_layers_and_nothing_else():
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]["run"]["include"]
    pure = {name for name, layer in LAYERS.items() if layer <= 2}

    assert {Path(path).parts[1].removesuffix(".py") for path in included} == pure
    assert [path for path in included if not list(ROOT.glob(path))] == []


def test_every_file_of_tests_has_a_name_of_its_own_so_that_all_can_be_run_at_once():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]

    assert sorted(names) == sorted(set(names))


def test_the_rule_catches_an_upward_import(tmp_path):
    bad = tmp_path / "model.py"
    bad.write_text("from pytest_llmchaos.lab import Lab\nfrom pytest_llmchaos import perform\n")

    names = list(imports_of(bad, runtime_only=True))

    assert [layer_of(name) for name in names if layer_of(name) is not None] == [4, 4]
