"""Documents and code agree: examples run, and links, paths and names exist."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from pytest_llmchaos import loads
from pytest_llmchaos.stats.bounded import Seconds
from pytest_llmchaos.stats.windows import Window
from pytest_llmchaos.trial.replicas import Replicas
from pytest_llmchaos.trial.tasks import Tasks
from pytest_llmchaos.trial.trial import Trial

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FOLDERS = ("benchmarks", "dashboards", "docs", "examples", "pytest_llmchaos", "scenarios", "stack", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
# Values of a trial that have values of their own, of which pages name some.
VIEWS = {
    "after_fault": Window,
    "before_fault": Window,
    "during_fault": Window,
    "replicas": Replicas,
    "tasks": Tasks,
    "time_to_recover_s": Seconds,
    "whole": Window,
}
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b.strip().splitlines()[0][:40])
def test_every_example_of_the_readme_runs(block):
    names: dict[str, object] = {}

    exec(compile(block, "README.md", "exec"), names)

    assert [name for name in names if name.startswith("test_")]


def test_the_readme_shows_parts_of_the_shipped_scenario():
    shipped = ast.parse((ROOT / "scenarios" / "test_kill_api.py").read_text())
    shown = ast.parse(BLOCKS[0])

    assert [ast.unparse(part) for part in shown.body if ast.dump(part) not in map(ast.dump, shipped.body)] == []
    assert ast.get_docstring(shown) == ast.get_docstring(shipped)


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
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    repository = urls["Repository"]
    linked = re.findall(rf"{re.escape(repository)}/(?:blob|raw)/main/([^)#\s]*)", package_page)

    assert [url for url in urls.values() if not url.startswith(repository)] == []
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def relative_links(markdown):
    """Return the targets without a scheme, of Markdown links and of tags."""
    inline = r"\]\(\s*<?([^)\s>]+)"
    reference = r"^\[[^\]]+\]:[ \t]+(\S+)"
    html = r"<(?:a|img)\b[^>]*\b(?:href|src)=[\"']([^\"']+)"
    targets = [target for kind in (inline, reference, html) for target in re.findall(kind, markdown, re.MULTILINE)]
    return [target for target in targets if not re.match("[a-z]+:", target)]


def test_a_relative_link_of_each_kind_is_found():
    page = "[a](b.md) ![c](d.png) [e](#f)\n[g]: h.md\n<a href=\"i\"><img src='j'></a> [k](https://l.example)"

    assert sorted(relative_links(page)) == ["#f", "b.md", "d.png", "h.md", "i", "j"]


@pytest.mark.parametrize("name", ["open_loop", "poisson", "ramp", "burst", "sine", "trace"])
def test_the_page_on_loads_shows_every_load(name):
    assert hasattr(loads, name)
    assert f"loads.{name}" in (ROOT / "docs" / "load.md").read_text()


def pages_with(something):
    """Finds of a function in pages, by page. Pages without a find are left out."""
    found = {page.relative_to(ROOT).as_posix(): something(page) for page in PAGES}
    return {page: what for page, what in found.items() if what}


def test_every_value_of_a_trial_that_a_page_names_exists():
    assert pages_with(lambda page: [name for name in trial_values(page) if not has(Trial, name)]) == {}


def test_every_value_of_a_view_of_a_trial_that_a_page_names_exists():
    def lost(page):
        return [f"{view}.{name}" for view, name in view_values(page) if not view_has(view, name)]

    assert pages_with(lost) == {}


def test_the_pages_name_values_of_trials():
    """Without any, the tests above would pass on no evidence."""
    assert {"during_fault", "repaired_by", "slo"} <= {name for page in PAGES for name in trial_values(page)}
    named = {pair for page in PAGES for pair in view_values(page)}
    assert {("tasks", "lost"), ("tasks", "latency_s"), ("during_fault", "availability")} <= named


def test_a_value_that_a_view_lacks_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`trial.tasks.lost == 0`, trial.whole.ttft_s.p95\n"
        '```python\nassert arms["a"].tasks.losses == 0\n```\n'
        "## Claims about an agent's tasks\n| value | meaning |\n|---|---|\n| `stuck`, `latency_s.p95` | s |\n## `x`\n| `y` |\n"
    )

    names = {("tasks", "latency_s"), ("tasks", "losses"), ("tasks", "lost"), ("tasks", "stuck"), ("whole", "ttft_s")}
    assert view_values(page) == sorted(names)
    assert [name for view, name in sorted(names) if not view_has(view, name)] == ["losses"]


def trial_values(page):
    if is_of_the_code(page):
        return []
    return sorted(set(re.findall(r"`(?:assert )?trial\.(\w+)", page.read_text())) - {"py"})


def view_values(page):
    """Pairs of a view and its value: those of examples, and of the table of tasks."""
    if is_of_the_code(page):
        return []
    text = page.read_text()
    table = text.partition("## Claims about an agent's tasks\n")[2].partition("\n## ")[0]
    cells = "".join(re.findall(r"^\|( `[^|]*)\|", table, re.MULTILINE))
    return sorted(
        {
            *re.findall(r"(?<![\w.])trial\.(\w+)\.(\w+)", text),
            *re.findall(r"\]\.(tasks)\.(\w+)", text),
            *(("tasks", name) for name in re.findall(r"`(\w+)[\w.]*`", cells)),
        }
    )


def view_has(view, name):
    return view in VIEWS and has(VIEWS[view], name)


def is_of_the_code(page):
    """True for a page made of the code itself, and for its past."""
    return "reference" in page.parts or page.name == "CHANGELOG.md"


def has(cls, name):
    return hasattr(cls, name) or name in getattr(cls, "__annotations__", {})


def test_what_a_page_links_to_and_every_path_that_it_names_is_there():
    def lost(page):
        text = page.read_text()
        links = [page.parent / link for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)]
        paths = [ROOT / path for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`", text)]
        return [str(path) for path in (*links, *paths) if not path.exists()]

    assert pages_with(lost) == {}


def test_every_anchor_that_a_page_links_to_is_a_heading():
    def lost(page):
        links = re.findall(r"\]\(([^)#:\s]*\.md)?#([^)\s]+)\)", page.read_text())
        return [(path, anchor) for path, anchor in links if anchor not in anchors(page.parent / path if path else page)]

    assert pages_with(lost) == {}


@functools.cache
def anchors(page):
    """Return GitHub's anchors of a page's headings, none for a missing page."""
    if not page.is_file():
        return set()
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", re.sub(r"\]\(.*?\)", "", title).lower()).replace(" ", "-") for title in titles]
    return {f"{slug}-{n}" if n else slug for slug, n in zip(slugs, counted(slugs), strict=True)}


def counted(names):
    """Return for each name how often it came before."""
    return [names[:index].count(name) for index, name in enumerate(names)]


def test_anchors_are_made_as_github_makes_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# The `llmchaos` command\n```sh\n# no heading\n```\n## A, b & c\n## Again\n## Again\n## [A link](x.md)\n"
    )

    assert anchors(page) == {"the-llmchaos-command", "a-b--c", "again", "again-1", "a-link"}


# The examples of docs/faults.md, docs/metrics-contract.md and docs/tutorial.md.
MADE_UP = {"chaos_migration.py", "parrot_metrics.py", "test_lost_gateway.py"}
TREE = {path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}


def test_every_python_file_that_a_page_names_is_there():
    """A README names files of its folder by their name. Other pages name any file."""

    def lost(page):
        readme = page.name == "README.md" and page.parent != ROOT
        below = f"{page.parent.relative_to(ROOT).as_posix()}/" if readme else ""
        return [
            name
            for name in sorted(set(re.findall(r"`([\w./-]+\.py)`", page.read_text())) - MADE_UP)
            if not any(
                f"/{path}".endswith(f"/{name}") and path.startswith("" if "/" in name else below) for path in TREE
            )
        ]

    assert pages_with(lost) == {}


# Tests make up paths, so they are left out.
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
    """True if `.a.b.c` is a module of the package, or a name in one."""
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
    """Without any, the tests above would pass on no evidence."""
    slo = (ROOT / "docs" / "slo.md").read_text()

    assert "](docs/" in README
    assert "`tests/processes/test_prometheus_versions.py`" in slo
