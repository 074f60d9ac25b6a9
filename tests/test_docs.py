"""What the documents say is true of the code: examples run, every fault and option is named."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from pytest_llmchaos import faults, loads, options
from pytest_llmchaos.stats.windows import Window
from pytest_llmchaos.trial.trial import Trial

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FOLDERS = ("benchmarks", "dashboards", "docs", "examples", "pytest_llmchaos", "scenarios", "stack", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b.strip().splitlines()[0][:40])
def test_every_example_of_the_readme_runs(block):
    names: dict[str, object] = {}

    exec(compile(block, "README.md", "exec"), names)

    assert [name for name in names if name.startswith("test_")]


def test_the_readme_shows_the_shipped_scenario():
    shipped = ast.parse((ROOT / "scenarios" / "test_kill_api.py").read_text())
    shown = ast.parse(BLOCKS[0])

    assert ast.dump(shown) == ast.dump(shipped)


def test_the_two_commands_are_in_the_readme_and_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()

    for command in ("chaos", "test"):
        assert f"make {command}" in README
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)


@pytest.fixture(scope="module")
def package_page(tmp_path_factory):
    """The long description of a built wheel, which the package index shows."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(metadata)).get_payload(decode=True).decode()


def test_the_package_page_has_no_relative_link(package_page):
    assert relative_links(package_page) == []


def test_the_package_page_links_into_the_repository(package_page):
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    linked = re.findall(rf"{re.escape(repository)}/(?:blob|raw)/main/([^)#\s]*)", package_page)

    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def relative_links(markdown):
    """Return the targets of inline links, reference links, `<a>` and `<img>` that have no scheme."""
    inline = r"\]\(\s*<?([^)\s>]+)"
    reference = r"^\[[^\]]+\]:[ \t]+(\S+)"
    html = r"<(?:a|img)\b[^>]*\b(?:href|src)=[\"']([^\"']+)"
    targets = [target for kind in (inline, reference, html) for target in re.findall(kind, markdown, re.MULTILINE)]
    return [target for target in targets if not re.match("[a-z]+:", target)]


def test_a_relative_link_of_each_kind_is_found():
    page = "[a](b.md) ![c](d.png) [e](#f)\n[g]: h.md\n<a href=\"i\"><img src='j'></a> [k](https://l.example)"

    assert sorted(relative_links(page)) == ["#f", "b.md", "d.png", "h.md", "i", "j"]


@pytest.mark.parametrize("name", faults.__all__)
def test_every_fault_is_documented(name):
    assert f"faults.{name}(" in README


@pytest.mark.parametrize("name", ["open_loop", "poisson", "ramp", "burst", "sine", "trace"])
def test_every_load_is_documented(name):
    assert hasattr(loads, name)
    assert f"loads.{name}" in README
    assert f"loads.{name}" in (ROOT / "docs" / "load.md").read_text()


def test_everything_that_a_claim_reads_in_the_readme_is_there():
    of_trials = set(re.findall(r"`trial\.(\w+)", README))
    of_windows = set(
        re.findall(r"`(\w+)(?:\.\w+)?`", next(row for row in README.splitlines() if "`trial.whole`" in row))
    )

    assert {name for name in of_trials if not has(Trial, name)} == set()
    assert {name for name in of_windows - {"trial"} if not has(Window, name)} == set()
    assert {"during_fault", "repaired_by", "slo"} <= of_trials
    assert {"availability", "ttft_s"} <= of_windows


def has(cls, name):
    return name in cls.__dataclass_fields__ or hasattr(cls, name)


@pytest.mark.parametrize("name", [row[0] for row in options.OPTIONS])
def test_every_option_is_documented(name):
    assert f"--chaos-{name}" in README


@pytest.mark.parametrize("name", [row[0] for row in options.INI])
def test_every_ini_key_is_documented(name):
    assert name in README + (ROOT / "docs" / "byo.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_links_to_and_every_path_that_it_names_is_there(page):
    text = page.read_text()
    links = [page.parent / link for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)]
    paths = [ROOT / path for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`", text)]

    assert [str(path) for path in (*links, *paths) if not path.exists()] == []


MADE_UP = {"chaos_migration.py"}  # the example of docs/faults.md
TREE = {path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_python_file_that_a_page_names_is_there(page):
    """A README names files of its own folder by their name; another page, or one with a folder before it, any file."""
    below = f"{page.parent.relative_to(ROOT).as_posix()}/" if page.name == "README.md" and page.parent != ROOT else ""
    named = set(re.findall(r"`([\w./-]+\.py)`", page.read_text())) - MADE_UP

    lost = [
        name
        for name in sorted(named)
        if not any(f"/{path}".endswith(f"/{name}") and path.startswith("" if "/" in name else below) for path in TREE)
    ]
    assert lost == []


# Tests are not looked at: they make up paths.
TEXTS = sorted(
    [
        *(ROOT / name for name in ("Makefile", "pyproject.toml", "conftest.py", ".ci/run")),
        *(ROOT / ".github").rglob("*.yml"),
        *(
            path
            for folder in set(FOLDERS) - {"tests", "docs"}
            for path in (ROOT / folder).rglob("*")
            if path.suffix in {".py", ".yaml", ".yml", ".cfg", ".sh", ".j2"}
            and not {"context", "wheels"} & set(path.parts)
        ),
    ]
)


def test_every_path_and_module_that_a_page_a_comment_or_a_message_names_is_there():
    lost = {file.relative_to(ROOT).as_posix(): lost_names(file.read_text()) for file in (*PAGES, *TEXTS)}

    assert {file: names for file, names in lost.items() if names} == {}


def lost_names(text):
    ends = "py|md|json|ya?ml|toml|cfg|sh"
    paths = set(re.findall(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w\.(?:{ends}))\b", text))
    modules = set(re.findall(r"\bpytest_llmchaos((?:\.[a-z_]\w*)+)", text))
    return sorted(
        {path for path in paths if not (ROOT / path).exists()} | {one for one in modules if not named_in_package(one)}
    )


def named_in_package(dotted):
    """Whether `.a.b.c` is a module of the package, or a name in one. Nothing is imported."""
    place = ROOT / "pytest_llmchaos"
    for part in dotted.strip(".").split("."):
        if (place / part).is_dir():
            place /= part
        elif (place / f"{part}.py").is_file():
            return True
        else:
            return bool(re.search(rf"\b{part}\b", (place / "__init__.py").read_text()))
    return True


def test_a_path_and_a_module_that_are_gone_are_found():
    assert lost_names("# as stack/labsetup/x.py and pytest_llmchaos.judging.judged do") == [
        ".judging.judged",
        "stack/labsetup/x.py",
    ]
    assert named_in_package(".trial.perform")
    assert named_in_package(".loadgen.tail.merge")
    assert named_in_package(".faults.kill")
    assert named_in_package(".experiment")
    assert not named_in_package(".judging")
    assert not named_in_package(".trial.judging")


def test_the_pages_have_links_and_paths_to_look_at():
    """Else the test above would hold of nothing."""
    slo = (ROOT / "docs" / "slo.md").read_text()

    assert "](docs/" in README
    assert "`tests/processes/test_prometheus_versions.py`" in slo
