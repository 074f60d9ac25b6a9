"""Every code block of the documents runs, or a parser of its language accepts it.

Scenarios are collected with `--chaos-plan`. Commands that start nothing run in a copy
of the tree, page by page and in their order, without Docker.
"""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import promql_parser
import pytest
import yaml
from support.copies import copy_tree, environment_of
from support.doc_blocks import ROOT, BadBlock, Block, blocks_of, lines_of, output_of
from support.doc_commands import check_shell, is_safe

from lab_remediator.load import load_policy
from pytest_llmchaos import options
from pytest_llmchaos.errors import VacuousClaim
from pytest_llmchaos.lab.lab import Lab
from pytest_llmchaos.slo.arithmetic import InvalidSlo
from pytest_llmchaos.slo.openslo import load_slos
from pytest_llmchaos.trial.slo_result import SloResult
from pytest_llmchaos.trial.trial import Trial

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += [ROOT / "dashboards" / "README.md", *sorted((ROOT / "stack").rglob("README.md"))]
BLOCKS = [
    block
    for page in PAGES
    if page.is_file() and "_build" not in page.parts
    for block in blocks_of(page.relative_to(ROOT).as_posix(), page.read_text())
    # The reference is generated from the code: its Python blocks are signatures.
    if not (block.page.startswith("docs/reference/") and block.language == "python")
]
SLO = next(block.text for block in BLOCKS if block.text.startswith("apiVersion: openslo"))
INI = {name: kind for name, kind, *_ in options.INI}
TYPES = {"string": str, "bool": bool, "float": (int, float), "args": list, "linelist": list}
SHELLS = ("sh", "console", "bash", "shell")
# A claim without a mark is a part of a scenario.
PRELUDE = """from pytest_llmchaos import experiment, faults, loads

pytestmark = experiment(load=loads.open_loop(rate_rps=2), fault=faults.kill("model-1"))

"""


# --- Python


def check_python(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            cls = {"trial": Trial, "lab": Lab}.get(node.value.id)
            if cls and not hasattr(cls, node.attr) and node.attr not in getattr(cls, "__dataclass_fields__", ()):
                raise BadBlock(f"{block}: {cls.__name__} has no {node.attr}")


def has_tests(block: Block) -> bool:
    return re.search(r"^(async )?def test_", block.text, re.MULTILINE) is not None


PYTHON = [block for block in BLOCKS if block.language == "python"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The fault packages of the pages, as an installer leaves them."""
    folder = tmp_path_factory.mktemp("site")
    for block in BLOCKS:
        project = tomllib.loads(block.text).get("project", {}) if block.language == "toml" else {}
        if "entry-points" in project:
            info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
            )
            lines = [
                f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items())
                for group, names in project["entry-points"].items()
            ]
            (info / "entry_points.txt").write_text("\n".join(lines))
        elif block.language == "python" and block.file and not has_tests(block):
            (folder / block.file).write_text(block.text)
    return folder


def collect(folder: Path, blocks: list[Block], *paths: Path) -> str:
    """Plan all of the blocks in one session, and return what it prints."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for block in blocks:
        name = re.sub(r"\W", "_", block.page.removesuffix(".md"))
        prelude = "" if "experiment(" in block.text or "(trial)" not in block.text else PRELUDE
        (folder / f"test_{name}_{block.line}.py").write_text(prelude + block.text)
    before = set(folder.rglob("*"))
    env = environment_of(ROOT)
    env["PYTHONPATH"] = os.pathsep.join([*map(str, paths), env["PYTHONPATH"]])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--chaos-plan",
        "--chaos-runtime=local",
        "--chaos-backend=sim",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise BadBlock(done.stdout + done.stderr)
    assert set(folder.rglob("*")) == before
    return done.stdout


def test_every_scenario_is_planned(tmp_path, site):
    scenarios = [block for block in PYTHON if has_tests(block)]

    out = collect(tmp_path, scenarios, site)

    assert scenarios
    assert "nothing was touched" in out


@pytest.mark.parametrize("block", [block for block in PYTHON if not has_tests(block)], ids=str)
def test_every_other_python_block_runs(block, tmp_path, monkeypatch):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "sample").symlink_to(ROOT / "reports" / "sample")
    monkeypatch.chdir(tmp_path)

    exec(compile(block.text, str(block), "exec", dont_inherit=True), {"__name__": "example"})


# --- Commands


def safe_lines(page: str) -> list[tuple[Block, list[str]]]:
    """The blocks of a page with lines that may run, and these lines."""
    of_page = [block for block in BLOCKS if block.page == page and block.language in SHELLS]
    return [(block, [line for line in lines_of(block) if is_safe(line)]) for block in of_page]


RUN = [page for page in sorted({block.page for block in BLOCKS}) if any(lines for _, lines in safe_lines(page))]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree, with a run's report in it."""
    copy = copy_tree(tmp_path_factory.mktemp("copy") / "tree")
    run = copy / "reports" / "latest"
    shutil.copytree(copy / "reports" / "sample", run, dirs_exist_ok=True)
    return copy


@pytest.mark.sampled(share=0.4)
@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run_in_their_order(page, tree, tmp_path):
    out = run_lines([line for _, lines in safe_lines(page) for line in lines], save_files(page, tree), tmp_path)

    shown = [line for block, lines in safe_lines(page) if lines == lines_of(block) for line in output_of(block)]
    assert [line for line in shown if line not in out] == []


def save_files(page: str, tree: Path) -> Path:
    """The tree with the files that the page has its reader save."""
    for block in BLOCKS:
        if block.page == page and block.file and not (tree / block.file).exists():
            (tree / block.file).write_text(block.text)
    return tree


def run_lines(lines: list[str], folder: Path, home: Path) -> str:
    """Run the lines in one shell and return what they print."""
    env = environment_of(folder)
    del env["PYTHONDONTWRITEBYTECODE"]  # the tree is a copy: each program reads what the first one compiled
    env |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "DOCKER_HOST": "unix:///nonexistent",
    }
    env |= {"PYTEST_ADDOPTS": "-p no:cacheprovider", "XDG_STATE_HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    script = "set -eo pipefail\n" + "\n".join(lines).replace(".venv/bin/", "")
    command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise BadBlock(f"{script}\n{done.stdout}{done.stderr}")
    return done.stdout


# --- Data


def check_toml(block: Block) -> None:
    table = tomllib.loads(block.text).get("tool", {}).get("pytest", {}).get("ini_options", {})
    check_keys(block)
    for name, value in table.items():
        if name in INI and not isinstance(value, TYPES[INI[name]]):
            raise BadBlock(f"{block}: {name} is a {INI[name]}, got {value!r}")


def check_ini(block: Block) -> None:
    configparser.ConfigParser(interpolation=None).read_string(block.text)
    check_keys(block)


def check_keys(block: Block) -> None:
    """Raise BadBlock if an ini key, even in a comment, does not exist."""
    named = set(re.findall(r"^#?\s*(llmchaos_\w+)\s*=", block.text, re.MULTILINE))
    if unknown := sorted(named - set(INI)):
        raise BadBlock(f"{block}: no ini key {', '.join(unknown)}")


def check_yaml(block: Block) -> None:
    documents = list(yaml.safe_load_all(block.text))
    match documents:
        case [{"apiVersion": _}, *_]:
            load_slos(block.text, str(block))
        case [list(rules)] if all("signal" in rule for rule in rules):
            check_rules(block, rules)
        case [{"services": dict(services)}]:
            if bad := [name for name, one in services.items() if not isinstance(one, dict)]:
                raise BadBlock(f"{block}: services {bad} are not mappings")
        case [{"jobs": _} | {"chaos": {"script": _}} as document]:
            check_shell(Block(block.page, block.line, "sh", "", "\n".join(commands_of_jobs(document))))
        case [{"groups": list(groups)}]:
            for group in groups:
                for rule in group["rules"]:
                    promql_parser.parse(rule["expr"])
        case [{"scrape_configs": _}]:
            return
        case _:
            raise BadBlock(f"{block}: no parser for this YAML: add one")


def commands_of_jobs(document: dict) -> list[str]:
    """The commands of a workflow of GitHub, or of jobs of GitLab."""
    if "jobs" not in document:
        return [line for job in document.values() for line in job["script"]]
    return [step.get("run", "") for job in document["jobs"].values() for step in job["steps"]]


def check_rules(block: Block, rules: list[dict]) -> None:
    """The remediator's own parser reads the rules in place of the lab's."""
    policy = yaml.safe_load((ROOT / "stack" / "remediation.yaml").read_text())
    policy["rules"] = rules
    services = tuple({service for rule in rules for service in rule["services"]})
    more = (ROOT / "stack" / "remediation.slo.yaml").read_text()
    load_policy(yaml.safe_dump(policy), services, more=more)


def check_json(block: Block) -> None:
    json.loads(block.text)


def check_promql(block: Block) -> None:
    try:
        promql_parser.parse(block.text)
    except ValueError as error:
        raise BadBlock(f"{block}: {error}") from error


def check_text(block: Block) -> None:
    """Output and messages."""


CHECKERS = {
    **dict.fromkeys(SHELLS, check_shell),
    "python": check_python,
    "toml": check_toml,
    "ini": check_ini,
    "yaml": check_yaml,
    "json": check_json,
    "promql": check_promql,
    "text": check_text,
}


def check(block: Block) -> None:
    """Raise if the block is wrong, or its language has no checker and no reason."""
    if block.language.startswith("{"):
        return  # a directive of the site, which its build checks
    if block.language in CHECKERS:
        CHECKERS[block.language](block)
    elif not (block.language and block.why):
        raise BadBlock(
            f"{block}: no checker for the language {block.language!r}: use one of {', '.join(CHECKERS)}, "
            "or give the reason after the language"
        )


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_accepted_by_its_checker(block):
    check(block)


# --- Messages


def shown(error: str) -> str:
    """The one message in docs/slo.md that contains the text, as one line."""
    messages = [block.text for block in BLOCKS if block.page == "docs/slo.md" and block.language == "text"]
    (message,) = (text for text in messages if error in text)
    return " ".join(message.split())


def test_the_message_of_an_invalid_slo_is_the_real_one():
    with pytest.raises(InvalidSlo) as caught:
        load_slos(SLO.replace("target: 0.995", "target: 99.5"), "slo.yaml")

    assert str(caught.value) == shown("slo.yaml:")


def test_the_message_of_a_vacuous_claim_is_the_real_one():
    (slo,) = load_slos(SLO, "slo.yaml")
    result = SloResult(slo=slo, good=140, total=140, window_s=70, rate_rps=2, query="")

    with pytest.raises(VacuousClaim) as caught:
        assert result.budget_spent <= 0.02

    assert f"VacuousClaim: {caught.value}" == shown("VacuousClaim")


# --- The checkers themselves

BAD = [
    ("python", "def test_one(trial):\n    assert trial.faild == 0", "Trial has no faild"),
    ("python", "def test_one(lab):\n    lab.injekt()", "Lab has no injekt"),
    ("python", "def test_one(:", "invalid syntax"),
    ("sh", "pytest --chaos-sed=1", "pytest has no option --chaos-sed"),
    ("sh", "pytest --chaos-runtime cloud", "'cloud' is not one of"),
    ("sh", "pytest nowhere/", "no such path"),
    ("sh", "A=1 pytest -q | grep x && pytest --nope", "pytest has no option --nope"),
    ("console", "$ llmchaos heal --dry\nout", "llmchaos heal has no option --dry"),
    ("sh", "llmchaos hale", "llmchaos has no command"),
    ("sh", "llmchaos slo convert a --to b", "llmchaos slo convert has no option --to"),
    ("sh", "locust --masterr", "locust has no option --masterr"),
    ("sh", "make chaoss", "no target chaoss"),
    ("sh", "make chaos BACKND=sim", "no variable BACKND"),
    ("sh", "python stack/nothing.py", "no such module or script"),
    ("sh", "python stack/bootstrap.py env --formt shell", "has no option --formt"),
    ("sh", "python -m lab_motor", "no such module or script"),
    ("sh", "FILE=$(python -c 'import (')", "invalid syntax|never closed"),
    ("sh", "pip install 'pytest-llmchaos[all]'", "no extra"),
    ("sh", "cp -r examples/bio mine", "examples/bio: no such path"),
    ("sh", "frobnicate", "no checker for the command"),
    ("toml", "[tool.pytest.ini_options]\nllmchaos_atach = true", "no ini key llmchaos_atach"),
    ("toml", "[tool.pytest.ini_options]\n# llmchaos_atach = true", "no ini key llmchaos_atach"),
    ("toml", "[tool.pytest.ini_options]\nllmchaos_attach = 'yes'", "llmchaos_attach is a bool"),
    ("toml", "[tool", "Expected"),
    ("ini", "[pytest]\nllmchaos_atach = true", "no ini key llmchaos_atach"),
    ("ini", "pytest]", "no section headers"),
    ("yaml", SLO.replace("target: 0.995", "target: 99.5"), "must be a share"),
    ("yaml", "- {name: a, services: [model-1], signal: [{signal: replica-probe}], action: kill}", "evidence"),
    ("yaml", "services: {web: nginx}", "are not mappings"),
    ("yaml", "jobs: {chaos: {steps: [{run: pytest --nope}]}}", "no option --nope"),
    ("yaml", "chaos: {script: [pytest --nope]}", "no option --nope"),
    ("yaml", "some: thing", "no parser for this YAML"),
    ("json", "{", "Expecting"),
    ("promql", "sum(rate(a[5m])", "unclosed left parenthesis"),
    ("", "ls", "no checker for the language ''"),
    ("rust", "fn main() {}", "no checker for the language 'rust'"),
]


@pytest.mark.parametrize(("language", "text", "message"), BAD)
def test_a_wrong_block_is_refused(language, text, message):
    with pytest.raises(Exception, match=message):
        check(Block("docs/made-up.md", 1, language, "", text))


def test_a_language_without_a_checker_needs_a_reason():
    check(Block("docs/made-up.md", 1, "mermaid", "a drawing", "graph TD"))


@pytest.mark.parametrize(
    "text",
    [
        'pytestmark = experiment(load=1, fault=faults.kil("api"))\n\ndef test_one(trial):\n    assert trial.failed == 0',
        "def test_one(trial):\n    assert trial.failed == 0\n\nprint(undefined)",
    ],
)
def test_a_scenario_that_cannot_be_planned_is_refused(text, tmp_path):
    with pytest.raises(BadBlock, match=r"kil|undefined"):
        collect(tmp_path, [Block("docs/made-up.md", 1, "python", "", "from pytest_llmchaos import *\n" + text)])


def test_a_command_that_needs_an_earlier_one_is_refused(tree, tmp_path):
    with pytest.raises(BadBlock, match="No such file"):
        run_lines(["cd nowhere", "pytest --chaos-plan"], tree, tmp_path)


def test_blocks_are_found_in_lists_and_with_their_files():
    text = "1. Save `slo.yaml`:\n\n   ```yaml\n   a: 1\n   ```\n\n```text\nout\n```\n"

    assert [(b.line, b.language, b.text, b.file) for b in blocks_of("p.md", text)] == [
        (3, "yaml", "a: 1\n", "slo.yaml"),
        (7, "text", "out\n", ""),
    ]


def test_what_starts_or_installs_something_does_not_run():
    safe = ["cp -r examples/byo mine", "pytest --chaos-plan", "llmchaos generate --check", "pytest --help | grep chaos"]
    unsafe = [
        "pytest",
        "make chaos",
        "llmchaos heal",
        "docker ps",
        "cd x && pytest",
        'eval "$(python stack/bootstrap.py env)"',
    ]

    assert [line for line in (*safe, *unsafe) if is_safe(line)] == safe
