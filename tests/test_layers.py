"""Import order of the packages, and files where names may stand."""

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pytest_llmchaos"

# The rooms. A file imports from its own room and from rooms above it in this list. An
# import for type checkers counts as well. `runtime.docker` is the folder
# runtime/docker. Other files of runtime/ are the room `runtime`.
ROOMS = (
    "errors", "model",
    "stats", "servers", "loads", "faults", "slo", "subject", "plan",
    "evidence", "host", "prometheus",
    "runtime", "runtime.docker", "runtime.local",
    "loadgen", "cleanup", "lab", "trial", "report", "generate", "session",
    "experiment_mark", "options", "chaos_session", "xdist", "cli", "plugin",
)  # fmt: skip
PURE = ("errors", "model", "stats", "servers", "loads", "faults", "slo", "plan", "subject")
# The files without I/O in a room that also has other files.
PURE_FILES = {
    "pytest_llmchaos/session/unmet.py",
    "pytest_llmchaos/trial/arms.py",
    "pytest_llmchaos/trial/attribution.py",
    "pytest_llmchaos/trial/recovery.py",
    "pytest_llmchaos/trial/trial.py",
    "pytest_llmchaos/trial/result.py",
    "pytest_llmchaos/trial/scaling.py",
    "pytest_llmchaos/trial/slo_result.py",
    "pytest_llmchaos/trial/tasks.py",
    "pytest_llmchaos/trial/tasks_result.py",
}
DOORS = {
    *(PACKAGE / f"{name}.py" for name in ("plugin", "options", "experiment_mark", "xdist")),
    *(PACKAGE / "chaos_session").glob("*.py"),
}
MAX_ROOMS = 28
MAX_LEVELS = 10


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if "_stack" not in p.parts)


def modules_with(something):
    """Finds of a function in the package's modules, by file."""
    return files_with(something, modules())


def files_with(something, files):
    """Finds of a function in files, by file. Files without a find are left out."""
    found = {str(path.relative_to(ROOT)): something(path) for path in sorted(files)}
    return {path: what for path, what in found.items() if what}


@functools.cache
def imports_of(path):
    """Dotted names of a file's imports, with those for type checkers."""
    return tuple(_imports_of(ast.parse(path.read_text())))


def _imports_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module.startswith("pytest_llmchaos"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(dotted):
    """The room of a dotted name, or None for the package itself."""
    parts = dotted.split(".")[1:]
    return next((room for room in (".".join(parts[:2]), parts[0] if parts else "") if room in ROOMS), None)


def room_of_file(path):
    return room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))


def arrows_of(path):
    """The other rooms that a file imports from."""
    ours = room_of_file(path)
    found = {room_of(name) for name in imports_of(path) if name.split(".")[0] == "pytest_llmchaos"}
    return found - {None, ours}


def levels(arrows):
    """The level of each room: 1 without imports, else 1 above the highest import."""
    found = {}
    for room in ROOMS:
        found[room] = 1 + max((found[other] for source, other in arrows if source == room), default=0)
    return found


def test_every_module_stands_in_a_room():
    assert [p for p in modules() if room_of_file(p) is None and p != PACKAGE / "__init__.py"] == []


def test_every_room_exists():
    assert sorted({room_of_file(p) for p in modules()} - {None}) == sorted(ROOMS)


def test_every_folder_of_rooms_has_a_readme_of_a_few_lines():
    folders = [PACKAGE, *(PACKAGE / room.replace(".", "/") for room in ROOMS if not (PACKAGE / f"{room}.py").is_file())]

    lines = {str(folder.relative_to(ROOT)): len((folder / "README.md").read_text().splitlines()) for folder in folders}

    assert {folder: count for folder, count in lines.items() if not 3 <= count <= 20} == {}


def test_a_module_imports_only_from_its_own_room_and_rooms_above_it_in_the_list():
    def upward(path):
        ours = room_of_file(path)
        return ours and [room for room in arrows_of(path) if ROOMS.index(room) > ROOMS.index(ours)]

    assert modules_with(upward) == {}


def test_there_are_few_rooms_on_few_levels(capsys):
    arrows = {(room_of_file(path), other) for path in modules() for other in arrows_of(path) if room_of_file(path)}
    height = max(levels(arrows).values())
    with capsys.disabled():
        sys.stdout.write(
            f"\nrooms {len(ROOMS)} (at most {MAX_ROOMS}), levels {height} (at most {MAX_LEVELS}), arrows {len(arrows)}\n"
        )

    assert len(ROOMS) <= MAX_ROOMS
    assert height <= MAX_LEVELS


def test_only_the_doors_import_pytest():
    assert modules_with(lambda path: "pytest" in imports_of(path) and path not in DOORS) == {}


# httpx is the HTTP client. Exceptions: prometheus-api-client uses requests, and xmlrpc
# over a Unix socket uses http.client.
CLIENTS = {
    PACKAGE / "host" / "http_client.py": {"httpx"},
    PACKAGE / "prometheus" / "http.py": {"requests"},
    PACKAGE / "runtime" / "local" / "control.py": {"http.client"},
}


def test_there_is_one_http_client_outside_the_load_generator():
    def others(path):
        clients = {"requests", "http.client", "urllib.request", "urllib3", "aiohttp", "httpx"}
        return clients.intersection(imports_of(path)) - CLIENTS.get(path, set())

    assert modules_with(others) == {}


def test_the_instrument_never_imports_the_subject():
    def of_the_subject(path):
        return [name for name in imports_of(path) if name.split(".")[0].startswith(("lab_", "offline", "stack"))]

    assert modules_with(of_the_subject) == {}


# Files that may name the lab's metrics and headers: its subject, dashboards and
# signals.
OF_THE_LAB = ("subject/lab.py", "generate/boards/", "generate/prices.py", "generate/signals.py")


def test_the_instrument_names_no_metric_or_header_of_the_lab():
    def names_one(path):
        return "llmlab" in path.read_text().lower() and not str(path.relative_to(PACKAGE)).startswith(OF_THE_LAB)

    assert modules_with(names_one) == {}


def test_the_clients_metrics_are_named_in_one_file():
    assert list(modules_with(lambda path: "llmchaos_client" in path.read_text())) == ["pytest_llmchaos/model.py"]


def test_the_subject_never_imports_the_instrument():
    def of_the_instrument(path):
        return [name for name in imports_of(path) if name.split(".")[0] == "pytest_llmchaos"]

    assert files_with(of_the_instrument, (ROOT / "stack").rglob("*.py")) == {}


def test_the_gate_on_branch_coverage_covers_the_pure_rooms_and_nothing_else():
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]["run"]["include"]
    rooms = {f"pytest_llmchaos/{room}" + (".py" if (PACKAGE / f"{room}.py").is_file() else "/*") for room in PURE}

    assert set(included) == rooms | PURE_FILES
    assert [path for path in included if not list(ROOT.glob(path))] == []


def test_every_file_of_tests_has_a_name_of_its_own_so_that_all_can_be_run_at_once():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]

    assert sorted(names) == sorted(set(names))


def test_no_test_imports_a_test_module():
    tests = sorted((ROOT / "tests").rglob("*.py"))
    names = {path.stem for path in tests if path.stem.startswith("test_")}

    assert files_with(lambda path: names.intersection(imports_of(path)), tests) == {}


def test_helpers_of_tests_are_in_support_and_the_catalogue_of_defects_next_to_its_tests():
    beside = [path for path in (ROOT / "tests").rglob("*.py") if not {"support", "truth"} & set(path.parts)]

    assert [path.name for path in beside if not path.name.startswith("test_") and path.name != "conftest.py"] == []


def test_waiting_with_a_deadline_is_written_once():
    found = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.match(r"(until|wait_(until|for))", node.name)
    ]

    assert found == ["tests/support/waiting.py: until", "tests/support/waiting.py: until_async"]


def test_the_rule_catches_an_upward_import():
    for_types = "if TYPE_CHECKING:\n    from pytest_llmchaos.trial.perform import perform\n"
    tree = ast.parse(f"from pytest_llmchaos.lab.lab import Lab\nfrom pytest_llmchaos import report\n{for_types}")

    assert {room_of(name) for name in _imports_of(tree)} == {None, "lab", "report", "trial"}


def test_a_room_stands_one_level_above_the_highest_that_it_imports_from():
    found = levels({("model", "errors"), ("stats", "errors"), ("loads", "stats")})

    assert [found[room] for room in ("errors", "model", "stats", "loads", "faults")] == [1, 2, 2, 3, 1]
