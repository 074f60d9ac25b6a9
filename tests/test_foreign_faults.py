"""Faults of other packages, as distributions on the path of a child pytest."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.fake_runtime import FakeRuntime
from support.primitives import REQUIRED

from pytest_llmchaos import BadScenario, faults
from pytest_llmchaos.evidence.journal import read
from pytest_llmchaos.faults import entry_points
from pytest_llmchaos.faults.base import options_of
from pytest_llmchaos.model import UNDO_OPS

ROOT = Path(__file__).parent.parent
TOML, MODULE, SCENARIO, _CONTRACT = re.findall(
    r"```(?:toml|python)\n(.*?)```", (ROOT / "docs" / "faults.md").read_text(), re.DOTALL
)[-4:]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package of docs/faults.md, built and installed as its users would."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(TOML)
    (source / "chaos_migration.py").write_text(MODULE)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    options = ["--no-deps", "--no-build-isolation", "--target", str(site), str(source)]
    subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    return site


def by_hand(site, name, entries, module, version="1.0"):
    """A distribution as installed: its metadata next to its module."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
    (info / "entry_points.txt").write_text(f"[{entry_points.GROUP}]\n{lines}")
    (site / f"{name.replace('-', '_')}.py").write_text(module)
    return site


def child(folder, *paths, code):
    """Output of a fresh interpreter with these folders on its path."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), str(ROOT)])}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def asked(monkeypatch):
    """The error of a fault in these folders, or the fault as text."""

    def said(*sites, name="stun"):
        for site in sites:
            monkeypatch.syspath_prepend(site)
        try:
            return str(getattr(faults, name)("api"))
        except BadScenario as error:
            return str(error)

    _forget()
    yield said
    monkeypatch.undo()
    _forget()


def _forget():
    entry_points.discover.cache_clear()
    entry_points.factory.cache_clear()
    for module in ("chaos_stun", "one", "two"):
        sys.modules.pop(module, None)


def test_a_distribution_of_another_package_is_planned_like_any_fault(tmp_path, installed):
    (tmp_path / "test_migration.py").write_text(SCENARIO)
    args = ["--chaos-plan", "--chaos-seed=42", "-p", "no:cacheprovider", "-p", "no:locust", "-p", "no:randomly"]

    done = child(tmp_path, installed, code=f"import pytest, sys; sys.exit(pytest.main({args!r}))")

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"migration: live_migration model-[12] at \+0 s; constant 2/s", done.stdout)
    assert "1 trial planned with --chaos-seed=42; nothing was touched" in done.stdout


def test_the_coverage_table_of_a_run_lists_it(tmp_path, installed):
    code = """
from pathlib import Path
from pytest_llmchaos.session.run import Run
from pytest_llmchaos.session.settings import Settings
run = Run(Settings(run="r", seed=1, runtime="compose", backend="sim", reports=Path(), repeat=1, worker="", replay_line=""), None)
run.announce([])
"""
    done = child(tmp_path, installed, code=code)

    assert done.returncode == 0, done.stderr
    (line,) = read(tmp_path / "r" / "journal.jsonl")
    assert line["catalogue"]["faults"] == [*faults.CATALOGUE, "live_migration"]


@pytest.mark.parametrize(
    "module",
    [
        MODULE,
        re.sub(r"ClassVar\[(.*)\] =", r"\1 =", MODULE),
        MODULE.replace("@dataclass(frozen=True, kw_only=True)\n", ""),
    ],
    ids=["class variables", "dataclass fields", "no dataclass"],
)
def test_the_example_keeps_the_contract_that_all_faults_keep(module):
    names = {}
    exec(compile(module, "docs/faults.md", "exec", dont_inherit=True), names)
    fault = entry_points.check_foreign("it", "live_migration", names["live_migration"]("api"))
    (act,) = fault.plan(random.Random(1), ("api",))
    runtime = FakeRuntime()
    since = runtime.now()

    assert act.fault.observed(runtime, "api", since) is None
    act.fault.inject(runtime, "api")
    assert act.fault.observed(runtime, "api", since).at_unix_s > since
    runtime.undo(act.fault.undo("api"))
    assert act.fault.healed(runtime, "api", since) is not None
    assert options_of(act.fault) == dict(fault.strength) == {}
    assert fault.with_lease(900) == fault


HEALED = f"def {'healed'}"
GOOD = MODULE.replace("live_migration", "stun")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'): repair or uninstall it"),
        ("other = 1", "AttributeError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def stun(:", "SyntaxError"),
        ("stun = 7", "must be a function that makes a fault, got 7"),
        ("def stun(target):\n    return None", "must be a fault such as faults.kill('api'), got None"),
        ("def stun(target):\n    return 'kill api'", "must be a fault such as faults.kill('api'), got 'kill api'"),
        (
            "from pytest_llmchaos import faults\ndef stun(target):\n    return faults.random(n=1, among=[faults.kill('api')])",
            "must make OnTarget(primitive=..., target=...) whose primitive has `inject`, `undo`, `observed`, `healed`; got RandomFaults",
        ),
        (
            "from pytest_llmchaos import faults\ndef stun(target):\n    return faults.kill(['api', 'model-1'])",
            "has kind='kill'",
        ),
        (
            "from pytest_llmchaos.faults import kill as k, sequence as s\nstun = lambda x: s(k(x), then=k(x), after_s=1)",
            "got Together without `inject`",
        ),
        (GOOD.replace(HEALED, "def heeled"), "got OnTarget without `healed`"),
        (GOOD.replace(HEALED, "def heeled").replace("def undo", "def redo"), "got OnTarget without `undo`"),
        (
            GOOD.replace('kind: ClassVar[str] = "stun"', 'kind: ClassVar[str] = "zap"'),
            "has kind='zap', expected 'stun'",
        ),
        (
            GOOD.replace('kind: ClassVar[str] = "stun"', 'kind: ClassVar[str] = "daze"'),
            "has kind='daze', expected 'stun'",
        ),
        (GOOD.replace('frozenset({"pause", "unpause", "events"})', "frozenset()"), "has needs=frozenset(), expected"),
        (
            GOOD.replace('frozenset({"pause", "unpause", "events"})', '"pause"'),
            "has needs='pause', expected a frozenset",
        ),
        (GOOD.replace('frozenset({"pause", "unpause", "events"})', "frozenset({'pause', 7})"), "expected a frozenset"),
        (
            GOOD.replace('frozenset({"pause", "unpause", "events"})', "frozenset({'pause', ' '})"),
            "expected a frozenset",
        ),
        (GOOD.replace('"passing"', '"short"'), "has lifetime='short', expected 'lasting' or 'passing'"),
        (GOOD.replace('"kernel"', '"perfect"'), "has fidelity='perfect', expected one of real, kernel"),
        (GOOD.replace("    expects", "    expected"), "has expects=None, expected the signal that should show it"),
        (
            re.sub("expects: ClassVar.*", "expects = ' '", GOOD),
            "has expects=' ', expected the signal that should show it",
        ),
        (GOOD.replace('Undo(op="ensure_unpaused"', 'Undo(op="thaw"'), "expected an Undo whose op is one of engine_end"),
        (GOOD.replace('Undo(op="ensure_unpaused", service=victim)', "None"), "is reverted by None"),
    ],
)
def test_a_wrong_one_is_one_error_that_names_its_distribution(tmp_path, asked, module, message):
    site = by_hand(tmp_path / "site", "chaos-stun", {"stun": "chaos_stun:stun"}, module, version="2.3")

    said = asked(site)

    assert "faults.stun of chaos-stun 2.3 (chaos_stun:stun)" in said
    assert message in said
    assert len(said.splitlines()) == 1


def test_two_packages_with_one_name_are_both_named(tmp_path, asked):
    sites = [by_hand(tmp_path / name, name, {"stun": f"{name}:stun"}, GOOD) for name in ("one", "two")]

    said = asked(*sites)

    assert (
        said == "faults.stun is claimed by one 1.0 (one:stun) and two 1.0 (two:stun): expected one; uninstall the other"
    )


def test_one_package_twice_on_the_path_is_one(tmp_path, asked):
    sites = [by_hand(tmp_path / name, "chaos-stun", {"stun": "chaos_stun:stun"}, GOOD) for name in ("here", "there")]

    assert asked(*sites) == "stun api"
    assert str(faults.foreign("stun")("api")) == "stun api"
    assert (faults.stun.__name__, faults.stun.__doc__) == ("stun", faults.foreign("stun").__wrapped__.__doc__)
    assert dir(faults) == sorted([*faults.__all__, "stun"])
    assert faults.foreign_names() == ["stun"]


def test_a_kind_may_be_put_together(tmp_path, asked):
    module = GOOD.replace('kind: ClassVar[str] = "stun"', 'kind: ClassVar[str] = "".join(("st", "un"))')

    assert asked(by_hand(tmp_path / "site", "chaos-stun", {"stun": "chaos_stun:stun"}, module)) == "stun api"


def test_a_name_of_the_catalogue_cannot_be_taken(tmp_path, asked):
    site = by_hand(tmp_path / "site", "chaos-stun", {"kill": "chaos_stun:stun", "base": "chaos_stun:stun"}, GOOD)

    assert asked(site, name="kill") == "kill api"
    assert dir(faults) == sorted(faults.__all__)


def test_a_name_without_a_fault_is_a_missing_attribute():
    with pytest.raises(AttributeError, match=r"there is no faults\.stun; available: .*kill.*xid"):
        _ = faults.stun
    with pytest.raises(BadScenario, match=r"faults\.foreign\('stun'\): no installed package has it; installed: none"):
        faults.foreign("stun")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ([], r"faults\.foreign\(\[\]\): expected the name of a fault of an installed package; installed: none"),
        (None, "expected the name of a fault"),
        ("kill", r"faults\.foreign\('kill'\): this package has it itself; write faults\.kill\(\.\.\.\)"),
        ("together", r"write faults\.together"),
    ],
)
def test_a_wrong_name_of_a_foreign_fault_is_refused_with_what_to_write(name, message):
    with pytest.raises(BadScenario, match=message):
        faults.foreign(name)


def test_importing_the_plugin_looks_for_no_fault(tmp_path):
    code = (
        "import importlib.metadata as m\n"
        "def never(**k): raise SystemExit(f'looked for {k}')\n"
        "m.entry_points = never\n"
        "import pytest_llmchaos.plugin, pytest_llmchaos.faults\n"
        "pytest_llmchaos.faults.kill('api')\n"
        "pytest_llmchaos.faults.stun"
    )

    done = child(tmp_path, code=code)

    assert done.stderr.strip() == "looked for {'group': 'pytest_llmchaos.faults'}"


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in faults.__all__
        if name not in {"every_boundary", "match", "none", "random", "sequence", "timed", "together"}
    ],
)
def test_the_catalogue_keeps_the_contract_of_foreign_faults(name):
    fault = getattr(faults, name)("api", **REQUIRED.get(name, {}))

    assert entry_points.check_foreign("it", name, fault) is fault
    assert fault.primitive.undo("api").op in UNDO_OPS
